"""Check a folder: what training would stop at, and what deserves a look."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from sphemb._checks import InputError, check_count
from sphemb._whole_files import written_whole
from sphemb.cli._advice import room_for
from sphemb.cli._names import one_line, spelled
from sphemb.data import Finding, Report, check_data

_COLUMNS = (
    "split",
    "images",
    "usable",
    "instances",
    "median",
    "most",
    "vanish",
    "masks",
    "sizes",
)


def run_check(
    dir: pathlib.Path,
    *,
    stride: int = 8,
    out: pathlib.Path | None = None,
    limit: int = 5,
    **settings: Any,
) -> int:
    """Checks a folder of images and masks, and prints a table.

    Args:
        dir: the folder.
        stride: of the network's output.
        out: gets the whole report as JSON.
        limit: lines printed for each kind of finding; 0 prints all.
        **settings: those of `sphemb.data.open_folder`.

    Returns:
        The exit status: 1 if training would stop, else 0.

    Raises:
        InputError: there is no such folder, a setting does not fit, or the report
            cannot be written.
    """
    check_count("limit", limit)
    progress = _show_progress if sys.stderr.isatty() else None
    report = check_data(dir, stride=stride, progress=progress, **settings)
    if progress:
        print(end="\r\033[K", file=sys.stderr)
    if out is not None:
        try:
            content = json.dumps(_spelled(report.to_dict()), indent=1) + "\n"
            with written_whole(out) as unfinished:
                unfinished.write_text(content)
        except OSError as error:
            raise InputError(f"--out must be a file to write to: {error}") from error
    print("\n".join(_lines(dir, report, limit)), flush=True)
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


def _lines(dir: pathlib.Path, report: Report, limit: int) -> list[str]:
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{one_line(dir)}: {report.layout}", ""]
    for row in rows:
        cells = zip(row[:-1], widths, strict=False)
        lines.append(
            "  ".join([*(cell.ljust(width) for cell, width in cells), row[-1]])
        )
    most = max((t["most_instances"] for t in report.totals().values()), default=0)
    if most:
        room = room_for(most)
        lines += [
            "",
            f"room for the fullest image, of {most} instances: config.task.max_objects "
            f"{room['max_objects']}, and config.task.max_groups {room['max_groups']} "
            f"or, with parts, config.task.max_components {room['max_components']}",
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
    lines += ["", f"{errors} errors, {warnings} warnings"]
    return lines
