"""What the checks of all tasks' settings share."""

from __future__ import annotations

from typing import Any

from sphemb._checks import check_count


def check_counts(task: Any, **least: int) -> None:
    """Checks settings of a task that are whole numbers.

    Args:
        task: the task.
        **least: what each of them must be at least.

    Raises:
        InputError: one is less, or no whole number.
    """
    for name, number in least.items():
        check_count(f"config.task.{name}", getattr(task, name), at_least=number)
