"""Boundaries on BSDS500 (Kong & Fowlkes 2018, section 5.2, who show a curve only).

    python train.py --config=configs/bsds.py
    python train.py --config=configs/bsds.py:logistic

BSDS500 is downloaded, or read from ``--config.data.bsds_dir`` or
``--config.data.manual_dir``: docs/datasets.md.

The margin loss alone trains the branches; the gradient of the fusion does not reach
them. ``configs/bsds_finetune.py`` is the second stage. ``:logistic`` is the baseline:
the same network, trained as long as both stages together, by logistic losses on every
branch and on the fusion. ``:r50`` has the paper's backbone.

Measured by us, with fewer steps: docs/reproduction.md.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common, folder

VARIANTS = ("lite", "logistic", "r50")


def get_config(variant: str = "lite") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/common.py``."""
    common.check_variant("bsds", variant, VARIANTS)
    config = common.get_config()
    config.data = {
        "name": "bsds",
        "bsds_dir": placeholder(str),
        "manual_dir": placeholder(str),
        "train_on": "train+val",
        "target": "consensus",
        "consensus": 2,
        "data_dir": placeholder(str),
    }
    config.augmentation = folder.get_config("photographs").augmentation
    config.augmentation.update(
        size=(256, 256), scale=(1.0, 1.0), rotation=0.0, quarter_turns=True
    )
    config.loader.batch_size = 4
    config.model = {
        "name": "SideBranches",
        "backbone": "efficientnet_lite0",
        "branches": ("stage1", "stage2", "stage3", "stage5", "stage7"),
        "embedding_dim": 3,
        "output_stride": 16,
        "decoder_features": 32,
        "head_features": 32,
        "fusion_features": 16,
        "detach_fusion": True,
        "batch_norm": "fixed",
        "dtype": "float32",
    }
    config.task = {
        "name": "Boundaries",
        "margin": 0.2,
        "margin_weight": 1.0,
        "num_samples": 1024,
        "logistic_weight": 1.0,
        "side_weight": 0.0,
        "scales": (1.0,),
        "nms": True,
        "thresholds": 99,
        "tolerance": 0.0075,
    }
    config.optimizer.learning_rate = 1e-3
    config.train.weights = "efficientnet_lite0"
    config.train.num_steps = 1000
    config.evaluation.update(
        batch_size=1, num_validation=10, num_test=200, size_multiple=32
    )
    if variant == "logistic":
        config.task.update(margin_weight=0.0, side_weight=1.0)
        config.model.detach_fusion = False
        config.train.num_steps = 2000
    elif variant == "r50":
        config.model.update(
            backbone="resnet50",
            branches=("stage1", "stage2", "stage3", "stage4"),
            output_stride=8,
            decoder_features=0,
        )
        config.train.weights = "resnet50"
        config.train.num_steps = 20000
    return config
