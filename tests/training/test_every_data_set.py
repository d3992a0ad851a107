"""Every data set with every task: it learns and is scored, or is refused in one line.

All images have one size and the network is one layer, so that what is compiled for a
task serves all data sets.
"""

import functools
import json
import math

import flax.linen as nn
import jax
import numpy as np
import pytest
import scipy.io
from PIL import Image

import sphemb.models
from sphemb import InputError
from sphemb.configs import common
from sphemb.tasks import compute_scores, predict_and_measure
from sphemb.training import Experiment, make_train_step, spread_batch, train
from sphemb.training._labels import check_labels
from sphemb.training._loop import _first_batch, _rehearse, update_task_state

SIZE, NUMBER, K = (32, 32), 8, 21  # of VOC, so that one network serves all
CLASSES = [0, 3, 15]  # of the background and of the two discs


class EveryMap(nn.Module):
    """One layer of stride 2 that gives every map that some task reads."""

    num_classes: int = K
    stride: int = 2

    @nn.compact
    def __call__(self, image, *, train=False):
        cells = nn.Conv(8, (2, 2), strides=(2, 2))(image)
        logits = nn.Dense(self.num_classes)(cells)
        fused = jax.image.resize(cells, (*image.shape[:3], 8), "bilinear")
        return {
            "embedding": nn.Dense(4)(cells),
            "logits": logits,
            "branches": (nn.Dense(3)(cells),),
            "sides": nn.Dense(1)(fused),
            "fused": nn.Dense(1)(fused)[..., 0],
        }


