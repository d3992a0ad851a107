"""The command ``sphemb``: a verb for each thing to do."""

from __future__ import annotations

import dataclasses
import functools
import io
import operator
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

from sphemb import __version__
from sphemb.cli._advise import Advise
from sphemb.cli._flags import (
    OptionalPath,
    OptionalText,
    one_line_errors,
    parse_flags,
    pipe_may_close,
    split_overrides,
)
from sphemb.cli._predict import run_prediction
from sphemb.cli._prediction_settings import PredictionSettings
from sphemb.cli._prepare import CheckData, ImportWeights, Info
from sphemb.cli._runs import Evaluate, Export, Train
from sphemb.cli._score import Score


@dataclasses.dataclass(frozen=True)
class Predict:
    """Group or classify the pixels of images, or find boundaries, as trained.

    See docs/prediction.md.

    Attributes:
        images: image files, folders or globs.
        workdir: the folder of a run.
        out: the folder for the results.
        overwrite: replace results that exist.
        limit: images at most; 0 for all.
        dry_run: print what would be done, write nothing.
        min_size: pixels that an instance needs.
        tile: side of the tiles of larger images.
        halo: overlap of tiles on each side, in pixels.
        embeddings: keep the embedding of every pixel.
        page: of images with several pages, from 0 on, or max (default: the run's).
        annotations: COCO's file of these images, for the ids in results.json.
    """

    images: tyro.conf.Positional[tuple[str, ...]]
    workdir: pathlib.Path
    out: pathlib.Path
    overwrite: bool = False
    limit: int = 0
    dry_run: bool = False
    min_size: int = 1
    tile: int = 1024
    halo: int = 128
    embeddings: bool = False
    page: OptionalText = None
    annotations: OptionalPath = None

    def run(self) -> None:
        """Writes the results."""
        run_prediction(
            self.workdir,
            self.images,
            self.out,
            overwrite=self.overwrite,
            limit=self.limit,
            dry_run=self.dry_run,
            annotations=self.annotations,
            settings=PredictionSettings(
                tile=self.tile,
                halo=self.halo,
                min_size=self.min_size,
                embeddings=self.embeddings,
                page=self.page,
            ),
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
    "info": Info,
}


def read_flags(arguments: Sequence[str]) -> Any:
    """Reads a verb and its flags; an error is one line and exit status 2."""
    if list(arguments) == ["--version"]:
        print(f"sphemb {__version__}")
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
        print(
            f"error: unknown argument {overrides[0]!r}: see {prog} -h", file=sys.stderr
        )
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
