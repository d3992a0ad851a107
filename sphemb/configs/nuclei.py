"""Nuclei, or other small objects in large numbers, in a folder of your own.

    python train.py --config=configs/nuclei.py --config.data.dir=DIR

Outlines are learned as background, which leaves a gap between objects that touch.
Every connected component of the foreground is an instance, dilated by the width of the
outline. Coordinates repeat, since an object must differ from its neighbors only; the
map has stride 1; many pixels are sampled, so that every object has some; images have no
preferred orientation.

Measured by us, beside a watershed: docs/reproduction.md.
"""

import ml_collections

from sphemb.configs import folder


def get_config() -> ml_collections.ConfigDict:
    """The settings that differ from ``configs/folder.py``."""
    config = folder.get_config()
    config.augmentation.update(
        size=(96, 96),
        scale=(0.6, 1.6),
        rotation=45.0,
        quarter_turns=True,
        brightness=0.3,
        contrast=0.3,
    )
    config.loader.batch_size = 16
    config.model.update(decoder_stride=1, decoder_features=32, head_features=32)
    config.model.coordinate_period = 96.0
    config.task.update(
        concentration=25.0,
        threshold=0.6,
        num_samples=1536,
        weight_power=0.6,  # at 1 outlines get too wide
        normalize="terms",  # by pairs, repulsion dominates
        min_size=6,  # before dilation
        max_components=400,
        erosion=2,  # separates nuclei that touch
        dilation=2,
        foreground_below=0.1,
        max_objects=400,
        budgets=(),
    )
    config.train.num_steps = 1200
    config.train.eval_every = 400
    config.evaluation.num_validation = 20
    return config
