"""Time, taken so that the variants can be compared.

All of a case's programs are compiled and warm before the first shot. A round takes one
shot of each, and every round begins with another; what disturbs the machine for longer
than a shot disturbs all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from benchmarks._peers import Program

_PAUSE = 0.1  # lets the idle threads of the library that went before stop spinning
_SHOT = 0.2
_QUICK = 2.0
_MOST_CALLS = 50
_ROUNDS = (3, 9)


class Times(NamedTuple):
    """Seconds of a call, [rounds] for every program.

    Attributes:
        seconds: of a call, round by round.
        warm: False where the warm-up round alone took longer than the budget, so that
            it was kept as the only one.
    """

    seconds: dict[str, list[float]]
    warm: bool


def _shoot(program: Program, calls: int, *, warm: bool = False) -> float:
    """Seconds of a call, the mean of several in a row."""
    time.sleep(_PAUSE)
    if warm:
        # Threads that slept through the pause take their time over the first call.
        program.call()
    start = time.perf_counter()
    for _ in range(calls):
        program.call()
    return (time.perf_counter() - start) / calls


def measure_times(programs: Mapping[str, Program], *, budget: float) -> Times:
    """Times programs in rotating rounds.

    Args:
        programs: what to time.
        budget: seconds for the rounds, three of which are made if one fits.

    Returns:
        The times.
    """
    names = list(programs)
    first = {name: _shoot(programs[name], 1) for name in names}
    calls = {name: min(_MOST_CALLS, math.ceil(_SHOT / first[name])) for name in names}
    quick = {name: first[name] < _QUICK for name in names}
    one_round = sum((calls[n] + quick[n]) * first[n] + _PAUSE for n in names)
    if one_round > budget:
        return Times({name: [first[name]] for name in names}, warm=False)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    least, most = _ROUNDS
    for turn in range(min(most, max(least, int(budget / one_round)))):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            shot = _shoot(programs[name], calls[name], warm=quick[name])
            seconds[name].append(shot)
    return Times(seconds, warm=True)


def median_ratio(seconds: list[float], baseline: list[float]) -> float:
    """The median over the rounds of how many times as long one took as the other."""
    return float(np.median(np.divide(seconds, baseline)))
