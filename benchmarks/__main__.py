"""The command line; see ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import pathlib

from benchmarks._threads import limit_threads

_HERE = pathlib.Path(__file__).parent


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures sphemb and its peers side by side in one process.",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=_HERE / "results",
        help="folder of results.json, table.md and the picture (%(default)s)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        help="seconds of rounds for each case (default: 20; 3 with --quick)",
    )
    parser.add_argument("--threads", type=int, default=2, help="for every library")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run on small shapes"
    )
    parser.add_argument(
        "--render", action="store_true", help="report results.json again, no measuring"
    )
    options = parser.parse_args()
    if options.budget is None:
        options.budget = 3.0 if options.quick else 20.0
    if options.threads < 1 or options.budget <= 0:
        parser.error("--threads and --budget must be positive")
    return options


def main() -> None:
    """Measures and reports."""
    options = _parse()
    limit_threads(options.threads)
    # Only now: the libraries read the number of threads when they are imported.
    from benchmarks import _cases, _report, _run

    path = options.out / "results.json"
    if options.render:
        if not path.is_file():
            raise SystemExit(f"--render: there is no {path}")
        results = json.loads(path.read_text())
    else:
        cases = _cases.quick_cases() if options.quick else _cases.full_cases()
        cases = [case for case in cases if options.only in case.name]
        if not cases:
            raise SystemExit(f"--only: no case has {options.only!r} in its name")
        results = _run.run(
            cases,
            budget=options.budget,
            threads=options.threads,
            whole=not (options.quick or options.only),
            path=path,
        )
    _report.write(results, out=options.out, home=_HERE)


if __name__ == "__main__":
    main()
