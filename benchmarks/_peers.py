"""Who takes part: what a peer offers, and which peers this environment has."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks._cases import GROUPS, LOSS, Case, Inputs, draw_inputs

OURS = "sphemb"
_MODULES = {
    "jax": "benchmarks._peers_jax",
    "torch": "benchmarks._peers_torch",
    "sklearn": "benchmarks._peers_sklearn",
}
_FLOAT = 4
_TINY = 64


class Program(NamedTuple):
    """A case, ready to run.

    Attributes:
        call: computes the case's outputs and returns when they are there.
        temp_bytes: temporary memory as the compiler counts it, where there is one.
        read: makes an output a NumPy array.
    """

    call: Callable[[], tuple[Any, ...]]
    temp_bytes: int | None = None
    read: Callable[[Any], np.ndarray] = np.asarray


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way to compute cases.

    Attributes:
        name: as the tables call it.
        about: one line for the reader.
        kinds: from a case's kind to the function that makes its program.
        matrices: how many N x N float32 arrays are alive at a case's peak, roughly.
        most_points: the largest N that it is asked for.
        any_points: False for dense forms, whose time in a mean shift does not depend
            on the points: they are asked for groups only.
        only_time: its result is another quantity, so that only its time is told.
    """

    name: str
    about: str
    kinds: Mapping[str, Callable[[Case, Inputs], Program]]
    matrices: Callable[[Case], int] = lambda case: 0
    most_points: int | None = None
    only_time: bool = False
    any_points: bool = True

    def serves(self, case: Case) -> bool:
        """Tells whether the peer takes part in a case."""
        fits = self.most_points is None or case.num_points <= self.most_points
        asked = self.any_points or case.points == GROUPS or case.kind == LOSS
        return fits and asked and case.kind in self.kinds

    def needs_bytes(self, case: Case) -> int:
        """Estimates the memory at the peak."""
        return self.matrices(case) * case.num_points**2 * _FLOAT

    def build(self, case: Case, inputs: Inputs) -> Program:
        """Compiles what is to be compiled, and places the inputs."""
        return self.kinds[case.kind](case, inputs)

    def prime(self, case: Case) -> None:
        """Runs a tiny case of the same kind, for what a library does only once."""
        few_steps = min(1, case.num_steps)
        tiny = dataclasses.replace(case, num_points=_TINY, num_steps=few_steps)
        self.build(tiny, draw_inputs(tiny)).call()


def peers_of(library: str) -> tuple[Peer, ...]:
    """The peers that a library provides; imports it."""
    return importlib.import_module(_MODULES[library]).PEERS


def find_libraries() -> tuple[list[str], list[str]]:
    """The libraries that are installed, and those that are not."""
    found, missing = [], []
    for library in _MODULES:
        installed = importlib.util.find_spec(library) is not None
        (found if installed else missing).append(library)
    return found, missing
