"""Instances or classes by one network (Barnes & Dubrawski 2018, Table 1).

    python train.py --config=configs/voc_spectral.py              spectral loss
    python train.py --config=configs/voc_spectral.py:softmax      classes

FCN-8 with 21 outputs on a ResNet-50: unit vectors for instances, or a softmax for VOC's
classes. ``:coco_spectral`` and ``:coco_softmax`` with ``--config.data.coco_dir=DIR``
are for a laptop: VOC's classes on few images of COCO, the small backbone and small
crops. Both in one command, with their table:

    python -m benchmarks.instances_or_classes --coco_dir DIR

Published, on VOC, pairwise accuracy / precision / recall: .859 / .864 / .915 of
classes, .852 / .848 / .919 of instances. The paper raises the learning rate to 1e-5 and
does not give the scale of its loss; rate and length of training are ours.

Measured by us: ``coco_softmax`` and ``coco_spectral``, docs/reproduction.md.
"""

import ml_collections

from sphemb.configs import coco, common, digits_spectral, voc

VARIANTS = ("spectral", "softmax", "coco_spectral", "coco_softmax")


def get_config(variant: str = "spectral") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc.py``."""
    common.check_variant("voc_spectral", variant, VARIANTS)
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
        config.task = digits_spectral.get_config().task
        config.task.update(weight_power=0.0, max_groups=64, min_size=64, max_objects=64)
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
        config.data = coco.get_config().data
        config.data.update(masks="panoptic", categories="voc")
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
