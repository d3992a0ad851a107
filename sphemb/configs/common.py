"""Settings of every experiment; the other configs hold only what differs.

Sections: ``data`` (a data set of ``sphemb.data.DATASETS`` and its settings),
``augmentation`` (one of ``sphemb.data.AUGMENTATIONS``, or no name for none),
``loader``, ``model`` (a class of ``sphemb.models``), ``task`` (a class of
``sphemb.tasks``), ``optimizer``, ``train``, ``evaluation``.

A step has ``loader.batch_size`` images, on any number of devices that divides it. A
run has ``train.num_steps`` steps, or ``train.num_epochs`` passes over the data; the
other is 0. With ``loader.images_per_device`` a step has that many images on each device
instead. Then ``num_steps``, ``warmup_steps`` and all intervals keep their number of
images, and the learning rate grows in proportion to the images of a step: the linear
rule of Goyal et al., "Accurate, Large Minibatch SGD", 2017.
"""

import os

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb import InputError


def get_config() -> ml_collections.ConfigDict:
    """The shared settings."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "data": {},
            "augmentation": {"name": placeholder(str)},
            "loader": {
                "batch_size": 16,
                "images_per_device": 0,
                "num_threads": os.cpu_count() or 1,
                "skip_bad": False,
            },
            "model": {},
            "task": {},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "power": 0.9,
                "warmup_steps": 50,
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                "accumulate": 1,
                "backbone_rate": 1.0,
            },
            "train": {
                "num_epochs": 0.0,
                "num_steps": 1000,
                "log_every": 20,
                "eval_every": 0,
                "checkpoint_every": 200,
                "weights": placeholder(str),
                "init_from": placeholder(str),
            },
            "evaluation": {
                "batch_size": 8,
                "num_validation": 40,
                "num_test": 200,
                "size_multiple": 64,
            },
        }
    )


def check_variant(name: str, variant: str, variants: tuple[str, ...]) -> None:
    """Raises `InputError` unless the config of that name has the variant."""
    if variant not in variants:
        raise InputError(
            f"the variant of configs/{name}.py must be one of {', '.join(variants)}, "
            f"got {variant!r}"
        )
