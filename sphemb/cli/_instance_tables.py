"""Classes and scores of the instances of a label image, from the table beside it."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb.training import read_json

Rows = dict[int, tuple[int, float]]


def read_table(
    path: pathlib.Path,
    name: str,
    values: np.ndarray,
    *,
    kinds: Mapping[str, int],
    scored: bool,
) -> Rows:
    """Reads the classes and scores of the instances of a label image.

    Args:
        path: of the label image, ``NAME.png`` or with a tail after the name; the table
            has the name of either, and ends in ``.csv`` or ``.json``.
        name: of the image.
        values: int [H, W], the label image.
        kinds: see `class_number`.
        scored: whether a column ``score`` is read beside ``label`` and ``class``.

    Returns:
        label -> class and score, 0 where none is read.

    Raises:
        InputError: a missing or unreadable table, or one without a label.
    """
    stems = dict.fromkeys((path.stem, name.rpartition("/")[2]))
    tables = [path.with_name(stem + end) for stem in stems for end in (".csv", ".json")]
    columns = ", ".join(("label", "class", *(("score",) * scored)))
    table = next((t for t in tables if t.is_file()), None)
    labels = {int(label) for label in np.unique(values[values > 0])}
    if table is None:
        if not labels:
            return {}
        raise InputError(
            f"{path} must have {columns} of its instances beside it in "
            f"{' or '.join(t.name for t in tables)}, got none"
        )
    rows: Rows = {}
    for row in _read_rows(table):
        try:
            label, kind = int(row["label"]), class_number(row["class"], kinds)
            score = float(row["score"]) if scored else 0.0
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{table} must have {columns} of every instance, with numbers or known "
                f"classes, but has not: {error}"
            ) from error
        if label in rows or not np.isfinite(score):
            raise InputError(
                f"{table} must have each label once, with a score that is a number, "
                f"but label {label} has not"
            )
        rows[label] = (kind, score)
    missing = labels - rows.keys()
    if missing:
        first = min(missing)
        hint = "" if scored else f": if that is void, give --void {first}"
        raise InputError(
            f"{table} must have every label of {path.name}, but has not {first}{hint}"
        )
    return rows


def class_number(value: Any, kinds: Mapping[str, int]) -> int:
    """The number of a class, by its number or name where ``kinds`` are known."""
    return kinds[str(value)] if kinds else int(value)


def vote_objects(values: np.ndarray, semantic: np.ndarray) -> Rows:
    """The commonest class of each object's pixels, with score 0; 0 where it has none.

    Args:
        values: int [H, W] objects; below 1 is none.
        semantic: int [H, W] classes; below 1 is none.
    """
    rows: Rows = {}
    for label in np.unique(values[values > 0]):
        seen, counts = np.unique(
            semantic[(values == label) & (semantic > 0)], return_counts=True
        )
        rows[int(label)] = (int(seen[np.argmax(counts)]) if len(seen) else 0, 0.0)
    return rows


def _read_rows(table: pathlib.Path) -> list[Any]:
    if table.suffix == ".json":
        rows = read_json(table)
        if not isinstance(rows, list):
            raise InputError(f"{table} must hold a list, an entry for each instance")
        return rows
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as CSV: {error}") from error
