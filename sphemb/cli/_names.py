"""Names of images, lines of text and results: what the verbs share.

The name of an image is its path without the ending, such as ``cam1/000``.
"""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from sphemb._checks import InputError
from sphemb._files import written_whole


def spelled(name: str | os.PathLike[str]) -> str:
    r"""A file name in UTF-8, with its other bytes escaped.

    >>> spelled(os.fsdecode(b"caf\xe9.png"))
    'caf\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def result_names(images: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Names the results of images: by stem, or by path if two images share a stem.

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
        for image, path in whole.items():
            name = path.relative_to(common).with_name(image.stem)
            names[image] = name.as_posix()
    name, number = Counter(names.values()).most_common(1)[0]
    if number > 1:
        raise InputError(
            f"images must have different names, but several are called {name}: "
            "predict them into different folders"
        )
    return names


class ImageNames:
    """The names of the images of a ground truth, among which others are looked up.

    A name fits an image if the path of one ends with that of the other: ``000`` and
    ``data/cam1/000`` both fit ``cam1/000``, and ``cam2/000`` does not. Of several the
    one with the longest common path is taken. A place is an index of ``files``.

    Args:
        files: the image files.
        whose: the ground truth, for messages.

    >>> names = ImageNames(["cam1/000.png", "cam2/000.png"], "truth.json")
    >>> names.find("data/cam2/000"), names.find("001")
    (1, None)
    """

    def __init__(self, files: Iterable[str], whose: object) -> None:
        self.files = tuple(files)
        self._known = [_parts(file) for file in self.files]
        self._whose = whose
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for place, (parts, _) in enumerate(self._known):
            self._by_stem[parts[-1]].append(place)

    def find(self, name: str, *, file: object = None, ending: str = "") -> int | None:
        """Finds the place of the image that a name fits, or None."""
        parts = _parts(f"{name}.")[0]
        fits = {
            place: (common, self._known[place][0] == parts)
            for place in self._by_stem.get(parts[-1], ())
            if (common := _common(parts, self._known[place][0]))
        }
        best = [p for p, fit in fits.items() if fit == max(fits.values())]
        same = [p for p in best if ending and self._known[p][1] == ending.lower()]
        hint = ": keep results in the sub-folders that the images have"
        return self._one(same or best, f"{file or name} must be of", "be of ", hint)

    def _one(
        self, places: Sequence[int], what: str, be: str, hint: str = ""
    ) -> int | None:
        if len(places) > 1:
            one, other = (self.files[place] for place in places[:2])
            raise InputError(
                f"{what} one image of {self._whose}, but may {be}{one} or {other}{hint}"
            )
        return places[0] if places else None

    def near(self, name: str) -> str:
        """Names the image in another folder with the stem of a name; or nothing."""
        places = self._by_stem.get(_parts(f"{name}.")[0][-1])
        return f": {self.files[places[0]]} is in another folder" if places else ""

    def fits(self, file: str, place: int) -> bool:
        """Whether a file, by its name, may be the image at a place."""
        return _common(_parts(file)[0], self._known[place][0]) > 0

    def find_number(self, number: int) -> int | None:
        """Finds the place of the image whose stem is a number."""
        stems = [stem for stem in self._by_stem if stem.isdecimal()]
        found = [p for s in stems if int(s) == number for p in self._by_stem[s]]
        return self._one(found, f"image_id {number} must be", "be ")

    def match(
        self, found: Mapping[str, pathlib.Path], *, endings: bool = False
    ) -> dict[str, int | None]:
        """Finds the places of the images of several files, name -> place or None."""
        places: dict[str, int | None] = {}
        taken: dict[int, pathlib.Path] = {}
        for name, file in found.items():
            ending = file.suffix if endings else ""
            places[name] = place = self.find(name, file=file, ending=ending)
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


def check_results(
    out: pathlib.Path | None, names: Sequence[str], *, overwrite: bool
) -> None:
    """Refuses results that exist, and an ``out`` that is not a folder."""
    if out is None:
        return
    for name in names:
        check_unwritten(out / name, overwrite=overwrite)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out must be a folder for results, got the file {out}")


def check_unwritten(path: pathlib.Path, *, overwrite: bool) -> None:
    """Refuses to replace a result without ``overwrite``."""
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --overwrite or another --out")


def make_folder(out: pathlib.Path) -> None:
    """Makes the folder of the results."""
    with writing_results():
        out.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing_results(
    problem: str = "--out must be a folder for results",
) -> Iterator[None]:
    """Turns an `OSError`, such as a full disk, into one line that begins so."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{problem}: {error}") from error


def write_table(
    path: pathlib.Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Writes a CSV file, whole or not at all."""
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)


def progress(
    items: Iterable[Any], what: str, total: int | None = None, *, unit: str = "image"
) -> Iterable:
    """A progress bar over images or other units, on a terminal only."""
    shown = sys.stderr.isatty()
    return tqdm(items, what, total, unit=unit, leave=False, disable=not shown)
