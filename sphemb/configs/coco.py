"""Object proposals on COCO: the settings of ``configs/voc.py`` on other images.

    python train.py --config=configs/coco.py --config.data.coco_dir=DIR
    python train.py --config=configs/coco.py:lite --config.data.coco_dir=DIR
    python train.py --config=configs/coco.py:small --config.data.coco_dir=DIR

The last is for a laptop and a few images: the small backbone and small crops. What DIR
must hold: docs/datasets.md.

Measured by us: ``small`` on 100 + 100 images, docs/reproduction.md; on all of COCO not
yet run.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from sphemb import InputError
from sphemb.configs import common, voc

VARIANTS = (*voc.VARIANTS, "small")


def get_config(variant: str = "r50") -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/voc.py``."""
    if variant not in VARIANTS:
        raise InputError(
            f"the variant of configs/coco.py must be one of {', '.join(VARIANTS)}, got "
            f"{variant!r}"
        )
    config = voc.get_config("lite" if variant == "small" else variant)
    config.data = {
        "name": "coco",
        "coco_dir": placeholder(str),
        "masks": "instances",
        "categories": placeholder(str),
        "data_dir": placeholder(str),
    }
    # As many images as `configs/voc.py` shows, of more.
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
