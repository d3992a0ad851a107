"""Palettes of mask files, which must agree where an index is a class."""

from __future__ import annotations

import pathlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from PIL import Image

from sphemb.data.files._findings import FileError
from sphemb.data.files._stored_images import UNREADABLE

Colour = tuple[int, ...]


class PaletteColors:
    """The colours that the classes have in the palettes of all files.

    Many programs write a palette of the colours that an image has, in any order: then
    the same index is another class in the next file.

    >>> colours = PaletteColors()
    >>> colours.add("a.png", {0: (0, 0, 0), 1: (128, 0, 0)})
    >>> colours.add("b.png", {1: (0, 128, 0)})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    sphemb.data.files._findings.FileError: mask b.png must have the palette of...
    """

    def __init__(self) -> None:
        """Begins without a color."""
        self._colours: dict[int, tuple[Colour, object]] = {}
        self._indices: dict[Colour, tuple[int, object]] = {}

    def add(
        self,
        file: object,
        colours: Mapping[int, Colour] | None,
        used: Iterable[int] | None = None,
    ) -> None:
        """Compares the colours of a file with those of the files before.

        Args:
            file: what to call it.
            colours: index -> colour of its palette; None without palette.
            used: the indices that it has; all by default.

        Raises:
            FileError: an index that it has is of another colour in another file, or a
                colour that its palette has once is that of another index.
        """
        colours = colours or {}
        times = Counter(colours.values())
        for index in colours if used is None else used:
            if index not in colours:
                continue
            colour = colours[index]
            known, other = self._colours.setdefault(index, (colour, file))
            if colour != known:
                raise _differs(file, index, colour, f"and {other} as {known}")
            if times[colour] == 1:
                first, other = self._indices.setdefault(colour, (index, file))
                if first != index:
                    raise _differs(file, index, colour, f"which {other} has as {first}")


def _differs(file: object, index: int, colour: Colour, other: str) -> FileError:
    return FileError(
        f"mask {file} must have the palette of the others, but shows class {index} as "
        f"{colour}, {other}: save the numbers of classes in grey, or with one palette",
        kind="palette",
    )


def check_palettes(
    paths: Iterable[pathlib.Path],
    read: Callable[[pathlib.Path], tuple[Mapping[int, Colour] | None, Iterable[int]]],
) -> None:
    """Compares the palettes of files of classes.

    Args:
        paths: the files. One that cannot be read is left to whoever reads it.
        read: gives the palette of a file and the indices that it has. It is called
            where the palettes differ.

    Raises:
        FileError: see `PaletteColors.add`.
    """
    paths = list(paths)
    declared = PaletteColors()
    try:
        for path in paths:
            declared.add(path, _declared(path))
        return
    except (FileError, *UNREADABLE, Image.DecompressionBombError):
        seen = PaletteColors()
    for path in paths:
        try:
            found = read(path)
        except FileError:
            continue
        seen.add(path, *found)


def _declared(path: pathlib.Path) -> Mapping[int, Colour]:
    """The palette in the header of a file, without its pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size is checked by who reads it
        with Image.open(path) as image:
            flat = image.getpalette() if image.mode in ("P", "PA") else None
    flat = flat or []
    colours = zip(*(flat[k::3] for k in range(3)), strict=False)
    return dict(enumerate(colours))
