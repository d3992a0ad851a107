"""Semantic segmentation from a backbone that PiCIE trained without labels.

    python train.py --config=configs/picie_coco.py:small --config.data.coco_dir=DIR
    python train.py --config=configs/picie_semantic.py --config.data.coco_dir=DIR

The second run starts from the backbone of the first, ``runs/picie_coco-small`` (or of
``--config.train.weights=RUN``), and learns the 27 coarse classes. For comparison,
``--config.train.weights=efficientnet_lite0`` starts where PiCIE started.

Not yet measured.
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
