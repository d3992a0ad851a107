"""Flags: their types, and how they are read."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

import sphemb.configs
from sphemb.cli._output import one_line

_SHARED = "common"  # the basis of the other configurations, not an experiment
_MARKERS = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.PositionalMetavarFromFieldName,
)
_UNSAID = ("For full helptext", "Argument helptext", "Got errors", "Arguments are")
_OVERRIDE = re.compile(r"--(no)?config\.")
_WIDE = "100000"  # columns: no line of an error is wrapped

# Flags without a default show none in the help, in place of "None".
optional = functools.partial(tyro.conf.arg, help_behavior_hint="")
OptionalPath = Annotated[pathlib.Path | None, optional(metavar="PATH")]
OptionalInt = Annotated[int | None, optional(metavar="INT")]
OptionalFloat = Annotated[float | None, optional(metavar="FLOAT")]
OptionalText = Annotated[str | None, optional(metavar="TEXT")]


def parse_flags(kind: Any, prog: str, arguments: Sequence[str]) -> Any:
    """Reads flags of a command ``prog`` by tyro; an error is one line, and status 2.

    ``kind`` is a dataclass, or a union of annotated ones, one for each verb.
    """
    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(arguments):
        os.environ["COLUMNS"] = _WIDE
    try:
        with contextlib.redirect_stderr(text):
            return tyro.cli(kind, prog=prog, args=arguments, config=_MARKERS)
    except SystemExit as stop:
        if not stop.code:  # help was asked for
            raise
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before
    print(f"error: {one_line(_plain(text.getvalue()))}: see {prog} -h", file=sys.stderr)
    raise SystemExit(2)


def _plain(box: str) -> str:
    """The text in a box that tyro draws, without frame, title and notes on help."""
    rows = [row.strip("│╰╯─ ") for row in box.splitlines()[1:]]
    rows = ["" if set(row) <= {"-"} else row for row in rows]
    sections = (" ".join(part.split()) for part in "\n".join(rows).split("\n\n"))
    kept = (s.rstrip(".") for s in sections if s and not s.startswith(_UNSAID))
    return "; ".join(kept)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits words into flags of a verb and changes of a configuration.

    >>> split_overrides(["DIR", "--config.seed", "3", "--images=2"])
    (['DIR', '--images=2'], ['--config.seed', '3'])
    """
    own, overrides, value_follows = [], [], False
    for word in arguments:
        override = bool(_OVERRIDE.match(word))
        value = value_follows and not word.startswith("--")
        (overrides if override or value else own).append(word)
        value_follows = override and "=" not in word
    return own, overrides


def shipped_configs() -> dict[str, pathlib.Path]:
    """The experiments of the package: name -> file."""
    (folder,) = sphemb.configs.__path__
    files = {path.stem: path for path in sorted(pathlib.Path(folder).glob("[!_]*.py"))}
    del files[_SHARED]
    return files
