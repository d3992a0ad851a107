"""Object proposals on COCO: the settings of ``configs/voc.py`` on other images.

    python train.py --config=configs/coco.py --config.data.coco_dir=DIR
    python train.py --config=configs/coco.py:lite --config.data.coco_dir=DIR
    python train.py --config=configs/coco.py:small --config.data.coco_dir=DIR

``small`` is for a laptop and few images: the small backbone and small crops. The files
in DIR: docs/datasets.md.

Measured by us: ``small`` on 100 + 100 images, docs/reproduction.md. Not yet run on all
of COCO.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb.configs import common, voc

VARIANTS = (*voc.VARIANTS, "small")


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc.py``."""
    common.check_variant("coco", variant, VARIANTS)
    config = voc.get_config("lite" if variant == "small" else variant)
    config.data = {
        "name": "coco",
        "coco_dir": placeholder(str),
        "masks": "instances",
        "categories": placeholder(str),
        "data_dir": placeholder(str),
    }
    # As many images as `configs/voc.py` trains on, from a larger set.
    config.train.num_steps = round(config.train.num_epochs * 10582)
    config.train.num_epochs = 0
    config.task.max_objects = 200
    config.evaluation.num_test = 5000
    if variant == "mean_shift":
        config.train.init_from = "runs/coco"
    elif variant == "small":
        config.augmentation.size = (256, 256)
        config.loader.update(batch_size=4, images_per_device=0)
        config.model.update(embedding_dim=32, output_stride=16, decoder_stride=4)
        config.task.update(
            num_samples=2048,
            sample_ratio=1.0,
            normalize="terms",
            negative_weight=1.0,
            min_size=32,
        )
        config.optimizer = common.get_config().optimizer
        config.optimizer.learning_rate = 5e-4
        config.train.update(num_steps=600, log_every=20, checkpoint_every=200)
        config.evaluation.num_validation = 40
    return config