def draw(seed):
    """An image, two discs as instances, and their classes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    instances = np.zeros(SIZE, np.uint8)
    for number, column in enumerate((8, 24), start=1):
        middle, radius = rng.uniform(10, 22), rng.uniform(4, 7)
        disc = (rows - middle) ** 2 + (columns - column) ** 2 < radius**2
        instances[disc] = number
    image = rng.integers(0, 60, (*SIZE, 3)) + 120 * (instances > 0)[..., None]
    return image.astype(np.uint8), instances, np.array(CLASSES, np.uint8)[instances]


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def folder(root, masks):
    for i in range(NUMBER):
        image, instances, classes = draw(i)
        save(image, root / f"images/{i}.png")
        stored = {"classes": classes, "instances": instances}.get(masks, instances > 0)
        save(stored.astype(np.uint8), root / f"masks/{i}.png")
    return {"name": "folder", "dir": str(root), "masks": masks}


def coco_json(root):
    coco(root, "instances")
    for tail in ("train", "val"):
        (root / f"{tail}2017").rename(root / tail)
        listed = root / f"annotations/instances_{tail}2017.json"
        listed.rename(root / tail / "_annotations.coco.json")
    (root / "annotations").rmdir()
    return {"name": "folder", "dir": str(root)}


def images(root):
    for i in range(NUMBER):
        save(draw(i)[0], root / f"{i}.png")
    return {"name": "images", "dir": str(root)}


def voc(root):
    names = [str(i) for i in range(NUMBER)]
    for split in ("train", "val"):
        listed = root / f"ImageSets/Segmentation/{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(f"{split}{name}" for name in names))
        for name in names:
            image, *labels = draw(int(name))
            save(image, root / f"JPEGImages/{split}{name}.jpg")
            kinds = ("SegmentationObject", "SegmentationClass")
            for kind, indices in zip(kinds, labels, strict=True):
                paletted = Image.fromarray(indices)
                paletted.putpalette(list(range(256)) * 3)
                path = root / f"{kind}/{split}{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                paletted.save(path)
    return {"name": "voc", "voc_dir": str(root), "data_dir": str(root / "tfds")}


def coco(root, masks):
    for tail in ("train2017", "val2017"):
        listed = {"images": [], "annotations": []}
        listed["categories"] = [
            {"id": i, "name": name, "isthing": i < 3}
            for i, name in enumerate(("bird", "person", "sky"), start=1)
        ]
        for i in range(NUMBER):
            image, instances, _ = draw(i)
            name = f"{i:012d}"
            save(image, root / tail / f"{name}.jpg")
            listed["images"].append(
                {"id": i, "file_name": f"{name}.jpg", "height": 32, "width": 32}
            )
            if masks == "stuff":
                save(instances, root / f"stuffthingmaps_trainval2017/{tail}/{name}.png")
            elif masks == "panoptic":
                colours = np.zeros((*SIZE, 3), np.uint8)
                colours[..., 0] = instances + 1
                save(colours, root / f"annotations/panoptic_{tail}/{name}.png")
                segments = [{"id": 1, "category_id": 3, "iscrowd": 0}]
                segments += [
                    {"id": q + 1, "category_id": q, "iscrowd": 0} for q in (1, 2)
                ]
                listed["annotations"].append(
                    {
                        "image_id": i,
                        "file_name": f"{name}.png",
                        "segments_info": segments,
                    }
                )
            else:
                for q in (1, 2):
                    rows, columns = (
                        axis.tolist() for axis in np.nonzero(instances == q)
                    )
                    top, bottom = min(rows), max(rows) + 1
                    left, right = min(columns), max(columns) + 1
                    outline = [left, top, right, top, right, bottom, left, bottom]
                    listed["annotations"].append(
                        {
                            "id": 10 * i + q,
                            "image_id": i,
                            "category_id": q,
                            "iscrowd": 0,
                            "area": (bottom - top) * (right - left),
                            "bbox": [left, top, right - left, bottom - top],
                            "segmentation": [outline],
                        }
                    )
        if masks != "stuff":
            path = root / f"annotations/{masks}_{tail}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(listed))
    return {
        "name": "coco",
        "coco_dir": str(root),
        "masks": masks,
        "categories": None if masks == "stuff" else "voc",
        "data_dir": str(root / "tfds"),
    }


def bsds(root):
    for tail in ("train", "val", "test"):
        for i in range(NUMBER):
            image, instances, _ = draw(i)
            save(image, root / f"images/{tail}/{tail}{i}.jpg")
            edges = instances != np.roll(instances, 1, axis=0)
            cells = np.empty((1, 2), object)
            for a in range(2):
                cells[0, a] = {"Segmentation": instances, "Boundaries": edges}
            path = root / f"groundTruth/{tail}/{tail}{i}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(path, {"groundTruth": cells})
    return {"name": "bsds", "bsds_dir": str(root), "data_dir": str(root / "tfds")}


def digits(root):
    return {
        "name": "digits",
        "handwriting": "sklearn",
        "size": SIZE[0],
        "train": NUMBER,
        "validation": NUMBER,
        "test": NUMBER,
        "data_dir": str(root),
    }


# name -> how it is written, and which label maps hold more than void
DATA = {
    "digits": (digits, {"instances"}),
    "voc": (voc, {"instances", "semantic"}),
    "coco instances": (
        functools.partial(coco, masks="instances"),
        {"instances", "semantic"},
    ),
    "coco panoptic": (
        functools.partial(coco, masks="panoptic"),
        {"instances", "semantic"},
    ),
    "coco stuff": (functools.partial(coco, masks="stuff"), {"semantic"}),
    "bsds": (bsds, {"instances", "boundaries"}),
    "folder instances": (functools.partial(folder, masks="instances"), {"instances"}),
    "folder components": (functools.partial(folder, masks="components"), {"instances"}),
    "folder single": (functools.partial(folder, masks="single"), {"instances"}),
    "folder classes": (
        functools.partial(folder, masks="classes"),
        {"instances", "semantic"},
    ),
    "folder of COCO": (coco_json, {"instances"}),
    "images": (images, set()),
}
SAMPLED = {"num_samples": 64}
GROUPED = {"predict_steps": 2, "max_groups": 4, "min_size": 4, "max_objects": 16}
# name -> settings, and the label maps that are needed
TASKS = {
    "Proposals": ({**SAMPLED, **GROUPED, "num_steps": 1}, {"instances"}),
    "Spectral": ({**SAMPLED, **GROUPED}, {"instances"}),
    "Boundaries": (
        {**SAMPLED, "thresholds": 5, "scale_multiple": 2},
        {"instances", "boundaries"},
    ),
    "Semantic": (
        {**SAMPLED, "num_classes": K, "embedding_weight": 1.0, "trimap_width": 3},
        {"semantic"},
    ),
    "Instances": (
        {**SAMPLED, **GROUPED, "num_classes": K, "num_steps": 0},
        {"instances", "semantic"},
    ),
    "Picie": (
        {
            "num_clusters": 3,
            "embedding_dim": 4,
            "num_classes": K,
            "cluster_pixels": 16,
            "start_images": 8,
            "start_steps": 1,
            "views": 1,
            "scale_multiple": 2,
            "matching": "majority",
        },
        set(),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sphemb.models, "EveryMap", EveryMap, raising=False)
        patch.setattr(sphemb.models, "__all__", [*sphemb.models.__all__, "EveryMap"])
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Data sets by name, each written when it is first asked for."""

    @functools.cache
    def settings_of(name):
        root = tmp_path_factory.mktemp(name.replace(" ", "_")) / "data"
        root.mkdir()
        return DATA[name][0](root)

    return settings_of


