"""The command line ``sphemb``: one verb for each thing to do with a trained run."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from sphemb.cli._door import door
from sphemb.cli._predict import run_prediction
from sphemb.cli._train import run_evaluation


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

    flags = parser.parse_args(arguments)
    with door():
        if flags.verb == "evaluate":
            run_evaluation(flags.workdir, flags.split)
        else:
            run_prediction(
                flags.workdir, flags.images, flags.out, overwrite=flags.overwrite
            )
