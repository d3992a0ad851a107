"""Nuclei, or other small objects in large numbers: a folder config set for those.

    python train.py --config=configs/nuclei.py --config.data.dir=DIR

Objects of one kind need differ from their neighbours only. Their outlines are learned
as background, so that those which touch have a gap between them; every connected part
of what is no background is an instance, and grows back by the outline. Coordinates
repeat, every pixel has an embedding of its own, many are drawn to meet every object,
and images have no upside.

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
        weight_power=0.6,  # at 1 outlines grow
        normalize="terms",  # or the push of many instances drowns the pull of one
        min_size=6,  # before it grows
        max_parts=400,
        outline=2,  # parts nuclei that touch
        grow=2,
        foreground_below=0.1,
        max_objects=400,
        budgets=(),
    )
    config.train.num_steps = 1200
    config.train.eval_every = 400
    config.evaluation.num_validation = 20
    return config
