"""Object proposals on COCO: the settings of ``configs/voc.py`` on other images.

    python train.py --config=configs/coco.py --config.data.coco_dir=DIR
    python train.py --config=configs/coco.py:lite --config.data.coco_dir=DIR

What DIR must hold: docs/datasets.md. Measured by us on 100 of its images:
docs/reproduction.md.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import voc


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc.py``."""
    config = voc.get_config(variant)
    config.data = {
        "name": "coco",
        "coco_dir": placeholder(str),
        "masks": "instances",
        "categories": placeholder(str),
        "data_dir": placeholder(str),
    }
    config.task.max_objects = 200
    config.evaluation.num_test = 5000
    if variant == "mean_shift":
        config.train.init_from = "runs/coco"
    return config
