"""The real digits experiment, shrunk until one step of it takes no time."""

from __future__ import annotations

import pathlib

import ml_collections

from configs import digits


def tiny_config(
    data_dir: pathlib.Path, variant: str = "sklearn"
) -> ml_collections.ConfigDict:
    """``configs/digits.py`` with small drawings, a small network and few steps."""
    config = digits.get_config(variant)
    config.data.update(size=32, train=24, validation=8, test=8, data_dir=str(data_dir))
    config.loader.update(batch_size=8, num_threads=0)
    config.model.update(embedding_dim=4, features=(8, 16), head_features=8)
    config.task.update(num_steps=1, num_samples=64, predict_steps=2, max_groups=8)
    config.train.update(num_steps=4, log_every=1, eval_every=0, checkpoint_every=2)
    config.train.init_from = None
    config.optimizer.warmup_steps = 0
    config.evaluation.update(num_validation=8, num_test=6)
    return config
