"""The verb check-data: a table of a folder, and its findings."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

from sphemb._checks import InputError, check_count
from sphemb._files import written_whole
from sphemb.cli._advise import limits_for
from sphemb.cli._names import spelled
from sphemb.cli._output import one_line
from sphemb.cli._verbs import CheckData
from sphemb.data import Finding, Report, check_data

_COLUMNS = {
    **{name: name for name in ("images", "usable", "instances")},
    "median": "median_instances",
    "most": "most_instances",
    "vanish": "vanishing",
}


def report_on_folder(flags: CheckData) -> int:
    """Prints a table and the findings, and returns the exit status."""
    check_count("limit", flags.limit)
    progress = _show_progress if sys.stderr.isatty() else None
    report = check_data(
        flags.dir, stride=flags.stride, progress=progress, **flags.folder
    )
    if progress:
        print(end="\r\033[K", file=sys.stderr)
    if flags.out is not None:
        content = json.dumps(_spelled(report.to_dict()), indent=1) + "\n"
        try:
            with written_whole(flags.out) as unfinished:
                unfinished.write_text(content)
        except OSError as error:
            raise InputError(f"--out must be a file to write to: {error}") from error
    lines = [f"{one_line(flags.dir)}: {report.layout}", "", *_table(report)]
    print("\n".join([*lines, *_findings(report, flags.limit)]), flush=True)
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
