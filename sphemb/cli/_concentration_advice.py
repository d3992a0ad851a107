r"""Which concentrations go with what a run has learned."""

from __future__ import annotations

import math

from sphemb.cli._advice import Advice
from sphemb.cli._similarities import Similarities

SETTING = "config.task.concentration"
_PULL = 0.01  # of what is not the own instance, beside that of the own one
_REACH = 1.0  # of an instance on a point at its edge, beside that of the point itself


def concentration_bounds(
    *,
    within: float,
    within_low: float,
    between: float,
    instance: float,
    largest: float,
) -> tuple[float, float]:
    r"""Between which concentrations a mean shift parts what a network has learned.

    The kernel of two points at a calibrated similarity s is
    :math:`e^{2\kappa(s - 1)}` of that of one point with itself. So a group of R times
    as many points pulls

    .. math:: R\, e^{-2 \kappa (s_{within} - s_{between})}

    times as much as the own instance: below the lower bound that is more than a
    hundredth. And an instance of n points pulls a point at its edge
    :math:`n\, e^{-2\kappa(1 - s_{low})}` times as much as that point holds itself
    back: above the upper bound that is less than once, and instances may fall to
    pieces.

    Args:
        within: a typical similarity within an instance.
        within_low: that of points at the edge of it.
        between: that of the most similar pairs of different instances.
        instance: n, points of a typical instance.
        largest: points of the largest group; R is their ratio.

    Returns:
        The two bounds. The lower one is infinite where instances are as similar to each
        other as within.

    >>> bounds = concentration_bounds(
    ...     within=0.98, within_low=0.95, between=0.5, instance=300, largest=3000
    ... )
    >>> [round(bound, 1) for bound in bounds]
    [7.2, 57.0]
    """
    apart = within - between
    ratio = max(1.0, largest / max(instance, 1.0))
    low = math.log(ratio / _PULL) / (2.0 * apart) if apart > 0 else math.inf
    reached = math.log(max(instance, 2.0) / _REACH)
    return low, reached / (2.0 * max(1.0 - within_low, 1e-6))


def advise_on_run(
    found: Similarities, now: float
) -> tuple[Advice, tuple[float, float]]:
    """The concentration that goes with a run's embeddings.

    Args:
        found: of the run.
        now: its concentration, which stays if it fits.

    Returns:
        The advice, and the `concentration_bounds` that it comes from.
    """
    low, high = bounds = concentration_bounds(
        within=found.within,
        within_low=found.within_low,
        between=found.between,
        instance=found.instance,
        largest=found.largest,
    )
    reason = (
        f"above {low:.0f} other groups pull a pixel less than a hundredth as much as "
        f"its own, and below {high:.0f} an instance reaches its own edge"
    )
    value = now
    if math.isinf(low):
        reason = (
            "points are no more similar within instances than between them, so that "
            "none parts them: train longer, or on a finer map, first"
        )
    elif low > high:
        reason += ", so that none does both: train longer, or on a finer map, first"
    elif not low <= now <= high:
        value = round(math.sqrt(low * high), 1)
        reason += f", which {now:g} is not between"
    return Advice(SETTING, value, reason), bounds
