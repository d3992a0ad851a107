"""The verbs before a training: check-data, import-weights, info."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import sys
from typing import Any

import tyro

import sphemb
from sphemb._checks import InputError, check_count
from sphemb._files import written_whole
from sphemb.cli._advise import limits_for
from sphemb.cli._flags import FolderFlags, OptionalPath, OptionalText
from sphemb.cli._names import one_line, spelled
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
            try:
                content = json.dumps(_spelled(report.to_dict()), indent=1) + "\n"
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
    """All text of a report as UTF-8 can hold it; names of files may be any bytes."""
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
        lines += [
            "",
            f"limits for the fullest image, of {most} instances: {', '.join(limits)}",
        ]
    return lines


def _findings(report: Report, limit: int) -> list[str]:
    lines: list[str] = []
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.all_findings:
        kinds.setdefault((finding.level, finding.kind), []).append(finding)
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
        path = import_weights(
            self.source,
            backbone=self.backbone,
            name=self.name,
            overwrite=self.overwrite,
        )
        print(f"weights {path.stem!r} of {self.backbone} are in {path}", flush=True)
        return path


@dataclasses.dataclass(frozen=True)
class Info:
    """Print versions, devices and folders."""

    def run(self) -> dict[str, str]:
        """Prints a line for each subject; returns subject -> line."""
        versions = {name: _version(name) for name in _PACKAGES}
        system, folder = platform.platform(terse=True), pathlib.Path(sphemb.__file__)
        sets = pathlib.Path(tfds_data_dir())
        prepared = sorted(p.name for p in sets.glob("*") if p.is_dir())
        weights = [
            name if name == backbone else f"{name} (of {backbone or 'no backbone'})"
            for name, backbone in list_weights().items()
        ]
        lines = {
            "sphemb": f"{sphemb.__version__}, in {folder.parent}",
            "python": f"{platform.python_version()}, on {system}",
            "packages": ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()),
            "devices": devices(),
            "data sets": f"{', '.join(prepared) or 'none prepared'}, in {sets} "
            "(TFDS_DATA_DIR)",
            "weights": f"{', '.join(weights) or 'none imported'}, in {weights_dir()} "
            "(SPHEMB_WEIGHTS_DIR)",
        }
        for name, text in lines.items():
            print(f"{name:9}  {text}")
        return lines


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
