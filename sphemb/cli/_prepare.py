"""The verbs before a training: check-data, import-weights, info."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import re
import sys
from typing import Any

import jax
import tyro

import sphemb
from sphemb._checks import InputError, check_count
from sphemb._whole_files import written_whole
from sphemb.cli._advise import limits_for
from sphemb.cli._flags import FolderFlags, OptionalPath, OptionalText
from sphemb.cli._names import one_line, spelled
from sphemb.data import Finding, Report, check_data, tfds_data_dir
from sphemb.models import import_weights, list_weights, weights_dir
from sphemb.training import devices

_COLUMNS = (
    *("split", "images", "usable", "instances", "median", "most", "vanish"),
    *("masks", "sizes"),
)
_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "ml-collections", "numpy", "scipy"),
)
_OF_EXTRA = re.compile(r"""([\w.-]+).*;.*\bextra\s*==\s*['"]([\w-]+)['"]""")


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
        """Prints a table and the findings.

        Returns:
            The exit status.

        Raises:
            InputError: a missing folder, a setting out of range, or a report that
                cannot be written.
        """
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
        lines += _findings(report, self.limit)
        print("\n".join(lines), flush=True)
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
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for split, total in report.totals().items():
        smallest, largest = (
            "x".join(map(str, total[end] or ())) for end in ("smallest", "largest")
        )
        sizes = smallest if smallest == largest else f"{smallest} to {largest}"
        cells = (
            total["images"],
            total["usable"],
            total["instances"],
            f"{total['median_instances']:g}",
            total["most_instances"],
            total["vanishing"],
            ", ".join(total["masks"]) or "-",
            sizes or "-",
        )
        rows.append((split, *map(str, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return [
        "  ".join(
            [*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=True)), row[-1]]
        )
        for row in rows
    ]


def _findings(report: Report, limit: int) -> list[str]:
    lines = []
    most = max((t["most_instances"] for t in report.totals().values()), default=0)
    if most:
        limits = limits_for(most)
        lines += [
            "",
            f"limits for the fullest image, of {most} instances: "
            f"config.task.max_objects {limits['max_objects']}, and "
            f"config.task.max_groups {limits['max_groups']} or, with components, "
            f"config.task.max_components {limits['max_components']}",
        ]
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
        """Imports the weights and prints their name.

        Returns:
            The file that was written.

        Raises:
            InputError: an unreadable file, one of another network, or a used name.
        """
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
    """Print versions, devices, folders and missing extras."""

    def run(self) -> dict[str, str]:
        """Prints a line for each subject; returns subject -> line."""
        versions = {name: _version(name) for name in _PACKAGES}
        folder = pathlib.Path(sphemb.__file__).parent
        system = platform.platform(terse=True)
        lines = {
            "sphemb": f"{sphemb.__version__}, in {folder}",
            "python": f"{platform.python_version()}, on {system}",
            "packages": ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()),
            "devices": devices(),
            "compiled": _compiled(),
            "data sets": _datasets(),
            "weights": _weights(),
            "extras": _extras(),
        }
        width = max(map(len, lines))
        for name, text in lines.items():
            print(f"{name:{width}}  {text}")
        return lines


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiled() -> str:
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if not chosen:
        return (
            "programs are not kept; JAX_COMPILATION_CACHE_DIR=DIR keeps them from one "
            "start to the next"
        )
    files = [p for p in pathlib.Path(chosen).glob("*-cache") if p.is_file()]
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} programs, {size / 2**20:.0f} MiB, in {chosen}"


def _datasets() -> str:
    folder = pathlib.Path(tfds_data_dir())
    found = sorted(p.name for p in folder.glob("*") if p.is_dir())
    return f"{', '.join(found) or 'none prepared'}, in {folder} (TFDS_DATA_DIR)"


def _weights() -> str:
    found = [
        name if name == backbone else f"{name} (of {backbone or 'no backbone'})"
        for name, backbone in list_weights().items()
    ]
    where = f"in {weights_dir()} (SPHEMB_WEIGHTS_DIR)"
    return f"{', '.join(found) or 'none imported'}, {where}"


def _extras() -> str:
    """The optional packages, and the command that installs missing ones."""
    try:
        wanted = importlib.metadata.requires("sphemb") or []
    except importlib.metadata.PackageNotFoundError:
        return "unknown: sphemb runs from a folder that is not installed"
    extras: dict[str, list[str]] = {}
    for package, extra in (m.groups() for m in map(_OF_EXTRA.match, wanted) if m):
        extras.setdefault(extra, []).append(package)
    lines = []
    for extra, packages in extras.items():
        missing = [package for package in packages if _version(package) is None]
        lines.append(
            f"{extra}: pip install 'sphemb[{extra}]' brings {', '.join(missing)}"
            if missing
            else f"{extra}: installed"
        )
    return "; ".join(lines)