@pytest.fixture(scope="module")
def programs():
    """Of each task what all data sets share: a state, a step and a prediction."""

    kept = {}

    def programs_of(experiment):
        name = experiment.config.task.name
        if name not in kept:
            task = experiment.task
            step = make_train_step(
                task,
                experiment.training_network,
                experiment.optimizer,
                jax.random.key(0),
            )
            mapped = jax.vmap(step, axis_name="batch", in_axes=(None, 0), out_axes=None)

            def predict(params, task_state, batch):
                apply = functools.partial(experiment.network, params, {})
                return predict_and_measure(task, apply, task_state, batch)

            state = experiment.init_state()
            kept[name] = state, jax.jit(mapped), jax.jit(predict)
        return kept[name]

    return programs_of


def config_of(data, task):
    config = common.get_config()
    config.data = data
    config.augmentation = {"name": "center", "size": SIZE}
    config.loader.update(batch_size=NUMBER, num_threads=0)
    config.model = {"name": "EveryMap"}
    config.task = {"name": task, **TASKS[task][0]}
    config.optimizer.warmup_steps = 0
    config.evaluation.update(num_validation=2, num_test=2)
    return config


# Of these folders a test of `folder instances` or of `coco instances` is a relative.
RELATIVES = ("coco panoptic", "folder components", "folder single", "folder of COCO")
# PiCIE reads no label, so one data set of each kind will do.
PICIE = ("digits", "coco stuff", "images")


def marks_of(data, task):
    kept = data in PICIE if task == "Picie" else data not in RELATIVES
    return [] if kept else [pytest.mark.nightly]


@pytest.mark.parametrize(
    ("data", "task"),
    [pytest.param(d, t, marks=marks_of(d, t)) for d in DATA for t in TASKS],
)
def test_a_task_learns_and_is_scored_or_is_refused(
    data, task, written, programs, tmp_path
):
    config = config_of(written(data), task)
    known, needed = DATA[data][1], TASKS[task][1]
    if not needed <= known:
        with pytest.raises(InputError) as caught:
            train(config, tmp_path / "run", evaluate=lambda *_: {})
        line = str(caught.value)
        assert line.startswith(f"config.task.name {task} ")
        assert f"config.data.name {config.data.name}" in line
        assert any(name in line for name in needed - known)
        assert "\n" not in line
        assert not (tmp_path / "run").exists()
        return
    experiment = Experiment(config)
    state, step, predict = programs(experiment)
    check_labels(experiment, ("train", "validation", "test"))
    _rehearse(experiment, state)
    if experiment.update_every > 0:
        state = update_task_state(experiment, state)
    batch = next(experiment.train_batches())
    _, scalars = step(state, {k: v[None] for k, v in spread_batch(batch).items()})
    assert scalars["loss"] > 0
    assert scalars["gradient_norm"] > 0
    learned = {m.name for m in experiment.task.label_maps if m.learned}
    assert ("valid_share" in scalars) == bool(learned)
    assert scalars.get("valid_share", 1) > 0
    split, batch = _first_batch(experiment)
    found, metrics = jax.device_get(predict(state.params, state.task_state, batch))
    if experiment.task.metrics_on_host:
        metrics = experiment.task.metrics(found, batch)
    scores = compute_scores(metrics, experiment.class_names, split=split)
    finite = [name for name, score in scores.items() if math.isfinite(score)]
    # PiCIE needs no label, and where there are no classes nothing is scored.
    assert bool(finite) == (task != "Picie" or "semantic" in known)
