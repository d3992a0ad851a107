"""Nuclei, or other objects of one kind in large numbers, in a folder of your own.

    python train.py --config=configs/nuclei.py --config.data.dir=DIR
    python train.py --config=configs/nuclei.py:quick --config.data.dir=DIR

A small network learns from scratch where objects are, and a position that the pixels of
an object have in common; see `sphemb.tasks.Objects`. It compares neighbors only, so an
image can have any number of objects. Training measures the size of the objects, and
resizes images so that it fits the other lengths. ``quick`` is a first look in five
minutes.

Measured by us, beside StarDist, a U-Net and a watershed: docs/reproduction.md.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common, folder

VARIANTS = ("full", "quick")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/folder.py``."""
    common.check_variant("nuclei", variant, VARIANTS)
    config = folder.get_config()
    config.data.intensity = "percentile"
    config.augmentation.update(
        size=(128, 128),
        scale=(0.6, 1.6),
        rotation=45.0,
        quarter_turns=True,
        brightness=0.3,
        contrast=0.3,
    )
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
    config.train.eval_every = config.train.num_steps // 3
    config.evaluation.update(batch_size=4, num_validation=20)
    return config
