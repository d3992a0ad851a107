"""The claim about classes of photographs: one network with and without a loss."""

from __future__ import annotations

import argparse
import functools

import ml_collections

from benchmarks._claims_records import Effect, over_seeds
from benchmarks._claims_runs import scored_once
from sphemb.cli import run_training
from sphemb.configs import voc, voc_semantic

_POSITIVE = (0.0, None)
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
    """Measures what the embedding loss changes beside the cross-entropy."""

    def scores(seed: int, weight: float) -> dict[str, float]:
        config = configured(str(flags.voc_dir), seed, weight)
        return scored_once(flags.runs, config, functools.partial(run_training, config))

    pairs = [
        [scores(seed, weight) for weight in (0, 1)] for seed in range(flags.number)
    ]
    gains = {
        name: [with_it[score] - without[score] for without, with_it in pairs]
        for score, name in _SCORES.items()
    }
    effects = []
    for name, values in gains.items():
        claimed = _POSITIVE if name == "mean IoU" else None
        effects.append(over_seeds(f"{name}: difference", values, claimed=claimed))
    within, beyond = (
        gains[_SCORES[name]] for name in ("iou_inside@5", "iou_outside@20")
    )
    more = [b - a for a, b in zip(within, beyond, strict=True)]
    name = "the difference beyond 20 pixels minus that within 5"
    return [*effects, over_seeds(name, more, claimed=_POSITIVE)]
