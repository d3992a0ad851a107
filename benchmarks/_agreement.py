"""How far each float32 result is from float64, and labels from the exact ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks._cases import GROUPING, GROUPS, OUTPUTS, Case, Inputs
from benchmarks._peers import Program
from benchmarks._peers_jax import MOST_EXACT, exact_labels, reference

MOST_POINTS = 4096  # float64 is slow on long rows; pairs are left out from here on


def relative_errors(
    case: Case, inputs: Inputs, programs: Mapping[str, Program]
) -> dict[str, dict[str, float]]:
    """Norm of the difference over norm of the truth, for every program and output."""
    truth = reference(case, inputs)
    errors: dict[str, dict[str, float]] = {}
    for name, program in programs.items():
        outputs = [program.read(output) for output in program.call()]
        errors[name] = {
            label: float(
                np.linalg.norm(np.float64(output) - true) / np.linalg.norm(true)
            )
            for label, output, true in zip(
                OUTPUTS[case.kind], outputs, truth, strict=True
            )
        }
    return errors


def label_errors(
    case: Case, inputs: Inputs, programs: Mapping[str, Program]
) -> dict[str, dict[str, float]]:
    """The share of points with another label than the exact mean shift gives them.

    Beyond what can be grouped exactly, the drawn clusters take the place of the exact
    groups; a smooth map has no such groups at its borders.
    """
    if case.num_points <= MOST_EXACT:
        truth = exact_labels(case, inputs)
    elif case.points == GROUPS:
        truth = inputs.labels
    else:
        return {}
    return {
        name: {label: _mismatch(program.read(program.call()[0]), truth)}
        for name, program in programs.items()
        for label in OUTPUTS[case.kind]
    }


def _mismatch(found: np.ndarray, true: np.ndarray) -> float:
    """Share of points outside the best one-to-one matching of labels."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((found.max() + 2, true.max() + 2), np.int64)
    np.add.at(table, (found + 1, true + 1), 1)  # void is a label, too
    return 1.0 - float(table[linear_sum_assignment(-table)].sum() / len(found))


def measure_errors(
    case: Case, inputs: Inputs, programs: Mapping[str, Program]
) -> dict[str, dict[str, float]]:
    """The errors of a case; none where the truth would take too long."""
    if case.kind == GROUPING:
        return label_errors(case, inputs, programs)
    if case.num_points > MOST_POINTS:
        return {}
    return relative_errors(case, inputs, programs)
