"""The flags of ``sphemb advise``."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from sphemb.cli._advise import run_advice
from sphemb.cli._arguments import CHANGES, Defaults, of_folder, of_results


def add_advise(verbs: Any) -> None:
    """Adds the verb."""
    advise = verbs.add_parser(
        "advise",
        help="settings for a folder of your own or after a run, with reasons and costs",
        epilog=f"{CHANGES}. What is changed so is not advised on.",
        parents=[of_folder(), of_results()],
        formatter_class=Defaults,
        allow_abbrev=False,
    )
    advise.add_argument(
        "dir", type=pathlib.Path, nargs="?", help="a folder of images and masks"
    )
    advise.add_argument(
        "--workdir", type=pathlib.Path, help="a run, in the place of the folder"
    )
    advise.add_argument(
        "--config",
        metavar="NAME[:VARIANT]",
        help="what training would start from (default: folder, or nuclei for many)",
    )
    advise.add_argument(
        "--images", type=int, default=500, help="images of a split that are looked at"
    )
    advise.add_argument(
        "--no-costs",
        dest="costs",
        action="store_false",
        help="leave out memory and time, for which programs must be compiled",
    )


def start_advising(flags: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Advises on what the flags say.

    Args:
        flags: of `add_advise`.
        overrides: of the configuration, see `read_config`.
    """
    logging.set_verbosity(logging.ERROR)  # as for training
    settings = {k: v for k, v in vars(flags).items() if k != "verb"}
    run_advice(settings.pop("dir"), overrides=overrides, **settings)
