"""AP^r of runs in the layout of Table 2 of Kong & Fowlkes 2018, beside its rows.

    python -m benchmarks.regions --workdir RUN [RUN ...]

The rows of the paper are of VOC 2012's validation set. A run has that of its own data:
where these are not VOC, the rows are no comparison, and the table says so.
"""

from __future__ import annotations

import argparse
import math
import pathlib
from collections.abc import Mapping, Sequence

from sphemb.cli import one_line_errors
from sphemb.data import VOC_CLASSES
from sphemb.training import load_config, read_json

_SHORT = {
    "aeroplane": "plane",
    "bicycle": "bike",
    "diningtable": "table",
    "motorbike": "motor",
    "pottedplant": "plant",
    "tvmonitor": "tv",
}
_UNKNOWN = (math.nan,) * len(VOC_CLASSES)
PUBLISHED: Mapping[str, Sequence[float]] = {
    "SDS": (
        *(58.8, 0.5, 60.1, 34.4, 29.5, 60.6, 40.0, 73.6, 6.5, 52.4),
        *(31.7, 62.0, 49.1, 45.6, 47.9, 22.6, 43.5, 26.9, 66.2, 66.1, 43.8),
    ),
    "Chen et al.": (
        *(63.6, 0.3, 61.5, 43.9, 33.8, 67.3, 46.9, 74.4, 8.6, 52.3),
        *(31.3, 63.5, 48.8, 47.9, 48.3, 26.3, 40.1, 33.5, 66.7, 67.8, 46.3),
    ),
    "PFN": (
        *(76.4, 15.6, 74.2, 54.1, 26.3, 73.8, 31.4, 92.1, 17.4, 73.7),
        *(48.1, 82.2, 81.7, 72.0, 48.4, 23.7, 57.7, 64.4, 88.9, 72.3, 58.7),
    ),
    "MNC": (*_UNKNOWN, 63.5),
    "Li et al.": (*_UNKNOWN, 65.7),
    "R2-IOs": (
        *(87.0, 6.1, 90.3, 67.9, 48.4, 86.2, 68.3, 90.3, 24.5, 84.2),
        *(29.6, 91.0, 71.2, 79.9, 60.4, 42.4, 67.4, 61.7, 94.3, 82.1, 66.7),
    ),
    "Assoc. Embed.": (*_UNKNOWN, 35.1),
    "inst-DML": (
        *(69.7, 1.2, 78.2, 53.8, 42.2, 80.1, 57.4, 88.8, 16.0, 73.2),
        *(57.9, 88.4, 78.9, 80.0, 68.0, 28.0, 61.5, 61.3, 87.5, 70.4, 62.1),
    ),
    "Kong & Fowlkes": (
        *(85.9, 10.0, 74.3, 54.6, 43.7, 81.3, 64.1, 86.1, 17.5, 77.5),
        *(57.0, 89.2, 77.8, 83.7, 67.9, 31.2, 62.5, 63.3, 88.6, 74.2, 64.5),
    ),
}
"""AP^r at IoU .5 in percent, of VOC's classes in order, and their mean: Table 2. It has
no AP^r_vol, and of three methods the mean alone."""


def region_table(measured: Mapping[str, Mapping[str, float]]) -> str:
    """The published rows and measured ones, as Markdown.

    Args:
        measured: under each row's name what a run's ``summary.json`` holds.

    Returns:
        The table; a dash where there is no object of a class, and where
        the paper has no number.

    >>> scores = {"ap_r@0.5": 0.5, "ap_r_vol": 0.4}
    >>> print(region_table({"ours": scores}).splitlines()[-1][-15:])
    | 50.0 | 40.0 |
    """
    names = [_SHORT.get(name, name) for name in VOC_CLASSES]
    lines = [
        "| method | " + " | ".join([*names, "mean", "AP^r_vol"]) + " |",
        "|---" * (len(names) + 3) + "|",
    ]
    rows: dict[str, Sequence[float]] = {
        f"{n}, published": (*row, math.nan) for n, row in PUBLISHED.items()
    }
    for name, summary in measured.items():
        keys = [*(f"ap_r@0.5/{c}" for c in VOC_CLASSES), "ap_r@0.5", "ap_r_vol"]
        found = [summary.get(key) for key in keys]
        rows[name] = [math.nan if v is None else 100 * v for v in found]
    for name, row in rows.items():
        cells = ["-" if math.isnan(value) else f"{value:.1f}" for value in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, nargs="+", required=True)
    flags = parser.parse_args()
    with one_line_errors():
        measured = {}
        for workdir in flags.workdir:
            data = load_config(workdir).data.name
            where = "VOC" if data == "voc" else f"{data}, which is not VOC"
            summary = read_json(workdir / "summary.json")
            measured[f"{workdir.name}, measured on {where}"] = summary
        print(region_table(measured))


if __name__ == "__main__":
    main()
