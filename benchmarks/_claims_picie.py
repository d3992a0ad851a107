"""Claims about PiCIE: which of its parts help, on photographs without labels."""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from benchmarks._claims_records import Effect, over_seeds
from benchmarks._claims_runs import scored_once
from benchmarks._folders import write_folder
from benchmarks.frozen_features import clustered
from sphemb.configs import folder, picie_coco, voc
from sphemb.evaluation import evaluate
from sphemb.training import Experiment, Trained, train

_POSITIVE, _VOID = (0.0, None), 255
_SAME_COLORS: Any = dict.fromkeys(
    ("brightness", "contrast", "saturation", "hue", "gray", "blur"), 0.0
)
# What differs from configs/picie_coco.py:small.
VARIANTS: dict[str, dict[str, Any]] = {
    "one view": {"views": 1},
    "invariance": {"crop_side": (1.0, 1.0), "flip": 0.0},
    "equivariance": _SAME_COLORS,
    "both": {},
    "both and overclustering": {"num_overclusters": 100},
}
# Validation sets: the first class that is scored, their number, and that of things.
SCORED = {"coco": (1, 27, 12), "voc": (1, 20, 20)}


def write_photographs(
    voc_dir: pathlib.Path,
    coco_dir: pathlib.Path,
    images: pathlib.Path,
    to: pathlib.Path,
) -> None:
    """Writes all training images without classes, and the two validation sets.

    ``TO/coco`` and ``TO/voc`` are folders with the same ``train``; their ``val`` has
    COCO's 27 coarse classes or VOC's 20.
    """
    sets = {"coco": picie_coco.get_config("small"), "voc": voc.get_config("small")}
    sets["coco"].data.coco_dir = str(coco_dir)
    sets["voc"].data.voc_dir = str(voc_dir)
    given = {name: Experiment(config) for name, config in sets.items()}
    paths = sorted(images.rglob("*.jpg"))
    photographs = itertools.chain(
        (
            example["image"]
            for one in given.values()
            for example in _every(one, "train")
        ),
        (np.asarray(Image.open(path).convert("RGB")) for path in paths),
    )
    unlabeled = (
        (image, np.full(image.shape[:2], _VOID, np.uint8)) for image in photographs
    )
    part = to.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    write_folder(unlabeled, part / "coco" / "train")
    (part / "voc").mkdir()
    (part / "voc" / "train").symlink_to("../coco/train")
    for name, one in given.items():
        # Void, -1, becomes 255.
        pairs = (
            (seen["image"], seen["semantic"].astype(np.uint8))
            for seen in _every(one, "test")
        )
        write_folder(pairs, part / name / "val")
    part.rename(to)


def _every(experiment: Experiment, split: str) -> Iterator[dict[str, Any]]:
    source = experiment.source(split)
    return (source[i] for i in range(len(source)))


def configured(
    data: pathlib.Path, scored: str, seed: int, **task: Any
) -> ml_collections.ConfigDict:
    """``configs/picie_coco.py:small``, shorter, on what `write_photographs` wrote."""
    config = picie_coco.get_config("small")
    config.seed = seed
    config.data = folder.get_config().data
    config.data.update(
        dir=str(data / scored), masks="classes", void=_VOID, intensity="full"
    )
    config.task.update(update_every=25, cluster_images=64, **task)
    first, number, things = SCORED[scored]
    config.task.update(first_class=first, num_classes=number, num_things=things)
    config.train.update(num_steps=100, checkpoint_every=100)
    return config


def accuracies(
    data: pathlib.Path, runs: pathlib.Path, name: str, seed: int
) -> list[float]:
    """Of a variant, or ``"frozen features"``, on each set of `SCORED`."""
    changes = VARIANTS.get(name, {"views": 1})
    configs = [configured(data, scored, seed, **changes) for scored in SCORED]

    def score(workdir: pathlib.Path) -> list[float]:
        if name in VARIANTS:
            trained = train(configs[0], workdir)
        else:
            trained = clustered(configs[0])
        state = trained.params, trained.task_state, trained.step, trained.batch_stats
        networks = (Trained(Experiment(config), *state) for config in configs)
        scores = (evaluate(one, "test", num_samples=1).scores for one in networks)
        return [float(score["accuracy"]) for score in scores]

    kind = "trained" if name in VARIANTS else "frozen"
    return scored_once(runs, configs[0], score, name=kind)


def measure_picie(flags: argparse.Namespace) -> list[Effect]:
    """Measures the accuracy of PiCIE with and without each of its parts."""
    sources = flags.voc_dir, flags.coco_dir, flags.images
    named = "\n".join(str(source.absolute()) for source in sources)
    data = flags.runs / f"photographs-{hashlib.sha256(named.encode()).hexdigest()[:12]}"
    if not data.is_dir():
        write_photographs(*sources, data)
    run = functools.partial(accuracies, data, flags.runs)
    every = {
        name: np.array([run(name, seed) for seed in range(flags.number)])
        for name in ("frozen features", *VARIANTS)
    }
    # The two parts are compared at equal cost, with two views.
    pairs = {
        "both minus frozen features": ("both", "frozen features", _POSITIVE),
        "both minus one view": ("both", "one view", _POSITIVE),
        "both minus equivariance alone": ("both", "equivariance", _POSITIVE),
        "both minus invariance alone": ("both", "invariance", _POSITIVE),
        "both and overclustering minus both": (
            "both and overclustering",
            "both",
            _POSITIVE,
        ),
        "one view minus frozen features": ("one view", "frozen features", None),
    }
    effects = []
    for place, scored in enumerate(("COCO, 27 classes", "VOC, 20 classes")):
        for name, (new, old, claimed) in pairs.items():
            gains = (every[new] - every[old])[:, place].tolist()
            effects.append(over_seeds(f"{scored}: {name}", gains, claimed=claimed))
    return effects
