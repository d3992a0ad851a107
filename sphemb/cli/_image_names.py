"""Which image a file, a line or a result is about: names are compared by path.

A name is a path without the ending, such as ``cam1/000``.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sphemb._checks import InputError
from sphemb.cli._names import spelled

_TWO = "keep results in the sub-folders that the images have"


def result_names(images: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Names the results of images.

    Args:
        images: the image files.

    Returns:
        image -> its stem; where two images share a stem, all have their path below the
        folder that they have in common.

    Raises:
        InputError: two files of one folder differ in their endings alone.

    >>> a, b = pathlib.Path("x/cam1/0.png"), pathlib.Path("x/cam2/0.png")
    >>> list(result_names([a]).values()), list(result_names([a, b]).values())
    (['0'], ['cam1/0', 'cam2/0'])
    """
    names = {image: image.stem for image in images}
    if len(set(names.values())) < len(names):
        whole = {image: pathlib.Path(os.path.abspath(image)) for image in images}
        common = os.path.commonpath([path.parent for path in whole.values()])
        names = {
            image: path.relative_to(common).with_name(image.stem).as_posix()
            for image, path in whole.items()
        }
    name, number = Counter(names.values()).most_common(1)[0]
    if number > 1:
        raise InputError(
            f"images must have different names, but several are called {name}: "
            "predict them into different folders"
        )
    return names


class _Known(NamedTuple):
    parts: tuple[str, ...]
    ending: str


class ImageNames:
    """The names of the images of a truth, of which others are looked up.

    A name fits an image if the path of one ends with that of the other: ``000`` and
    ``data/cam1/000`` both fit ``cam1/000``, and ``cam2/000`` does not. Of several the
    one with the longest path in common is taken.

    Args:
        files: the image files, in the order of their places.
        whose: the truth, for messages.

    Attributes:
        files: as given.

    >>> names = ImageNames(["cam1/000.png", "cam2/000.png"], "truth.json")
    >>> names.find("data/cam2/000"), names.find("001")
    (1, None)
    """

    def __init__(self, files: Iterable[str], whose: object) -> None:
        """Sorts the names; see the class."""
        self.files = tuple(files)
        self._known = [_Known(*_parts(file)) for file in self.files]
        self._whose = whose
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for place, known in enumerate(self._known):
            self._by_stem[known.parts[-1]].append(place)

    def find(self, name: str, *, file: object = None, ending: str = "") -> int | None:
        """Finds the place of the image that a name fits.

        Args:
            name: a path without the ending.
            file: what is called so, for messages; the name by default.
            ending: of the image file, where it is known: it decides between images that
                differ in their endings alone.

        Returns:
            The place, or None.

        Raises:
            InputError: the name fits several images.
        """
        parts = _parts(f"{name}.")[0]
        fits = {
            place: (common, self._known[place].parts == parts)
            for place in self._by_stem.get(parts[-1], ())
            if (common := _common(parts, self._known[place].parts))
        }
        best = [p for p, fit in fits.items() if fit == max(fits.values())]
        if ending:
            same = [p for p in best if self._known[p].ending == ending.lower()]
            best = same or best
        if len(best) > 1:
            one, other = (self.files[place] for place in best[:2])
            raise InputError(
                f"{file or name} must be of one image of {self._whose}, but may be of "
                f"{one} or {other}: {_TWO}"
            )
        return best[0] if best else None

    def near(self, name: str) -> str:
        """Says which image has the stem of a name that fits none; else nothing."""
        places = self._by_stem.get(_parts(f"{name}.")[0][-1])
        return f": {self.files[places[0]]} is in another folder" if places else ""

    def fits(self, file: str, place: int) -> bool:
        """Whether a file, by its name, may be the image at a place."""
        return _common(_parts(file)[0], self._known[place].parts) > 0

    def find_number(self, number: int) -> int | None:
        """Finds the place of the image whose name, without folders, is a number.

        Raises:
            InputError: there are several.
        """
        stems = [stem for stem in self._by_stem if stem.isdecimal()]
        best = [p for s in stems if int(s) == number for p in self._by_stem[s]]
        if len(best) > 1:
            one, other = (self.files[place] for place in best[:2])
            raise InputError(
                f"image_id {number} must be one image of {self._whose}, but may be "
                f"{one} or {other}"
            )
        return best[0] if best else None

    def match(
        self, found: Mapping[str, pathlib.Path], *, endings: bool = False
    ) -> dict[str, int | None]:
        """Finds the places of the images of several files.

        Args:
            found: name -> file.
            endings: the files are the images, so that their endings count.

        Returns:
            name -> place, or None.

        Raises:
            InputError: a name fits several images, or two fit one image.
        """
        places: dict[str, int | None] = {}
        taken: dict[int, pathlib.Path] = {}
        for name, file in found.items():
            ending = file.suffix if endings else ""
            place = self.find(name, file=file, ending=ending)
            places[name] = place
            if place is not None and taken.setdefault(place, file) != file:
                raise InputError(
                    f"{taken[place]} and {file} must be of different images, but "
                    f"{self._whose} has {self.files[place]} alone"
                )
        return places


def _parts(file: str) -> tuple[tuple[str, ...], str]:
    """The folders and the stem of a file, and its ending."""
    with contextlib.suppress(UnicodeEncodeError):  # JSON may hold half a character
        file = spelled(file)
    name, dot, ending = file.rpartition("/")[2].rpartition(".")
    stem, ending = (name, dot + ending.lower()) if name else (ending, "")
    return (*pathlib.PurePosixPath(file).parts[:-1], stem), ending


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts agree from the end on, if that is all of one of them; else 0."""
    number = min(len(one), len(other))
    return number if one[-number:] == other[-number:] else 0
