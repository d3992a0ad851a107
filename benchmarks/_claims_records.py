"""Effects with intervals, their verdict, and the table and figure of their records."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import stats

Record = Mapping[str, Any]  # of a claim, as benchmarks/claims.json holds it
_RESAMPLES = 10_000
_COLORS = {"reproduced": "#1b7f4b", "refuted": "#b3261e"}
_SPAN = 50.0  # the largest ratio of effects on a linear axis


class Effect(NamedTuple):
    """A number with its 95 % interval.

    Attributes:
        name: what was measured.
        value: of it.
        low: of the interval.
        high: of the interval.
        claimed: the least and the largest value that the claim allows, None for no
            bound; None for an effect that the claim says nothing about.
    """

    name: str
    value: float
    low: float
    high: float
    claimed: tuple[float | None, float | None] | None = None

    @property
    def verdict(self) -> str:
        """By the interval alone; an effect without a claim has none."""
        if self.claimed is None:
            return ""
        least, most = self.claimed
        least = -math.inf if least is None else least
        most = math.inf if most is None else most
        if least < self.low and self.high < most:
            return "reproduced"
        if self.high <= least or most <= self.low:
            return "refuted"
        if self.low <= 0 <= self.high and not least < 0 < most:
            return "no effect seen here"
        return "undecided"


def joint_verdict(effects: Iterable[Effect]) -> str:
    """That of all effects that the claim is about, of which there is one at least.

    If they differ it is ``"in part"`` if one is reproduced, else ``"refuted"`` if one
    is, else ``"undecided"``.
    """
    verdicts = {effect.verdict for effect in effects} - {""}
    if len(verdicts) == 1:
        return verdicts.pop()
    if not verdicts:
        raise ValueError("effects must have a claim, one at least")
    if "reproduced" in verdicts:
        return "in part"
    return "refuted" if "refuted" in verdicts else "undecided"


def over_seeds(
    name: str,
    values: Sequence[float],
    *,
    scale: Callable[[Any], Any] = float,
    **claimed: Any,
) -> Effect:
    """The mean of independent values with Student's t interval, then scaled."""
    mean, error = np.mean(values), stats.sem(values)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    value, low, high = (float(scale(v)) for v in (mean, mean - half, mean + half))
    return Effect(name, value, low, high, **claimed)


def over_images(
    name: str, parts: ArrayLike, wholes: ArrayLike, **claimed: Any
) -> Effect:
    """A sum over images divided by another one, with a percentile bootstrap of images.

    Args:
        name: of the effect.
        parts: [B] of each image.
        wholes: [B] what they are shares of, such as the number of objects.
        **claimed: see `Effect`.
    """
    pairs = np.column_stack([parts, wholes]).astype(float)
    draws = np.random.default_rng(0).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    sums = pairs[draws].sum(axis=1)
    low, high = np.nanpercentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    part, whole = pairs.sum(axis=0)
    return Effect(name, float(part / whole), float(low), float(high), **claimed)


def read_effects(record: Record) -> list[Effect]:
    """The effects of a record."""
    return [Effect(**effect) for effect in record["effects"]]


def number(value: float) -> str:
    """Three decimals without a leading zero, or three digits of larger numbers.

    >>> number(-0.0314), number(1.2), number(234.6)
    ('-.031', '1.200', '235')
    """
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _interval(effect: Effect) -> str:
    return f"{number(effect.value)} [{number(effect.low)}, {number(effect.high)}]"


def to_table(records: Iterable[Record]) -> str:
    """The records as Markdown, a row for each claim."""
    heads = ["claim", "source", "test", "repeats, interval", "effect [95 % interval]"]
    heads += ["verdict", "command"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for record in records:
        effects = "<br>".join(f"{e.name}: {_interval(e)}" for e in read_effects(record))
        cells = [record[k] for k in ("claim", "source", "design", "repeats")]
        cells += [effects, f"**{record['verdict']}**", f"`{record['command']}`"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_effects(records: Sequence[Record]) -> Figure:
    """Draws every effect with its interval, a chart for each claim.

    The claimed range is shaded.
    """
    counts = [len(record["effects"]) for record in records]
    size = 8.4, 0.25 * sum(counts) + 0.8 * len(counts)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(counts), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, record in zip(grid, records, strict=True):
        effects = read_effects(record)
        for row, effect in enumerate(effects):
            color = _COLORS.get(effect.verdict, "0.35")
            axes.plot([effect.low, effect.high], [row, row], color=color, linewidth=2.2)
            axes.plot(effect.value, row, "o", color=color, markersize=4.5)
            beside = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(1.01, row, _interval(effect), fontsize=8, **beside)
        ends = [end for effect in effects for end in (effect.low, effect.high)]
        if min(ends) > 0 and max(ends) > _SPAN * min(ends):
            axes.set_xscale("log")
        else:
            axes.locator_params(axis="x", nbins=7)
        axes.margins(x=0.06)
        left, right = axes.get_xlim()
        for row, effect in enumerate(effects):
            if effect.claimed:
                ends = zip(effect.claimed, (left, right), strict=True)
                low, high = (end if bound is None else bound for bound, end in ends)
                axes.fill_betweenx([row - 0.4, row + 0.4], low, high, color="0.92")
        axes.set(xlim=(left, right), ylim=(len(effects) - 0.4, -0.6))
        axes.set_yticks(range(len(effects)), [effect.name for effect in effects])
        title = textwrap.fill(f"{record['claim']}: {record['verdict']}", 70)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel(record["unit"], fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
