"""Instances with class and score: groups, voting, linear score regression (AP^r).

    python train.py --config=configs/voc_instances.py                 ResNet-50
    python train.py --config=configs/voc_instances.py:r101            ResNet-101
    python train.py --config=configs/voc_instances.py:lite            EfficientNet-Lite0
    python train.py --config=configs/voc_instances.py:small --config.data.coco_dir=DIR

Published (Kong & Fowlkes 2018, Table 2): AP^r at IoU .5 of 64.5 on VOC 2012 val, by two
networks, one for the groups and one for the classes. Here one network has both heads.
``small`` is for a laptop: VOC's classes on few images of COCO.

Measured by us: ``small``, AP^r and the loss in each stage, docs/reproduction.md.
"""

import ml_collections

from sphemb.configs import common, voc, voc_semantic

VARIANTS = voc_semantic.VARIANTS


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc.py``."""
    common.check_variant("voc_instances", variant, VARIANTS)
    config = voc.get_config("lite" if variant == "small" else variant)
    config.model.update(
        decoder_features=64,
        atrous_rates=(),
        num_classes=21,
        classes_from="features",  # the embedding separates one class
    )
    config.task.update(
        name="Instances",
        num_classes=21,
        classes_weight=1.0,
        class_balance=0.0,
        trimap_width=0,
        fit_images=200,
        ridge=1.0,
    )
    if variant == "small":
        config.data = voc_semantic.get_config("small").data
        voc_semantic.small_images(config)
        config.model.classes_from = "backbone"
        config.task.update(
            num_samples=2048,
            sample_ratio=1.0,
            normalize="terms",
            negative_weight=1.0,
            min_size=32,
            max_objects=200,
            fit_images=100,
            class_balance=0.5,
        )
    return config
