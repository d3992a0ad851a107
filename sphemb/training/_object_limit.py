"""Whether scores can count the objects of the images that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError


def check_object_limit(experiment: Any, splits: Sequence[str]) -> None:
    """Refuses a limit of objects that the labels of a scored image exceed.

    Label maps are read alone where a data set can do so.

    Args:
        experiment: with ``task``, ``config``, ``source(split)`` and ``usable``.
        splits: that are scored.

    Raises:
        InputError: names the setting, the image and the largest number of an object.
    """
    limit = getattr(experiment.task, "object_limit", None)
    if limit is None:
        return
    for split in splits:
        source = experiment.source(split)
        number = experiment.config.evaluation[f"num_{split}"]
        indices = experiment.usable(split, number)
        most, fullest = max(
            ((_largest(source, index), index) for index in indices), default=(0, 0)
        )
        if most > limit:
            name = source[fullest].get("name", fullest)
            raise InputError(
                f"config.task.max_objects must be at least {most}, the largest number "
                f"of an instance in the {split} split of config.data.name "
                f"{experiment.config.data.name} (image {name}), got {limit}"
            )


def _largest(source: Any, index: int) -> int:
    """The largest number of an instance in an example; 0 where there is none."""
    if hasattr(source, "instances"):
        labels = source.instances(index)
    else:
        labels = source[index].get("instances", 0)
    return int(np.max(labels, initial=0))
