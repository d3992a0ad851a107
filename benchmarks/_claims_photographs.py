"""Claims about classes of photographs: the same network with other losses."""

from __future__ import annotations

import argparse
import json
import pathlib

import ml_collections

from benchmarks._claims_records import Effect, over_seeds
from benchmarks.instances_or_classes import train_both
from sphemb.cli import run_training
from sphemb.configs import voc, voc_semantic

_POSITIVE, _HARDLY = (0.0, None), (-0.02, None)
_SPECTRAL_STEPS = 250
# Score -> what it is called here.
_SCORES = {
    "mean_iou": "mean IoU",
    "iou_inside@5": "mean IoU within 5 pixels of true boundaries",
    "iou_outside@5": "farther than 5 pixels",
    "iou_outside@20": "farther than 20 pixels",
}


def configured(
    voc_dir: str, seed: int, embedding_weight: float
) -> ml_collections.ConfigDict:
    """The network and images of ``configs/voc.py:small`` with `Semantic`, shorter."""
    config = voc.get_config("small")
    config.seed = seed
    config.data.voc_dir = str(voc_dir)
    config.augmentation.size = (256, 256)
    config.model.embedding_dim = 32
    config.task = voc_semantic.get_config("small").task
    config.task.update(class_balance=0.3, embedding_weight=embedding_weight)
    config.train.num_steps = 200
    config.evaluation.num_validation = 1
    return config


def measure_classes(flags: argparse.Namespace) -> list[Effect]:
    """Mean IoU with the embedding loss beside the cross-entropy, minus without."""
    scores = {
        weight: [
            _scores(flags.runs / f"classes-{weight:g}-{seed}", flags, seed, weight)
            for seed in range(flags.number)
        ]
        for weight in (0.0, 1.0)
    }
    usual = [one["mean_iou"] for one in scores[0.0]]
    effects = [over_seeds("mean IoU, cross-entropy alone", usual)]
    for score, name in _SCORES.items():
        pairs = zip(scores[1.0], scores[0.0], strict=True)
        gains = [one[score] - other[score] for one, other in pairs]
        effects.append(over_seeds(f"{name}: difference", gains, claimed=_POSITIVE))
    return effects


def measure_instances(flags: argparse.Namespace) -> list[Effect]:
    """Pairs of pixels: instances by the spectral loss, minus classes by the softmax."""
    every = [
        train_both(flags.runs, seed, voc_dir=str(flags.voc_dir), steps=_SPECTRAL_STEPS)
        for seed in range(flags.number)
    ]
    effects = []
    for score, name in {
        "pair_accuracy": "pair accuracy",
        "adjusted_rand_index": "adjusted Rand index",
    }.items():
        classes = [one["coco_softmax"][f"classes/{score}"] for one in every]
        instances = [one["coco_spectral"][score] for one in every]
        gains = [new - old for new, old in zip(instances, classes, strict=True)]
        effects.append(over_seeds(f"{name}: classes", classes))
        effects.append(
            over_seeds(f"{name}: instances minus classes", gains, claimed=_HARDLY)
        )
    return effects


def _scores(
    workdir: pathlib.Path, flags: argparse.Namespace, seed: int, weight: float
) -> dict[str, float]:
    record = workdir / "summary.json"
    if record.is_file():
        return json.loads(record.read_text())
    return run_training(configured(flags.voc_dir, seed, weight), workdir)
