"""The command ``sphemb``: a verb for each thing to do, flags that they share."""

from __future__ import annotations

import io
import pathlib
import sys
from collections.abc import Sequence

from sphemb._version import __version__
from sphemb.cli._advise_flags import add_advise, start_advising
from sphemb.cli._arguments import Defaults, Parser, of_folder, of_run
from sphemb.cli._check import run_check
from sphemb.cli._door import door, pipe_may_close
from sphemb.cli._export import add_export, run_export
from sphemb.cli._info import run_info
from sphemb.cli._predict import run_prediction
from sphemb.cli._prediction_settings import PredictionSettings
from sphemb.cli._score_flags import add_score, start_scoring
from sphemb.cli._train import run_evaluation
from sphemb.cli._train_flags import add_train, start_training
from sphemb.cli._weights import run_import

_CONFIGURED = ("train", "advise")  # these change entries of a configuration
_INTERRUPTED = {
    "train": "stopped; the same command goes on from the last checkpoint",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb; a mistake ends with one line and exit status 2."""
    parser = Parser(
        prog="sphemb",
        description="Learning to group pixels on the sphere.",
        epilog="sphemb VERB -h tells the flags of a verb and their defaults.",
    )
    parser.add_argument("--version", action="version", version=f"sphemb {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    add_train(verbs)
    settings = {"parents": [of_run()], "formatter_class": Defaults}

    evaluate = verbs.add_parser("evaluate", help="score a run and draw", **settings)
    evaluate.add_argument(
        "--split", choices=("validation", "test"), default="test", help="what to score"
    )
    evaluate.add_argument(
        "--report", action="store_true", help="write report.html, a page to look at"
    )

    predict = verbs.add_parser("predict", help="group the pixels of images", **settings)
    predict.add_argument("images", nargs="+", help="image files, folders or globs")
    predict.add_argument(
        "--out", type=pathlib.Path, required=True, help="the folder for the results"
    )
    predict.add_argument(
        "--overwrite", action="store_true", help="replace results that are there"
    )

    predict.add_argument(
        "--limit", type=int, default=0, help="images at most; 0 for all"
    )
    predict.add_argument(
        "--dry-run", action="store_true", help="say what would be done, write nothing"
    )
    predict.add_argument(
        "--min-size", type=int, default=1, help="pixels that an instance needs"
    )
    predict.add_argument(
        "--tile", type=int, default=1024, help="side of the tiles of larger images"
    )
    predict.add_argument(
        "--halo", type=int, default=128, help="pixels around each that it sees, too"
    )
    predict.add_argument(
        "--embeddings", action="store_true", help="keep the embedding of every pixel"
    )
    predict.add_argument(
        "--page", help="of images with several, from 0 on, or max (default: the run's)"
    )
    predict.add_argument(
        "--annotations",
        type=pathlib.Path,
        help="COCO's file of these images, whose ids results.json is to have",
    )

    add_export(verbs.add_parser("export", help="a run as one file for JAX", **settings))

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
        parents=[of_folder()],
        formatter_class=Defaults,
    )
    check.add_argument("dir", type=pathlib.Path, help="the folder")
    check.add_argument("--stride", type=int, default=8, help="of the network's output")
    check.add_argument("--out", type=pathlib.Path, help="a JSON file for all of it")
    check.add_argument(
        "--limit", type=int, default=5, help="lines for each kind; 0 for all"
    )

    add_advise(verbs)
    add_score(verbs)
    verbs.add_parser("info", help="print versions, devices, folders, what is missing")

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be any bytes
            stream.reconfigure(errors="backslashreplace")
    with pipe_may_close():  # help is output, too
        flags, overrides = parser.parse_known_args(arguments)
    if overrides and flags.verb not in _CONFIGURED:
        parser.error(f"unknown argument {overrides[0]!r}")
    with door(interrupted=_INTERRUPTED.get(flags.verb, "stopped")):
        if flags.verb == "train":
            start_training(flags, overrides)
        elif flags.verb == "advise":
            start_advising(flags, overrides)
        elif flags.verb == "info":
            run_info()
        elif flags.verb == "evaluate":
            run_evaluation(flags.workdir, flags.split, report=flags.report)
        elif flags.verb == "export":
            run_export(**{k: v for k, v in vars(flags).items() if k != "verb"})
        elif flags.verb == "check-data":
            settings = {k: v for k, v in vars(flags).items() if k != "verb"}
            raise SystemExit(run_check(settings.pop("dir"), **settings))
        elif flags.verb == "score":
            start_scoring(flags)
        elif flags.verb == "import-weights":
            run_import(
                flags.source,
                backbone=flags.backbone,
                name=flags.name,
                overwrite=flags.overwrite,
            )
        else:
            run_prediction(
                flags.workdir,
                flags.images,
                flags.out,
                overwrite=flags.overwrite,
                limit=flags.limit,
                annotations=flags.annotations,
                dry_run=flags.dry_run,
                settings=PredictionSettings(
                    tile=flags.tile,
                    halo=flags.halo,
                    min_size=flags.min_size,
                    embeddings=flags.embeddings,
                    page=flags.page,
                ),
            )
