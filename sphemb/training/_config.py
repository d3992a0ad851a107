"""The configuration's sections and what each must hold; see ``configs/common.py``."""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from sphemb._checks import InputError, InputTypeError, check_count, check_number
from sphemb.training._components import check_type

_SECTIONS = {
    "loader": {"batch_size", "images_per_device", "num_threads", "skip_bad"},
    "optimizer": {
        "name",
        "learning_rate",
        "power",
        "warmup_steps",
        "momentum",
        "weight_decay",
        "clip_norm",
        "accumulate",
        "backbone_rate",
    },
    "train": {
        "num_epochs",
        "num_steps",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "weights",
        "init_from",
    },
    "evaluation": {"batch_size", "num_validation", "num_test", "size_multiple"},
}
# The settings of these sections are those of what their ``name`` stands for.
_NAMED = ("data", "augmentation", "model", "task")


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses a configuration with missing, unknown or impossible entries.

    Raises:
        InputError: names the entry.
    """
    _check_keys("config", set(config), {"seed", *_NAMED, *_SECTIONS})
    check_count("config.seed", config.seed)
    for section in (*_NAMED, *_SECTIONS):
        if not isinstance(config[section], Mapping | ml_collections.ConfigDict):
            raise InputTypeError(
                f"config.{section} must be a section of settings, got "
                f"{config[section]!r}"
            )
    for section in _NAMED:
        if "name" not in config[section]:
            raise InputError(f"config.{section}.name is missing")
    for section, wanted in _SECTIONS.items():
        _check_keys(f"config.{section}", set(config[section]), wanted)
    for section, counts in {
        "loader": {"batch_size": 1, "images_per_device": 0, "num_threads": 0},
        "train": {
            "num_steps": 0,
            "log_every": 1,
            "eval_every": 0,
            "checkpoint_every": 1,
        },
        "optimizer": {"accumulate": 1},
        "evaluation": {
            "batch_size": 1,
            "num_validation": 1,
            "num_test": 1,
            "size_multiple": 1,
        },
    }.items():
        for name, least in counts.items():
            value = config[section][name]
            if value is None and (section, name) == ("loader", "batch_size"):
                raise InputError(
                    "config.loader.batch_size must be the images of a step that the "
                    "settings are stated for, got None: for one image on each device "
                    "set config.loader.images_per_device=1"
                )
            check_count(f"config.{section}.{name}", value, at_least=least)
    epochs, steps = config.train.num_epochs, config.train.num_steps
    check_number("config.train.num_epochs", epochs, at_least=0)
    if (epochs > 0) == (steps > 0):
        raise InputError(
            "config.train must have exactly one of num_epochs and num_steps above 0, "
            f"got num_epochs {epochs:g} and num_steps {steps}"
        )
    for entry, hint in {
        "loader.skip_bad": bool,
        "train.weights": str | None,
        "train.init_from": str | None,
    }.items():
        section, name = entry.split(".")
        check_type(f"config.{entry}", config[section][name], hint)


def _check_keys(where: str, found: set[str], wanted: set[str]) -> None:
    for key in sorted(found - wanted):
        raise InputError(
            f"unknown config key {where}.{key}: it must be one of "
            f"{', '.join(sorted(wanted))}"
        )
    for key in sorted(wanted - found):
        raise InputError(f"{where}.{key} is missing")
