"""How far each float32 result is from float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks._cases import OUTPUTS, Case, Inputs
from benchmarks._peers import Program
from benchmarks._peers_jax import reference

MOST_POINTS = 1024  # float64 is slow on long rows, and the error hardly depends on N


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
