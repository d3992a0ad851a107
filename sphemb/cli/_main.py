"""The command ``sphemb``, and its verbs before a training: check-data, info, ..."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import io
import json
import operator
import pathlib
import platform
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand

import sphemb
from sphemb._checks import InputError, check_count
from sphemb._files import written_whole
from sphemb.cli._advise import Advise, limits_for
from sphemb.cli._flags import (
    FolderFlags,
    OptionalPath,
    OptionalText,
    one_line_errors,
    parse_flags,
    pipe_may_close,
    split_overrides,
)
from sphemb.cli._names import one_line, spelled
from sphemb.cli._predict import Predict
from sphemb.cli._runs import Evaluate, Export, Train
from sphemb.cli._score import Score
from sphemb.data import Finding, Report, check_data, tfds_data_dir
from sphemb.models import import_weights, list_weights, weights_dir
from sphemb.training import devices

_COLUMNS = {
    **{name: name for name in ("images", "usable", "instances")},
    "median": "median_instances",
    "most": "most_instances",
    "vanish": "vanishing",
}
_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "ml-collections", "numpy", "scipy"),
)


@dataclasses.dataclass(frozen=True)
class CheckData(FolderFlags):
    """Check every file of a folder of images and masks.

    Errors stop a training; the exit status is 1 then. Warnings deserve a look.

    Attributes:
        dir: the folder.
        stride: of the network's output.
        out: a JSON file for the whole report.
        limit: lines for each kind of finding; 0 for all.
    """

    dir: tyro.conf.Positional[pathlib.Path]
    stride: int = 8
    out: OptionalPath = None
    limit: int = 5

    def run(self) -> int:
        """Prints a table and the findings, and returns the exit status."""
        check_count("limit", self.limit)
        progress = _show_progress if sys.stderr.isatty() else None
        report = check_data(
            self.dir, stride=self.stride, progress=progress, **self.folder
        )
        if progress:
            print(end="\r\033[K", file=sys.stderr)
        if self.out is not None:
            content = json.dumps(_spelled(report.to_dict()), indent=1) + "\n"
            try:
                with written_whole(self.out) as unfinished:
                    unfinished.write_text(content)
            except OSError as error:
                raise InputError(
                    f"--out must be a file to write to: {error}"
                ) from error
        lines = [f"{one_line(self.dir)}: {report.layout}", "", *_table(report)]
        print("\n".join([*lines, *_findings(report, self.limit)]), flush=True)
        return 1 if report.errors else 0


def _spelled(value: Any) -> Any:
    """All text of a report in UTF-8; names of files may be any bytes."""
    if isinstance(value, dict):
        return {spelled(k): _spelled(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(v) for v in value]
    return spelled(value) if isinstance(value, str) else value


def _show_progress(split: str, done: int, number: int) -> None:
    if done % 20 == 0 or done == number:
        print(f"\r{split}: {done} of {number} ", end="", file=sys.stderr, flush=True)


def _table(report: Report) -> list[str]:
    totals = report.totals()
    rows: list[tuple[str, ...]] = [("split", *_COLUMNS, "masks", "sizes")]
    for split, total in totals.items():
        numbers = (f"{total[key]:g}" for key in _COLUMNS.values())
        ends = ("x".join(map(str, total[e] or ())) for e in ("smallest", "largest"))
        sizes = " to ".join(dict.fromkeys(ends)) or "-"
        rows.append((split, *numbers, ", ".join(total["masks"]) or "-", sizes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    most = max((total["most_instances"] for total in totals.values()), default=0)
    if most:
        limits = (f"config.task.{k} {v}" for k, v in limits_for(most).items())
        fullest = f"limits for the fullest image, of {most} instances"
        lines += ["", f"{fullest}: {', '.join(limits)}"]
    return lines


def _findings(report: Report, limit: int) -> list[str]:
    lines: list[str] = []
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in report.all_findings:
        kinds[finding.level, finding.kind].append(finding)
    for (level, kind), findings in kinds.items():
        lines += ["", f"{level}, {kind}: {len(findings)}"]
        shown = findings[: limit or None]
        lines += [f"  {one_line(finding.message)}" for finding in shown]
        if len(shown) < len(findings):
            lines.append(f"  and {len(findings) - len(shown)} more, see --limit=0")
    errors, warnings = len(report.errors), len(report.warnings)
    return [*lines, "", f"{errors} errors, {warnings} warnings"]


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Take pretrained weights from a PyTorch file.

    Attributes:
        source: a .pth, .pt or .safetensors file.
        backbone: the network in it, such as resnet50, see `sphemb.models.BACKBONES`.
        name: of the weights (default: the backbone's).
        overwrite: replace weights of this name.
    """

    source: tyro.conf.Positional[str]
    backbone: str
    name: OptionalText = None
    overwrite: bool = False

    def run(self) -> pathlib.Path:
        """Imports the weights, prints their name and returns their file."""
        path = import_weights(**vars(self))
        print(f"weights {path.stem!r} of {self.backbone} are in {path}", flush=True)
        return path


@dataclasses.dataclass(frozen=True)
class Info:
    """Print versions, devices and folders."""

    def run(self) -> dict[str, str]:
        """Prints a line for each subject; returns subject -> line."""
        folder = pathlib.Path(sphemb.__file__).parent
        sets = pathlib.Path(tfds_data_dir())
        prepared = ", ".join(sorted(p.name for p in sets.glob("*") if p.is_dir()))
        weights = ", ".join(
            name if name == backbone else f"{name} (of {backbone or 'no backbone'})"
            for name, backbone in list_weights().items()
        )
        system = platform.platform(terse=True)
        lines = {
            "sphemb": f"{sphemb.__version__}, in {folder}",
            "python": f"{platform.python_version()}, on {system}",
            "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
            "devices": devices(),
            "data sets": f"{prepared or 'none prepared'}, in {sets} (TFDS_DATA_DIR)",
            "weights": f"{weights or 'none imported'}, in {weights_dir()} "
            "(SPHEMB_WEIGHTS_DIR)",
        }
        for name, text in lines.items():
            print(f"{name:9}  {text}")
        return lines


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


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
