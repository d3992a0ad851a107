"""How the verbs take their flags: a mistake is one line, defaults stand in the help."""

from __future__ import annotations

import argparse
import pathlib
from typing import NoReturn

CHANGES = (
    "--config.train.num_steps=500 changes an entry of the configuration, and so on; "
    "configs/common.py has its sections"
)


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with the line and status 2."""
        self.exit(2, f"error: {message}: see {self.prog} -h\n")


class Defaults(argparse.HelpFormatter):
    """Help with the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help or ""
        silent = action.default in (None, False, argparse.SUPPRESS)
        if silent or not action.option_strings or "(default" in told:
            return told
        return f"{told} (default: %(default)s)".lstrip()


def of_run() -> Parser:
    """The flag of verbs that take a trained run."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--workdir", type=pathlib.Path, required=True, help="the folder of a run"
    )
    return parent


def of_results() -> Parser:
    """The flags of verbs that may write down what they found."""
    parent = Parser(add_help=False)
    parent.add_argument("--out", type=pathlib.Path, help="the folder for the results")
    parent.add_argument(
        "--overwrite", action="store_true", help="replace results that are there"
    )
    return parent


def of_folder() -> Parser:
    """The flags of verbs that read a folder of images and masks."""
    parent = Parser(add_help=False)
    parent.add_argument(
        "--masks",
        default="instances",
        help="what a value is: instances, components, single or classes",
    )
    parent.add_argument("--void", type=int, help="the value that counts for nothing")
    parent.add_argument(
        "--validation-fraction", type=float, default=0.15, help="of the images"
    )
    parent.add_argument(
        "--test-fraction", type=float, default=0.15, help="of the images"
    )
    parent.add_argument("--seed", type=int, default=0, help="of the split")
    parent.add_argument(
        "--page", default="0", help="of images with several, from 0 on, or max"
    )
    parent.add_argument(
        "--intensity", default="full", help="full, range, percentile or LOW..HIGH/WHITE"
    )
    return parent
