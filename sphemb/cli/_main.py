"""The command line ``sphemb``: one verb for each thing to do with a trained run."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from sphemb.cli._boundary_scores import run_boundary_scores
from sphemb.cli._check import run_check
from sphemb.cli._class_scores import run_class_scores
from sphemb.cli._door import door
from sphemb.cli._instance_scores import run_instance_scores
from sphemb.cli._predict import run_prediction
from sphemb.cli._train import run_evaluation
from sphemb.cli._weights import run_import


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb; a mistake ends with one line and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="sphemb",
        description="Learning to group pixels on the sphere.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--workdir", type=pathlib.Path, required=True, help="the folder of a run"
    )
    settings = {
        "parents": [shared],
        "formatter_class": argparse.ArgumentDefaultsHelpFormatter,
    }

    evaluate = verbs.add_parser("evaluate", help="score a run and draw", **settings)
    evaluate.add_argument(
        "--split", choices=("validation", "test"), default="test", help="what to score"
    )

    predict = verbs.add_parser("predict", help="group the pixels of images", **settings)
    predict.add_argument("images", nargs="+", help="image files, folders or globs")
    predict.add_argument(
        "--out", type=pathlib.Path, required=True, help="the folder for the results"
    )
    predict.add_argument(
        "--overwrite", action="store_true", help="replace results that are there"
    )

    weights = verbs.add_parser(
        "import-weights", help="take pretrained weights from a PyTorch file"
    )
    weights.add_argument("source", help="a .pth, .pt or .safetensors file")
    weights.add_argument(
        "--backbone", required=True, help="what it holds, such as resnet50"
    )
    weights.add_argument("--name", help="of the weights (default: the backbone's)")
    weights.add_argument(
        "--overwrite", action="store_true", help="replace weights of this name"
    )

    check = verbs.add_parser(
        "check-data",
        help="look through a folder of images and masks",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    check.add_argument("dir", type=pathlib.Path, help="the folder")
    check.add_argument("--stride", type=int, default=8, help="of the network's output")
    check.add_argument(
        "--masks",
        default="instances",
        help="what a value is: instances, components, single or classes",
    )
    check.add_argument("--void", type=int, help="the value that counts for nothing")
    check.add_argument("--validation-fraction", type=float, default=0.15)
    check.add_argument("--test-fraction", type=float, default=0.15)
    check.add_argument("--seed", type=int, default=0, help="of the split")
    check.add_argument("--out", type=pathlib.Path, help="a JSON file for all of it")
    check.add_argument(
        "--limit", type=int, default=5, help="lines for each kind; 0 for all"
    )

    _add_benchmarks(verbs.add_parser("score", help="score result files by a benchmark"))

    flags = parser.parse_args(arguments)
    with door():
        if flags.verb == "evaluate":
            run_evaluation(flags.workdir, flags.split)
        elif flags.verb == "check-data":
            settings = {k: v for k, v in vars(flags).items() if k != "verb"}
            raise SystemExit(run_check(settings.pop("dir"), **settings))
        elif flags.verb == "score":
            settings = {k: v for k, v in vars(flags).items() if k != "verb"}
            run = {
                "boundaries": run_boundary_scores,
                "semantic": run_class_scores,
                "instances": run_instance_scores,
            }[settings.pop("benchmark")]
            run(**settings)
        elif flags.verb == "import-weights":
            run_import(
                flags.source,
                backbone=flags.backbone,
                name=flags.name,
                overwrite=flags.overwrite,
            )
        else:
            run_prediction(
                flags.workdir, flags.images, flags.out, overwrite=flags.overwrite
            )


def _add_benchmarks(score: argparse.ArgumentParser) -> None:
    """What ``sphemb score`` can score."""
    benchmarks = score.add_subparsers(dest="benchmark", required=True)
    results = argparse.ArgumentParser(add_help=False)
    results.add_argument("--out", type=pathlib.Path, help="the folder for the results")
    results.add_argument(
        "--overwrite", action="store_true", help="replace results that are there"
    )
    of_results: dict[str, Any] = {
        "parents": [results],
        "formatter_class": argparse.ArgumentDefaultsHelpFormatter,
    }
    classes = benchmarks.add_parser(
        "semantic", help="mean IoU of classes, also near their boundaries", **of_results
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
        "instances", help="AP^r and COCO's AP of instances with classes", **of_results
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
        **of_results,
    )
    bounds.add_argument(
        "--maps", type=pathlib.Path, required=True, help="a folder of *.png or *.npy"
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
