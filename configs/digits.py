"""Instances of handwritten digits, after Kong & Fowlkes 2018, Fig. 4.

python train.py --config=configs/digits.py              bundled handwriting
python train.py --config=configs/digits.py:sphere       on the sphere in 3-d
python train.py --config=configs/digits.py:mnist --config.data.mnist_path=mnist.npz
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import common

VARIANTS = ("sklearn", "sphere", "mnist")


def get_config(variant: str = "sklearn") -> ml_collections.ConfigDict:
    """The settings of a variant."""
    config = common.get_config()
    config.data = {
        "name": "digits",
        "handwriting": "sklearn",
        "mnist_path": placeholder(str),
        "data_dir": placeholder(str),
        "size": 64,
        "train": 12000,
        "validation": 200,
        "test": 500,
        "seed": 0,
    }
    config.loader.augmentation = "DigitsAugmentation"
    config.model = {
        "name": "Hourglass",
        "embedding_dim": 16,
        "features": (48, 96, 128),
        "head_features": 32,
    }
    config.task = {
        "name": "Proposals",
        "margin": 0.5,
        "concentration": 36.0,
        "num_steps": 0,
        "num_samples": 512,
        "negative_weight": 1.0,
        "predict_steps": 10,
        "threshold": 0.7,
        "max_groups": 32,
        "min_size": 8,
        "max_objects": 16,
    }
    config.train.num_steps = 800
    config.train.eval_every = 200
    return config
