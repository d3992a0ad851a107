"""What image files of a data set hold beyond what is read: pages, and unused bits."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb.data.files._findings import FileError, Finding
from sphemb.data.files._stored_images import (
    Reading,
    count_pages,
    read_header,
    read_values,
)

_USED = 0.5  # of what the bits can hold, at least: else bits are missing
_LEVELS = 32  # of the 256 that are shown, in which nearly all values lie


def image_files(source: Any) -> list[pathlib.Path]:
    """The image files of a source's examples; none where it has no files."""
    source = getattr(source, "source", source)  # of what skips unusable examples
    entries = getattr(source, "pairs", None) or getattr(source, "files", ())
    return [entry.image for entry in entries]


def with_measured_range(reading: Reading, files: Iterable[pathlib.Path]) -> Reading:
    """Replaces the intensity ``"range"`` by the lowest and the highest value of images.

    Args:
        reading: what is read; another intensity stays.
        files: the images; one that cannot be read is left out.

    Raises:
        InputError: the images differ in depth, have one value only, or cannot be read.
    """
    if reading.intensity != "range":
        return reading
    low, high, white, first = 0, 0, 0, None
    for file in files:
        try:
            values = read_values(file, Reading(page=reading.page))
        except FileError:
            continue  # the reader of the example reports it
        present = np.flatnonzero(values.counts())
        if first is None:
            first, white = file, values.white
            low, high = int(present[0]), int(present[-1])
        if values.white != white:
            raise InputError(
                "intensity 'range' needs images of one depth, but the values of "
                f"{first} go up to {white} and those of {file} up to {values.white}: "
                "take intensity 'percentile'"
            )
        low, high = min(low, int(present[0])), max(high, int(present[-1]))
    if first is None or low == high:
        raise InputError(
            "intensity 'range' needs training images with more than one value, got "
            f"{'none' if first is None else f'only {low}'}"
        )
    return Reading(reading.page, f"{low}..{high}/{white}")


class ImageValues:
    """Collects what is worth a warning about the files of a data set's images.

    Args:
        reading: what is read of them.
    """

    def __init__(self, reading: Reading) -> None:
        """Begins without files; see the class."""
        self._reading = reading
        self._paged: dict[str, list[tuple[pathlib.Path, int]]] = {}
        self._counts: dict[int, np.ndarray] = {}
        self._deep: dict[int, list[pathlib.Path]] = {}
        self._turned: dict[bool, list[pathlib.Path]] = {True: [], False: []}

    def add(
        self,
        file: pathlib.Path,
        *,
        drawn_on: tuple[int, int] | None = None,
        masked: bool = False,
    ) -> None:
        """Looks at an image; one that cannot be read is left out.

        Args:
            file: the image.
            drawn_on: (H, W) that its outlines are drawn on, if it has outlines.
            masked: whether it has a mask file.
        """
        try:
            header = read_header(file, self._reading)
            kept = header.orientation != 1 and header.stored == header.size
            if kept and (masked or drawn_on == header.stored):
                self._turned[masked].append(file)
            pages = count_pages(file)
            if pages > 1 and self._reading.page == 0:
                self._paged.setdefault(header.kind, []).append((file, pages))
            if header.bits > 8 and self._reading.intensity == "full":
                values = read_values(file, self._reading)
                white = values.white
                self._counts[white] = self._counts.get(white, 0) + values.counts()
                self._deep.setdefault(white, []).append(file)
        except FileError:
            return

    @property
    def findings(self) -> list[Finding]:
        """One warning for each kind of file, not for each file."""
        found = []
        for kind, paged in self._paged.items():
            numbers = sorted({pages for _, pages in paged})
            most = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else numbers[0]
            found.append(
                Finding(
                    "warning",
                    "pages",
                    f"{_images(paged)} ({kind}) of {most} pages, of which page 0 is "
                    f"read, the first is {paged[0][0]}: config.data.page picks "
                    "another, or max, the maximum of all",
                    tuple(str(file) for file, _ in paged),
                )
            )
        for masked, turned in self._turned.items():
            if not turned:
                continue
            labels = (
                "and the masks not, which have the size of both"
                if masked
                else "and the outlines turned too, since they have the size of the "
                "stored pixels"
            )
            wrong = (
                "masks were drawn on the stored pixels, turn them"
                if masked
                else "outlines were drawn on the upright image, save it upright"
            )
            found.append(
                Finding(
                    "warning",
                    "turned",
                    f"{_images(turned)} turned by a camera's orientation, {labels}, "
                    f"the first is {turned[0]}: where {wrong}",
                    tuple(map(str, turned)),
                )
            )
        for white, counts in self._counts.items():
            files = self._deep[white]
            told = unused_bits(counts)
            if told:
                found.append(
                    Finding(
                        "warning",
                        "unused bits",
                        f"{_images(files)} with {told}, the first is {files[0]}",
                        tuple(map(str, files)),
                    )
                )
        return found


def _images(files: Sequence[Any]) -> str:
    return f"{len(files)} image{'s' * (len(files) != 1)}"


def unused_bits(counts: np.ndarray) -> str:
    """What to do about values that take a small share of what their bits can hold.

    Args:
        counts: int [white + 1], how often each value occurs.

    Returns:
        A clause; empty where enough is used.
    """
    white = len(counts) - 1
    present = np.flatnonzero(counts)
    low, high = int(present[0]), int(present[-1])
    below = np.cumsum(counts)
    ends = np.searchsorted(below, below[-1] * np.array([0.01, 0.998]))
    levels = int(np.ptp(np.rint(ends * (255 / white)))) + 1
    if high - low < _USED * white:
        advice = "range"
    elif levels < _LEVELS:
        advice = "percentile"
    else:
        return ""
    return (
        f"values from {low} to {high}, {100 * (high - low) / white:.2g} % of the "
        f"{white} that their bits can hold, and 98.8 % of them in {levels} of 256 "
        f"levels of grey: config.data.intensity={advice} would use all"
    )
