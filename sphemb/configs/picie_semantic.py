"""Semantic segmentation that starts from what PiCIE learned without labels.

    python train.py --config=configs/picie_coco.py:small --config.data.coco_dir=DIR
    python train.py --config=configs/picie_semantic.py --config.data.coco_dir=DIR

The second run takes the backbone of the first, ``runs/picie_coco-small``, and learns
the 27 coarse classes; of another run with ``--config.train.weights=RUN``. What it gains
shows beside ``--config.train.weights=efficientnet_lite0``, where PiCIE started.

Measured by us: not yet run.
"""

import ml_collections

from sphemb.configs import voc_semantic


def get_config() -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc_semantic.py:small``."""
    config = voc_semantic.get_config("small")
    config.data.categories = "coarse27"
    config.model.num_classes = 28
    config.task.update(num_classes=28, embedding_weight=0.0)
    config.train.weights = "runs/picie_coco-small"
    return config
