"""Object proposals on PASCAL VOC 2012, after Kong & Fowlkes 2018, section 5.3.

    sphemb import-weights resnet50.pth --backbone resnet50
    python train.py --config=configs/voc.py                     ResNet-50
    python train.py --config=configs/voc.py:r101                ResNet-101
    python train.py --config=configs/voc.py:lite                EfficientNet-Lite0
    python train.py --config=configs/voc.py:mean_shift          then through mean shift

Published (Table 1): recall .769 with 10 proposals and .814 with 60, at IoU .5. How to
get the images and the weights: docs/datasets.md, docs/weights.md.

A step takes one image on each device. The learning rate and the intervals are stated
for one image, as the authors trained, and carried over to more: configs/common.py.

Measured by us: not yet run on the full set.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb import InputError
from sphemb.configs import common

BACKBONES = {"r50": "resnet50", "r101": "resnet101", "lite": "efficientnet_lite0"}
VARIANTS = (*BACKBONES, "mean_shift")


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings of a variant."""
    if variant not in VARIANTS:
        raise InputError(
            f"the variant of configs/voc.py must be one of {', '.join(VARIANTS)}, got "
            f"{variant!r}"
        )
    backbone = BACKBONES.get(variant, "resnet50")
    config = common.get_config()
    config.data = {
        "name": "voc",
        "sbd": True,
        "voc_dir": placeholder(str),
        "manual_dir": placeholder(str),
        "data_dir": placeholder(str),
    }
    config.augmentation = {"name": "images", "size": (384, 384)}
    config.loader.update(batch_size=1, images_per_device=1)
    config.model = {
        "name": "DenseEmbedding",
        "backbone": backbone,
        "embedding_dim": 64,
        "output_stride": 8,
        "decoder_stride": placeholder(int),
        "normalize_maps": "none",
        "batch_norm": "fixed",
        "dtype": "float32",
    }
    config.task = {
        "name": "Proposals",
        "margin": 0.5,
        "concentration": 36.0,  # (3 / (1 - margin))^2, the supplement's
        "num_steps": 0,
        "num_samples": 4000,
        "sample_ratio": 0.3,
        "normalize": "pairs",
        "negative_weight": 5.0,
        "predict_steps": 10,
        "threshold": 0.7,
        "max_groups": 32,
        "min_size": 64,  # pixels: one cell
        "max_objects": 64,
        "pooled_concentrations": (18.0, 72.0, 144.0),
        "budgets": (1, 2, 5, 10, 20, 30, 60),
        "max_iou": 0.9,
    }
    # Of 10,582 images; so long the authors' code ran.
    config.train.update(num_epochs=150, num_steps=0)
    config.train.log_every = 100
    config.train.checkpoint_every = 5000
    config.train.eval_every = 50000
    config.train.weights = backbone
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 2.5e-4,
        "power": 0.9,
        "warmup_steps": 0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "clip_norm": placeholder(float),
        "accumulate": 1,
        "backbone_rate": 1.0,
    }
    config.evaluation.update(
        batch_size=1, num_validation=200, num_test=1103, size_multiple=128
    )
    if variant == "mean_shift":
        config.task.num_steps = 5
        config.train.init_from = "runs/voc"
        config.train.num_epochs = 50
    return config
