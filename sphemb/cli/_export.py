"""Export: a run as one file that JAX alone can call."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from sphemb._whole_files import written_whole
from sphemb.cli._results import check_results, make_folder, writing_results
from sphemb.training import (
    PLATFORMS,
    describe_export,
    export_prediction,
    load_run,
    write_json,
)

_FUNCTION, _DESCRIPTION = "predict.jaxexport", "export.json"


def add_export(parser: argparse.ArgumentParser) -> None:
    """The flags of ``sphemb export``, beside ``--workdir``."""
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="the folder for the results"
    )
    parser.add_argument("--smallest", type=int, default=64, help="side of the images")
    parser.add_argument("--largest", type=int, default=512, help="side of the images")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of all images, instead of two bounds",
    )
    parser.add_argument(
        "--platforms", nargs="+", choices=PLATFORMS, default=PLATFORMS, help="to run on"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results that are there"
    )


def run_export(
    workdir: pathlib.Path,
    out: pathlib.Path,
    *,
    smallest: int = 64,
    largest: int = 512,
    size: Sequence[int] | None = None,
    platforms: Sequence[str] = PLATFORMS,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes what a run predicts as one function of images.

    Args:
        workdir: of the run that trained it.
        out: gets ``predict.jaxexport``, which ``jax.export.deserialize`` reads, and
            ``export.json``, what it takes and returns.
        smallest: side of the images at least, in pixels.
        largest: side at most.
        size: (H, W) of all images instead.
        platforms: of ``"cpu"``, ``"cuda"``, ``"tpu"``.
        overwrite: replace files that are there.

    Returns:
        What ``export.json`` holds.

    Raises:
        InputError: files that are there already, no folder to write to, or what
            `sphemb.training.export_prediction` refuses. Nothing is written then.

    References:
        ``docs/export.md``.
    """
    check_results(out, (_FUNCTION, _DESCRIPTION), overwrite=overwrite)
    trained = load_run(workdir)
    exported = export_prediction(
        trained, smallest=smallest, largest=largest, size=size, platforms=platforms
    )
    content = bytes(exported.serialize())
    description: dict[str, Any] = {
        "file": _FUNCTION,
        **describe_export(trained, exported),
    }
    make_folder(out)
    with writing_results():
        with written_whole(out / _FUNCTION) as unfinished:
            unfinished.write_bytes(content)
        write_json(out / _DESCRIPTION, description)  # last: where it is, the other is
    shape = " x ".join(map(str, description["inputs"]["image"]["shape"]))
    print(
        f"{out / _FUNCTION}: images {shape} on {', '.join(exported.platforms)}, "
        f"{len(content) / 1e6:.1f} MB",
        flush=True,
    )
    return description
