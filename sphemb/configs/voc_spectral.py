"""Instances instead of classes, of one network (Barnes & Dubrawski 2018, Table 1).

    python train.py --config=configs/voc_spectral.py              spectral loss
    python train.py --config=configs/voc_spectral.py:softmax      its classes

FCN-8 with 21 outputs on a ResNet-50, once with unit vectors for instances and once with
a softmax for VOC's classes. With ``:coco_spectral`` and ``:coco_softmax`` and
``--config.data.coco_dir=DIR``, VOC's classes on a few images of COCO, for a laptop: the
small backbone and small crops. Both of those in one command, and their table:

    python -m benchmarks.instances_or_classes --coco_dir DIR

Published, on VOC, pairwise accuracy / precision / recall: .859 / .864 / .915 of
classes, .852 / .848 / .919 of instances. The paper raises the learning rate to 1e-5 and
does not say how its loss is scaled; rate and length of training are ours.

Measured by us: `:coco_softmax` and `:coco_spectral`, docs/reproduction.md.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb import InputError
from sphemb.configs import common, voc

VARIANTS = ("spectral", "softmax", "coco_spectral", "coco_softmax")


def get_config(variant: str = "spectral") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc.py``."""
    if variant not in VARIANTS:
        raise InputError(
            "the variant of configs/voc_spectral.py must be one of "
            f"{', '.join(VARIANTS)}, got {variant!r}"
        )
    config = voc.get_config("lite" if variant.startswith("coco") else "r50")
    config.model = {
        "name": "FCN8",
        "backbone": config.model.backbone,
        "embedding_dim": 21,
        "head_features": 0,
        "batch_norm": "fixed",
        "dtype": "float32",
    }
    if variant.endswith("spectral"):
        config.task = {
            "name": "Spectral",
            "num_samples": 0,
            "weight_power": 0.0,
            "rounding": "kwik_cluster",
            "tries": 1,
            "threshold": 0.5,
            "max_groups": 64,
            "min_size": 64,
            "concentration": 36.0,
            "predict_steps": 10,
            "mode_threshold": 0.7,
            "max_objects": 64,
        }
    else:
        config.task = {
            "name": "Semantic",
            "num_classes": 21,
            "class_balance": 0.0,
            "embedding_weight": 0.0,
            "trimap_width": 0,
            "pair_scores": True,
            "max_objects": 64,
        }
    config.train.num_epochs = 50
    if variant.startswith("coco"):
        config.data = {
            "name": "coco",
            "coco_dir": placeholder(str),
            "masks": "panoptic",
            "categories": "voc",
            "data_dir": placeholder(str),
        }
        config.augmentation.size = (256, 256)
        config.loader.update(batch_size=4, images_per_device=0)
        config.task.max_objects = 200
        config.optimizer = common.get_config().optimizer
        config.optimizer.learning_rate = 5e-4
        config.train.update(
            num_epochs=0,
            num_steps=600,
            log_every=20,
            checkpoint_every=200,
            eval_every=0,
        )
        config.evaluation.update(num_validation=40, num_test=100)
    return config
