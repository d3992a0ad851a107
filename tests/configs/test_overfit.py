"""Every config learns one easy image: its own data set, task and loss reach the score.

The networks are those of the configs with few channels, on the smallest ResNet in place
of their backbones. There is no augmentation, and AdamW has a higher rate. One group
or one class everywhere scores at most .3.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from sphemb.cli import shipped_configs
from sphemb.configs import common
from sphemb.evaluation import Evaluation, evaluate
from sphemb.metrics import MatchedIoU
from sphemb.training import Experiment, Trained, replicate, update_task_state
from tests.data.test_bsds import write_truth
from tests.scenes import draw_blocks, write_coco, write_folder, write_voc
from tests.tiny import small_resnet


@dataclasses.dataclass(frozen=True)
class Case:
    """The score that a config must exceed, and what is changed in its sections."""

    score: str
    above: float = 0.9
    steps: int = 100
    shift: int = 0
    variant: tuple[str, ...] = ()
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: dict[str, Any] = dataclasses.field(default_factory=dict)


DIGITS = {
    "data": {"size": 32, "train": 8, "validation": 8, "test": 8},
    "model": {"embedding_dim": 8, "features": (8, 16), "head_features": 16},
}
DENSE = {"embedding_dim": 8, "decoder_features": 16, "head_features": 16}
FEW = {"num_samples": 512, "sample_ratio": 1.0, "max_objects": 8}
BOUNDED = {"max_objects": 8, "max_groups": 8}
POOLED = {**FEW, "pooled_concentrations": (72.0,)}
BOUNDARIES = {
    "score": "ods@9",
    "model": {**DENSE, "embedding_dim": 3, "branches": ("stem", "stage1")},
    "task": {"num_samples": 512, "thresholds": 9, "tolerance": 0.02},
}
PICIE = {"num_clusters": 3, "update_every": 100, "start_images": 8}
BLOCKS = {
    "steps": 8,
    "shift": 2,
    # The deepest map has four cells, of which the config thinks most.
    "model": {"embedding_dim": 8, "finer_scale": 1.0},
    "task": PICIE,
}

CASES = {
    "bsds": Case(**BOUNDARIES),
    "bsds_finetune": Case(**BOUNDARIES),
    "coco": Case("mean_best_iou", 0.85, model=DENSE, task=POOLED),
    "digits": Case("mean_best_iou", **DIGITS),
    "digits_spectral": Case("mean_best_iou", **DIGITS),
    "folder": Case(
        "matched_precision@0.5",
        variant=("photographs",),
        model={"decoder_features": 16, "head_features": 16},
        task={"window": 64, "min_size": 16, "periods": (96.0, 48.0, 24.0), **BOUNDED},
    ),
    "nuclei": Case(
        "matched_precision@0.5",
        model={"features": (8, 16), "head_features": 16},
        task=BOUNDED,
    ),
    "picie_coco": Case("mean_iou", 0.5, variant=("small",), **BLOCKS),
    "picie_folder": Case("mean_iou", 0.8, **BLOCKS),
    "picie_semantic": Case("mean_iou", model={**DENSE, "output_stride": 8}),
    "voc": Case("mean_best_iou", 0.85, model=DENSE, task=POOLED),
    "voc_instances": Case("ap_r@0.5", model=DENSE, task=POOLED),
    "voc_semantic": Case("mean_iou", model=DENSE, task={"num_samples": 512}),
    "voc_spectral": Case("mean_best_iou"),
}


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """Compilation takes most of the time, even so."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def write_boundaries(root, draw):
    """The blocks and their outermost pixels in the layout of BSDS500."""
    image, instances = draw()
    outlines = np.zeros(instances.shape, np.uint8)
    for axis in (0, 1):
        for shift in (1, -1):
            outlines |= (np.roll(instances, shift, axis) != instances) & (instances > 0)
    for folder in ("train", "val", "test"):
        path = root / "images" / folder / "1.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
        write_truth(root / "groundTruth" / folder / "1.mat", [outlines, outlines])
    return root


def write_data(data, root, draw):
    """The image in the files of a data set, as often as a batch has images."""
    if "data_dir" in data:
        data.data_dir = str(root / "prepared")
    if data.name == "voc":
        data.voc_dir = str(write_voc(root / "voc", 8, draw, (15, 7)))
    elif data.name == "coco":
        data.masks = "instances"
        data.coco_dir = str(write_coco(root / "coco", 8, draw, (1, 3)))
    elif data.name == "bsds":
        data.bsds_dir = str(write_boundaries(root / "bsds", draw))
    elif data.name in ("folder", "images"):
        folder = write_folder(root / "folder", 12, draw)
        data.dir = str(folder / "images" if data.name == "images" else folder)


def small_config(name, case):
    module = importlib.import_module(f"sphemb.configs.{name}")
    config = module.get_config(*case.variant)
    config.augmentation = {"name": None}
    config.loader.update(batch_size=8, images_per_device=0, num_threads=0)
    if "backbone" in config.model:
        config.model.backbone = "resnet18"
    config.data.update(case.data)
    config.model.update(case.model)
    config.task.update(case.task)
    if "predict_scale" in config.task:
        config.task.predict_scale = 1.0
    config.optimizer = common.get_config().optimizer
    config.optimizer.update(learning_rate=1e-2, warmup_steps=0)
    config.train.update(num_epochs=0, num_steps=case.steps)
    config.train.update(weights=None, init_from=None)
    config.evaluation.update(batch_size=8, num_test=1, size_multiple=32)
    return config


def overfit(config) -> Evaluation:
    """Learns the first training image on one device, and scores it."""
    experiment = Experiment(config)
    experiment._sources["test"] = experiment.source("train")
    (batch,) = experiment.one_pass("train", [0], batch_size=1)
    batch = {k: v[None] for k, v in batch.items() if k not in ("mask", "valid")}
    mapped = jax.vmap(
        experiment.train_step, axis_name="batch", in_axes=(None, 0), out_axes=None
    )
    step, every = jax.jit(mapped, donate_argnums=0), experiment.update_every

    def updated(state):
        return jax.device_get(update_task_state(experiment, replicate(state)))

    state = jax.jit(experiment.init_state)()
    for number in range(config.train.num_steps):
        if every > 0 and number % every == 0:
            state = updated(state)
        state, _ = step(state, batch)
    if every:  # the final task state belongs to the final network
        state = updated(state)
    return evaluate(Trained.of(experiment, state, experiment.class_names), "test")


# On drawn digits PiCIE's clusters do not find the strokes: configs/picie_digits.py.
NAMES = sorted(set(shipped_configs()) - {"picie_digits"})
# Long, and beside another configuration of the same task and network.
LONG = ("coco", "picie_coco", "picie_semantic", "voc_instances", "voc_spectral")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.nightly] if n in LONG else []) for n in NAMES],
)
def test_one_image_is_learned(name, tmp_path):
    case = CASES[name]
    config = small_config(name, case)
    draw = functools.partial(draw_blocks, shift=case.shift)
    write_data(config.data, tmp_path, draw)
    with small_resnet():
        found = overfit(config)
    scores = found.scores
    if name == "picie_folder":  # images alone have no scores
        truth = draw_blocks(shift=case.shift)[1][None]
        scores = MatchedIoU.from_batch(
            found.predictions.classes, truth, num_clusters=3, num_classes=3
        ).report()
    assert scores[case.score] > case.above
