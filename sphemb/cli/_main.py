"""The command ``sphemb``: its verbs, and how one of them is read and run."""

from __future__ import annotations

import dataclasses
import functools
import io
import operator
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from tyro.conf import subcommand

import sphemb
from sphemb.cli._errors import one_line_errors
from sphemb.cli._flags import parse_flags, split_overrides
from sphemb.cli._output import pipe_may_close
from sphemb.cli._verbs import (
    Advise,
    CheckData,
    Evaluate,
    Export,
    ImportWeights,
    Info,
    Models,
    Predict,
    Score,
    Train,
)

VERBS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "import-weights": ImportWeights,
    "check-data": CheckData,
    "advise": Advise,
    "score": Score,
    "models": Models,
    "info": Info,
}


def read_flags(arguments: Sequence[str]) -> Any:
    """Reads a verb and its flags; an error is one line and exit status 2."""
    if list(arguments) == ["--version"]:
        print(f"sphemb {sphemb.__version__}")
        raise SystemExit(0)
    words, overrides = split_overrides(arguments)
    kind, prog = VERBS.get("".join(words[:1])), "sphemb"
    if kind is None:  # help on the verbs, or an error
        kinds = (Annotated[kind, subcommand(name)] for name, kind in VERBS.items())
        kind = functools.reduce(operator.or_, kinds)
    else:
        prog, words = f"sphemb {words[0]}", words[1:]
    verb = parse_flags(kind, prog, words)
    if not overrides:
        return verb
    if not hasattr(verb, "overrides"):
        line = f"error: unknown argument {overrides[0]!r}: see {prog} -h"
        print(line, file=sys.stderr)
        raise SystemExit(2)
    return dataclasses.replace(verb, overrides=tuple(overrides))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb; an error ends with one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be any bytes
            stream.reconfigure(errors="backslashreplace")
    with pipe_may_close():  # help is output, too
        verb = read_flags(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors(interrupted=getattr(verb, "interrupted", "stopped")):
        status = verb.run()
        if isinstance(verb, CheckData):
            raise SystemExit(status)
