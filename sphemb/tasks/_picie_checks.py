"""What the settings of `Picie` must be."""

from __future__ import annotations

from typing import Any

from sphemb._checks import InputError, check_choice, check_count, check_number
from sphemb.tasks._settings import check_counts

_CHOICES = {
    "views": (1, 2),
    "metric": ("euclidean", "spherical"),
    "balance": ("none", "proportional", "inverse"),
    "predict_view": (0, 1),
    "scored_by": ("semantic", "foreground"),
    "matching": ("one_to_one", "majority"),
}


def check_picie(task: Any) -> None:
    """Refuses settings that make no task.

    Args:
        task: with the attributes of `Picie`.

    Raises:
        InputError: a setting is out of range, or does not go with another.
    """
    where = "config.task"
    check_counts(
        task,
        num_clusters=2,
        num_overclusters=0,
        embedding_dim=1,
        cluster_pixels=1,
        start_images=1,
        start_steps=0,
        scale_multiple=1,
        first_class=0,
        num_classes=1,
        num_things=0,
    )
    for name in ("update_every", "cluster_images"):
        if getattr(task, name) is not None:
            check_count(f"{where}.{name}", getattr(task, name), at_least=1)
    if task.num_overclusters and task.num_overclusters <= task.num_clusters:
        raise InputError(
            f"{where}.num_overclusters must be above num_clusters "
            f"{task.num_clusters}, or 0 for none, got {task.num_overclusters}"
        )
    for name, choices in _CHOICES.items():
        check_choice(f"{where}.{name}", getattr(task, name), choices)
    check_number(f"{where}.predict_scale", task.predict_scale, above=0)
    check_number(f"{where}.temperature", task.temperature, above=0)
