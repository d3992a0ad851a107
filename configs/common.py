"""What every experiment has; the other configs hold only what differs.

Sections: ``data`` (a data set of ``sphemb.data.DATASETS`` and its settings),
``augmentation`` (one of ``sphemb.data.AUGMENTATIONS``, or no name for none),
``loader``, ``model`` (a class of ``sphemb.models``), ``task`` (a class of
``sphemb.tasks``), ``optimizer``, ``train``, ``evaluation``.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config() -> ml_collections.ConfigDict:
    """The settings that experiments share."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "data": {},
            "augmentation": {"name": placeholder(str)},
            "loader": {"batch_size": 16, "num_threads": 2, "skip_bad": False},
            "model": {},
            "task": {},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 2e-3,
                "power": 0.9,
                "warmup_steps": 50,
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "clip_norm": 1.0,
                "accumulate": 1,
                "backbone_rate": 1.0,
            },
            "train": {
                "num_steps": 1000,
                "log_every": 20,
                "eval_every": 0,
                "checkpoint_every": 200,
                "weights": placeholder(str),
                "init_from": placeholder(str),
            },
            "evaluation": {
                "batch_size": 8,
                "num_validation": 40,
                "num_test": 200,
                "size_multiple": 64,
            },
        }
    )
