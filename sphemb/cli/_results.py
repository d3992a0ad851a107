"""What the scoring doors share: where results go, and how far they are."""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from sphemb._checks import InputError
from sphemb._files import written_whole


def check_results(
    out: pathlib.Path | None, names: Sequence[str], *, overwrite: bool
) -> None:
    """Makes sure that results can be written before anything is computed.

    Raises:
        InputError: one of the files is there already, or ``out`` is no folder.
    """
    if out is None:
        return
    for name in names:
        check_unwritten(out / name, overwrite=overwrite)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out must be a folder for results, got the file {out}")


def check_unwritten(path: pathlib.Path, *, overwrite: bool) -> None:
    """Refuses to replace a result unasked.

    Raises:
        InputError: it is there.
    """
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --overwrite or another --out")


def make_folder(out: pathlib.Path) -> None:
    """Makes the folder of the results.

    Raises:
        InputError: it cannot be made.
    """
    with writing_results():
        out.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing_results() -> Iterator[None]:
    """Makes one line of what a disk refuses.

    Raises:
        InputError: a result cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"--out must be a folder for results: {error}") from error


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
