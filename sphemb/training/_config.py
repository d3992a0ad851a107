"""The configuration's sections and what each must hold; see ``configs/common.py``."""

from __future__ import annotations

import ml_collections

from sphemb._checks import InputError, check_count

_SECTIONS = {
    "loader": {"batch_size", "num_threads", "skip_bad"},
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
    for section in _NAMED:
        if "name" not in config[section]:
            raise InputError(f"config.{section}.name is missing")
    for section, wanted in _SECTIONS.items():
        _check_keys(f"config.{section}", set(config[section]), wanted)
    for section, counts in {
        "loader": {"batch_size": 1, "num_threads": 0},
        "train": {
            "num_steps": 1,
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
                continue  # one image on each device
            check_count(f"config.{section}.{name}", value, at_least=least)


def _check_keys(where: str, found: set[str], wanted: set[str]) -> None:
    for key in sorted(found - wanted):
        raise InputError(
            f"unknown config key {where}.{key}: it must be one of "
            f"{', '.join(sorted(wanted))}"
        )
    for key in sorted(wanted - found):
        raise InputError(f"{where}.{key} is missing")
