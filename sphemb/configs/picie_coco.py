"""Classes without labels on COCO: PiCIE, after Cho et al., CVPR 2021.

    python train.py --config=configs/picie_coco.py --config.data.coco_dir=DIR
    python train.py --config=configs/picie_coco.py:over --config.data.coco_dir=DIR
    python train.py --config=configs/picie_coco.py:single --config.data.coco_dir=DIR
    python train.py --config=configs/picie_coco.py:small --config.data.coco_dir=DIR

``over`` learns 100 finer clusters beside the 27; ``single`` is the baseline: one view,
no invariance and no equivariance. ``small``, ``small_over`` and ``small_single`` are
for a laptop and a hundred images. DIR has panoptic annotations, which only the scores
read: docs/datasets.md. The method: docs/picie.md.

Published, on COCO-Stuff's 27 coarse classes: accuracy 48.1 and mean IoU 13.8, with
overclustering 50.0 and 14.4. Here panoptic maps are mapped to the same classes.

Measured by us: the small variants, docs/reproduction.md. Not yet run on the full set.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import coco, common

VARIANTS = ("r18", "over", "single", "small", "small_over", "small_single")


def get_config(variant: str = "r18") -> ml_collections.ConfigDict:
    """The settings of a variant."""
    common.check_variant("picie_coco", variant, VARIANTS)
    config = common.get_config()
    config.data = coco.get_config().data
    config.data.update(masks="panoptic", categories="coarse27")
    config.augmentation = {"name": "center", "size": (320, 320)}
    config.loader.batch_size = 128
    config.model = {
        "name": "FeaturePyramid",
        "backbone": "resnet18",
        "embedding_dim": 128,
        "normalize_maps": "none",
        "finer_scale": 1.0,
        "batch_norm": "trained",
        "dtype": "float32",
    }
    config.task = {
        "name": "Picie",
        "num_clusters": 27,
        "num_overclusters": 0,
        "views": 2,
        "embedding_dim": config.model.get_ref("embedding_dim"),
        "feature": "embedding",
        "metric": "euclidean",
        "temperature": 1.0,
        "balance": "none",
        "update_every": placeholder(int),  # an epoch shows every image once
        "cluster_images": 40000,  # of 118,287
        "cluster_pixels": 400,
        "start_images": 5120,
        "start_steps": 20,
        "blur": 0.5,
        "blur_sigma": (0.1, 2.0),
        "hue": 0.1,
        "gray": 0.2,
        "crop_side": (0.5, 1.0),
        "predict_scale": 0.75,  # 320 of COCO's usual 427 to 480 pixels
        "matching": "one_to_one",
    }
    config.optimizer.update(
        learning_rate=1e-4, power=0.0, warmup_steps=0, weight_decay=0.0
    )
    config.optimizer.clip_norm = placeholder(float)
    config.train.update(num_steps=9250, log_every=25, checkpoint_every=925)
    config.train.weights = "resnet18"
    config.evaluation.update(
        batch_size=8, num_validation=500, num_test=5000, size_multiple=128
    )
    parts = variant.split("_")
    if "small" in parts:
        config.augmentation.size = (128, 128)
        config.loader.batch_size = 8
        config.model.update(
            backbone="efficientnet_lite0",
            batch_norm="fixed",
            normalize_maps="cells",
            finer_scale=0.2,
        )
        config.task.update(
            cluster_images=32,
            start_images=20,
            cluster_pixels=1000,
            blur_sigma=(0.1, 0.8),  # in proportion to the size
            predict_scale=0.3,
        )
        config.train.update(num_steps=150, log_every=10, checkpoint_every=50)
        config.train.weights = "efficientnet_lite0"
        config.evaluation.update(batch_size=4, num_validation=100, num_test=100)
    if "single" in parts:
        config.task.views = 1
    elif "over" in parts:
        config.task.num_overclusters = 100
    return config
