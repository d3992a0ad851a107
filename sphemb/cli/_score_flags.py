"""The flags of ``sphemb score``: what result files can be scored by."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from sphemb.cli._arguments import Defaults, of_results
from sphemb.cli._boundary_scores import run_boundary_scores
from sphemb.cli._class_scores import run_class_scores
from sphemb.cli._instance_scores import run_instance_scores


def add_score(verbs: Any) -> None:
    """Adds the verb."""
    score = verbs.add_parser("score", help="score result files by a benchmark")
    benchmarks = score.add_subparsers(dest="benchmark", required=True)
    of_scores: dict[str, Any] = {
        "parents": [of_results()],
        "formatter_class": Defaults,
    }
    classes = benchmarks.add_parser(
        "semantic", help="mean IoU of classes, also near their boundaries", **of_scores
    )
    classes.add_argument(
        "--predictions", type=pathlib.Path, required=True, help="a folder of *.png"
    )
    classes.add_argument(
        "--groundtruth", type=pathlib.Path, required=True, help="a folder of *.png"
    )
    classes.add_argument(
        "--classes", type=int, help="their number, the background among them"
    )
    classes.add_argument(
        "--names", type=pathlib.Path, help="a text file, a name in each line"
    )
    classes.add_argument(
        "--images", type=pathlib.Path, help="a text file, the name of an image a line"
    )
    classes.add_argument("--void", type=int, help="the value that counts for nothing")
    classes.add_argument("--trimap", type=int, default=40, help="the widest band")
    instances = benchmarks.add_parser(
        "instances", help="AP^r and COCO's AP of instances with classes", **of_scores
    )
    instances.add_argument(
        "--predictions",
        "--results",
        type=pathlib.Path,
        required=True,
        help="COCO's results, JSON, or a folder of *.png and *.csv",
    )
    instances.add_argument(
        "--groundtruth",
        type=pathlib.Path,
        required=True,
        help="COCO's annotations, JSON, or a folder of *.png and *.csv",
    )
    instances.add_argument(
        "--semantic", type=pathlib.Path, help="a folder of *.png, the true classes"
    )
    instances.add_argument(
        "--names", type=pathlib.Path, help="a text file, the name of a class a line"
    )
    instances.add_argument(
        "--images", type=pathlib.Path, help="a text file, the name of an image a line"
    )
    instances.add_argument("--void", type=int, help="the value that counts for nothing")
    bounds = benchmarks.add_parser(
        "boundaries",
        help="ODS, OIS and AP of boundary maps, as BSDS has it",
        **of_scores,
    )
    bounds.add_argument(
        "--maps",
        type=pathlib.Path,
        required=True,
        help="a folder of *.png, *.tif or *.npy",
    )
    bounds.add_argument(
        "--groundtruth", type=pathlib.Path, required=True, help="a folder of *.mat"
    )
    bounds.add_argument(
        "--nms", action="store_true", help="keep maxima across boundaries only"
    )
    bounds.add_argument("--thresholds", type=int, default=99, help="their number")
    bounds.add_argument(
        "--tolerance", type=float, default=0.0075, help="as a share of the diagonal"
    )
    bounds.add_argument(
        "--processes", type=int, help="images at a time (default: all processors)"
    )
    for benchmark in (classes, instances, bounds):
        benchmark.add_argument(
            "--partial",
            action="store_true",
            help="leave out true images without a prediction",
        )


def start_scoring(flags: argparse.Namespace) -> None:
    """Scores what the flags say."""
    settings = {k: v for k, v in vars(flags).items() if k != "verb"}
    run = {
        "boundaries": run_boundary_scores,
        "semantic": run_class_scores,
        "instances": run_instance_scores,
    }[settings.pop("benchmark")]
    run(**settings)
