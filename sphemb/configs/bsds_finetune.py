"""Boundaries, second stage: all of the network by the logistic loss on the fusion.

    python train.py --config=configs/bsds_finetune.py

Starts from the network of ``configs/bsds.py`` in ``runs/bsds``; another run of it is
``--config.train.init_from=RUN``.

``:r50`` goes on from ``configs/bsds.py:r50``.

Measured by us, with fewer steps: docs/reproduction.md; ``:r50`` not yet run.
"""

import ml_collections

from sphemb import InputError
from sphemb.configs import bsds

VARIANTS = ("lite", "r50")


def get_config(variant: str = "lite") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/bsds.py``."""
    if variant not in VARIANTS:
        raise InputError(
            "the variant of configs/bsds_finetune.py must be one of "
            f"{', '.join(VARIANTS)}, got {variant!r}"
        )
    config = bsds.get_config(variant)
    config.model.detach_fusion = False
    config.task.update(margin_weight=0.0, side_weight=0.0)
    config.train.weights = None
    config.train.init_from = (
        "runs/bsds" if variant == "lite" else f"runs/bsds-{variant}"
    )
    return config
