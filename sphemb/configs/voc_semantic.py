"""Semantic segmentation by cross-entropy, with or without the embedding loss.

    python train.py --config=configs/voc_semantic.py                  ResNet-50
    python train.py --config=configs/voc_semantic.py:r101             ResNet-101
    python train.py --config=configs/voc_semantic.py:lite             EfficientNet-Lite0
    python train.py --config=configs/voc_semantic.py:small --config.data.coco_dir=DIR

After Kong & Fowlkes 2018, section 5.4 and Fig. 9, who show a curve only. ``small`` is
for a laptop: VOC's classes on few images of COCO. Without the embedding loss:
``--config.task.embedding_weight=0``. Images and weights: docs/datasets.md,
docs/weights.md.

Measured by us: ``small``, three seeds, docs/reproduction.md.
"""

import ml_collections

from sphemb.configs import coco, common, voc

VARIANTS = (*voc.BACKBONES, "small")


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings of a variant."""
    common.check_variant("voc_semantic", variant, VARIANTS)
    config = voc.get_config("lite" if variant == "small" else variant)
    config.model.update(
        decoder_stride=4,
        decoder_features=256,
        head_features=256,
        coordinates=False,  # a class is the same everywhere
        atrous_rates=(6, 12, 18),
        num_classes=21,
        classes_from="embedding",
    )
    config.task = {
        "name": "Semantic",
        "num_classes": 21,
        "class_balance": 0.0,
        "embedding_weight": 1.0,
        "embedding_groups": "classes",
        "margin": 0.5,
        "num_samples": 4000,
        "normalize": "pairs",
        "negative_weight": 1.0,
        "trimap_width": 40,
    }
    if variant == "small":
        config.data = coco.get_config().data
        config.data.update(masks="panoptic", categories="voc")
        small_images(config)
        config.augmentation.size = (192, 192)
        config.loader.batch_size = 4
        config.model.update(atrous_rates=(2, 4), classes_from="backbone")
        config.task.num_samples = 1024
        config.task.class_balance = 0.5  # without it, background only
        config.train.num_steps = 250
    return config


def small_images(config: ml_collections.ConfigDict) -> None:
    """Settings for a laptop: small crops, a small network, few steps."""
    config.augmentation.size = (128, 128)
    config.loader.update(batch_size=8, images_per_device=0)
    config.model.update(
        normalize_maps="channels",
        embedding_dim=32,
        output_stride=16,
        decoder_stride=4,
        decoder_features=64,
        head_features=64,
    )
    config.optimizer = common.get_config().optimizer
    # Batch normalization keeps its moments: at the rate of the new layers the means of
    # the backbone's features would leave them.
    config.optimizer.update(learning_rate=1e-2, backbone_rate=0.002)
    config.train.update(num_epochs=0, num_steps=300)
    config.train.update(log_every=20, checkpoint_every=100, eval_every=0)
    config.evaluation.update(num_validation=40, num_test=100)
