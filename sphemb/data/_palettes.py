"""Palettes of mask files, which must agree where an index is a class."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping

from PIL import Image

from sphemb.data._findings import FileError
from sphemb.data._stored_images import UNREADABLE

Colour = tuple[int, ...]


class PaletteColours:
    """The colours that the classes have in the palettes of all files.

    Many programs write a palette of the colours that an image has, in any order: then
    the same index is another class in the next file.

    >>> colours = PaletteColours()
    >>> colours.add("a.png", {0: (0, 0, 0), 1: (128, 0, 0)})
    >>> colours.add("b.png", {1: (0, 128, 0)})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    sphemb.data._findings.FileError: mask b.png must have the palette of the others...
    """

    def __init__(self) -> None:
        """Begins without a color."""
        self._seen: dict[int, tuple[Colour, object]] = {}

    def add(self, file: object, colours: Mapping[int, Colour] | None) -> None:
        """Compares the colours of a file with those of the files before.

        Args:
            file: what to call it.
            colours: index -> colour of the indices that it has; None without palette.

        Raises:
            FileError: an index has another colour in another file.
        """
        for index, colour in (colours or {}).items():
            known, other = self._seen.setdefault(index, (colour, file))
            if colour != known:
                raise FileError(
                    f"mask {file} must have the palette of the others, but shows class "
                    f"{index} as {colour}, and {other} as {known}: save the numbers of "
                    "classes in grey, or with one palette",
                    kind="palette",
                )


def check_palettes(
    paths: Iterable[pathlib.Path],
    used: Callable[[pathlib.Path], Mapping[int, Colour] | None],
) -> None:
    """Compares the palettes of files of classes.

    Args:
        paths: the files. One that cannot be read is left to whoever reads it.
        used: gives the colours of the indices that a file has. It is asked where the
            palettes differ.

    Raises:
        FileError: an index that several files have is of different colours in them.
    """
    paths = list(paths)
    declared = PaletteColours()
    try:
        for path in paths:
            declared.add(path, _declared(path))
        return
    except FileError:
        seen = PaletteColours()
    for path in paths:
        try:
            colours = used(path)
        except FileError:
            continue
        seen.add(path, colours)


def _declared(path: pathlib.Path) -> Mapping[int, Colour] | None:
    """The palette in the header of a file, without its pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked by who reads it
            with Image.open(path) as image:
                flat = image.getpalette() if image.mode in ("P", "PA") else None
    except (*UNREADABLE, Image.DecompressionBombError):
        return None
    flat = flat or []
    colours = zip(*(flat[k::3] for k in range(3)), strict=False)
    return dict(enumerate(colours))
