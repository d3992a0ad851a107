"""The real digits experiment, shrunk until one step of it takes no time."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np

from sphemb.configs import coco, digits, folder
from sphemb.models.backbones import _efficientnet, _resnet


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
    config.evaluation.update(num_validation=8, num_test=6, size_multiple=32)
    return config


def proposals_config() -> ml_collections.ConfigDict:
    """The network and the task of ``configs/coco.py:small``, on a folder of images."""
    config = coco.get_config("small")
    config.data = folder.get_config().data
    config.data.intensity = "full"
    config.augmentation = folder.get_config("photographs").augmentation
    return config


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A config of photographs with the smallest backbone, small crops and few steps."""
    config.augmentation.size = (32, 32)
    config.loader.update(batch_size=8, images_per_device=0, num_threads=0)
    if "backbone" in config.model:
        config.model.update(backbone="resnet18", output_stride=16)
        config.model.embedding_dim = min(config.model.embedding_dim, 4)
    else:
        config.model.update(features=(8, 16), head_features=8)
    fewer = {
        "window": 32,
        "num_samples": 64,
        "predict_steps": 2,
        "max_groups": 8,
        "max_objects": 8,
    }
    config.task.update({k: v for k, v in fewer.items() if k in config.task})
    config.train.update(num_epochs=0, num_steps=1)
    config.train.update(log_every=1, checkpoint_every=1, eval_every=0)
    config.train.update(weights=None, init_from=None)
    config.optimizer.warmup_steps = 0
    config.evaluation.update(
        batch_size=1, num_validation=2, num_test=4, size_multiple=32
    )
    return config


@contextlib.contextmanager
def small_resnet() -> Iterator[None]:
    """ResNet-18 has one block a stage and few channels, and is compiled sooner."""
    with (
        mock.patch.dict(_resnet.BLOCKS, {18: (1, 1, 1, 1)}),
        mock.patch.object(_resnet, "_WIDTHS", (16, 16, 16, 16)),
    ):
        yield


@contextlib.contextmanager
def small_efficientnet() -> Iterator[None]:
    """EfficientNet-Lite0 has a shortcut in stage 2 alone, and few channels."""
    few = tuple(
        stage._replace(
            blocks=2 if i == 1 else 1,
            expansion=min(2, stage.expansion),
            channels=16 + 8 * (i % 2),
        )
        for i, stage in enumerate(_efficientnet.STAGES)
    )
    with mock.patch.object(_efficientnet, "STAGES", few):
        yield


def drawn_variables(tree: Any, *, noise: float = 0.0) -> Any:
    """Variables of these shapes by NumPy; to draw them by JAX takes compilation.

    Args:
        tree: what `jax.eval_shape` says of a network's variables.
        noise: standard deviation of what is no kernel, around 0 or, for scales and
            variances, 1.
    """
    rng = np.random.default_rng(1)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name, drawn = path[-1].key, rng.normal(size=leaf.shape)
        if name == "kernel":
            drawn *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            drawn = noise * drawn + (name in ("scale", "var"))
        return drawn.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)
