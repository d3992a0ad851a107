"""What the settings of `Proposals` must be, and what they need of each other."""

from __future__ import annotations

from typing import Any

from sphemb._checks import (
    InputError,
    check_choice,
    check_count,
    check_number,
    check_shape,
)
from sphemb.tasks._settings import check_counts

_RANGES: dict[str, dict[str, Any]] = {
    "margin": {"at_least": 0, "at_most": 1},
    "concentration": {"above": 0},
    "threshold": {"above": -1, "below": 1},
    "negative_weight": {"at_least": 0},
    "weight_power": {"at_least": 0},
    "spatial_bandwidth": {"at_least": 0},
    "spatial_concentration": {"above": 0},
    "max_iou": {"at_least": 0, "at_most": 1},
    "sample_ratio": {"above": 0, "at_most": 1},
}


def check_proposals(task: Any) -> None:
    """Refuses settings that make no task.

    Args:
        task: with the attributes of `Proposals`.

    Raises:
        InputError: a setting is out of range, or lacks another that it needs.
    """
    where = "config.task"
    for name, bounds in _RANGES.items():
        check_number(f"{where}.{name}", getattr(task, name), **bounds)
    check_counts(
        task,
        num_steps=0,
        num_samples=2,
        predict_steps=1,
        predict_points=8,
        max_groups=1,
        min_size=1,
        max_components=0,
        erosion=0,
        dilation=0,
        max_objects=1,
    )
    check_choice(f"{where}.normalize", task.normalize, ("pixels", "pairs", "terms"))
    needy = {
        "foreground_below": task.foreground_below,
        "dilation": task.dilation or None,
    }
    for name, value in needy.items():
        if value is not None and not task.max_components:
            raise InputError(
                f"{where}.{name} {value} needs {where}.max_components, the number of "
                "components that a prediction can hold"
            )
    if task.spatial_bandwidth and task.foreground_below is None:
        raise InputError(
            f"{where}.spatial_bandwidth {task.spatial_bandwidth} needs "
            f"{where}.foreground_below, which selects the pixels that are grouped"
        )
    if task.foreground_below is not None:
        check_number(
            f"{where}.foreground_below", task.foreground_below, above=-1, below=1
        )
    for value in task.pooled_concentrations:
        check_number(f"{where}.pooled_concentrations", value, above=0)
    for value in task.budgets:
        check_count(f"{where}.budgets", value, at_least=1)
    if list(task.budgets) != sorted(set(task.budgets)):
        raise InputError(f"{where}.budgets must be rising numbers, got {task.budgets}")
    if task.step_weights is not None:
        check_shape(
            f"{where}.step_weights",
            task.step_weights,
            "T",
            dims={"T": task.num_steps + 1},
            beside=f"{where}.num_steps",
        )
