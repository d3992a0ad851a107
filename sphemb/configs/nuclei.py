"""Nuclei of the 2018 Data Science Bowl (BBBC038), by the recipe for own folders.

    python train.py --config=configs/nuclei.py --config.data.dir=DIR
    python train.py --config=configs/nuclei.py:quick --config.data.dir=DIR

Measured by us, beside StarDist, a U-Net and a watershed: docs/reproduction.md.
"""

import ml_collections

from sphemb.configs import common, folder

VARIANTS = ("full", "quick")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    """``configs/folder.py``, with all images of the validation split."""
    common.check_variant("nuclei", variant, VARIANTS)
    config = folder.get_config(variant)
    config.evaluation.num_validation = 81
    return config
