"""Boundaries, second stage: the logistic loss on the fusion trains all weights.

    python train.py --config=configs/bsds_finetune.py

Starts from the run of ``configs/bsds.py`` in ``runs/bsds`` (``:r50``: from that of
``configs/bsds.py:r50``); another run: ``--config.train.init_from=RUN``.

Measured by us, with fewer steps: docs/reproduction.md; ``:r50`` not yet run.
"""

import ml_collections

from sphemb.configs import bsds, common

VARIANTS = ("lite", "r50")


def get_config(variant: str = "lite") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/bsds.py``."""
    common.check_variant("bsds_finetune", variant, VARIANTS)
    config = bsds.get_config(variant)
    config.model.detach_fusion = False
    config.task.update(margin_weight=0.0, side_weight=0.0)
    config.train.weights = None
    config.train.init_from = (
        "runs/bsds" if variant == "lite" else f"runs/bsds-{variant}"
    )
    return config
