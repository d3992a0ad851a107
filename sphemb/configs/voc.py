"""Object proposals on PASCAL VOC 2012, after Kong & Fowlkes 2018, section 5.3.

    sphemb import-weights resnet50.pth --backbone resnet50
    python train.py --config=configs/voc.py                     ResNet-50
    python train.py --config=configs/voc.py:r101                ResNet-101
    python train.py --config=configs/voc.py:lite                EfficientNet-Lite0
    python train.py --config=configs/voc.py:mean_shift          then through mean shift
    python train.py --config=configs/voc.py:small --config.data.voc_dir=DIR

Published (Table 1): recall .769 with 10 proposals and .814 with 60, at IoU .5. Images
and weights: docs/datasets.md, docs/weights.md.

A step has one image on each device. The learning rate and the intervals are for one
image, as in the paper, and follow the number of devices: configs/common.py.

Not yet measured on the full set. ``small`` is for a few hundred images, half an hour of
one core: the pretrained EfficientNet-Lite0 stays as it is, and a decoder learns classes
and positions, from which one run has proposals, classes and instances with classes.
Measured by us on 497 images: docs/reproduction.md.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common, folder

BACKBONES = {"r50": "resnet50", "r101": "resnet101", "lite": "efficientnet_lite0"}
VARIANTS = (*BACKBONES, "mean_shift", "small")


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings of a variant."""
    common.check_variant("voc", variant, VARIANTS)
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
    # The authors' code: 150 epochs of 10,582 images.
    config.train.update(num_epochs=150, num_steps=0)
    config.train.log_every = 100
    config.train.checkpoint_every = 5000
    config.train.eval_every = 50000
    config.train.weights = backbone
    config.optimizer.update(
        name="sgd", learning_rate=2.5e-4, warmup_steps=0, weight_decay=5e-4
    )
    config.optimizer.clip_norm = placeholder(float)
    config.evaluation.update(
        batch_size=1, num_validation=200, num_test=1103, size_multiple=128
    )
    if variant == "mean_shift":
        config.task.num_steps = 5
        config.train.init_from = "runs/voc"
        config.train.num_epochs = 50
    if variant == "small":
        _few_images(config)
    return config


def _few_images(config: ml_collections.ConfigDict) -> None:
    """A fixed small backbone; classes, and positions that parts of an object share."""
    config.data.sbd = False
    config.augmentation.size = (320, 320)
    config.loader.update(batch_size=8, images_per_device=0)
    photographs = folder.get_config("photographs")
    config.model, config.optimizer = photographs.model, photographs.optimizer
    config.model.num_classes = 21
    config.optimizer.learning_rate = 2e-3
    config.task.update(
        name="Instances",
        position_periods=(512.0, 256.0, 128.0),
        margin=0.7,
        num_samples=1024,
        sample_ratio=1.0,
        normalize="terms",
        negative_weight=1.0,
        weight_power=0.0,
        pooled_concentrations=(9.0, 144.0),
        num_classes=21,
        classes_weight=0.5,
        class_balance=0.3,
        trimap_width=40,
        fit_images=200,
    )
    config.train.update(num_epochs=0, num_steps=800, weights="efficientnet_lite0")
    config.train.update(log_every=20, checkpoint_every=200, eval_every=0)
    config.evaluation.update(num_validation=100, size_multiple=64)
