"""PiCIE on drawn digits: no labels, no weights, no download.

    python train.py --config=configs/picie_digits.py

A demonstration that runs anywhere. The features of an untrained network are poor, and
the digits differ mostly in color; the scores compare strokes with the background only.

Not yet measured.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common, digits


def get_config() -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/common.py``."""
    config = common.get_config()
    config.data = digits.get_config().data
    config.data.update(train=2000, validation=50, test=200)
    config.model = {
        "name": "UNet",
        "embedding_dim": 16,
        "features": (16, 32, 64),
        "head_features": 16,
    }
    config.task = {
        "name": "Picie",
        "num_clusters": 8,
        "num_overclusters": 0,
        "views": 2,
        "embedding_dim": config.model.get_ref("embedding_dim"),
        "balance": "inverse",  # nine in ten pixels are background
        "update_every": 50,
        "cluster_images": 128,
        "cluster_pixels": 500,
        "start_images": 64,
        "start_steps": 20,
        "hue": 0.05,
        "gray": 0.0,
        "blur": 0.0,
        "scored_by": "foreground",
        "num_classes": 2,
        "num_things": 0,
        "matching": "majority",
    }
    config.optimizer.update(learning_rate=1e-3, power=0.0, warmup_steps=0)
    config.train.update(num_steps=300, log_every=10, checkpoint_every=100)
    config.train.weights = placeholder(str)
    return config
