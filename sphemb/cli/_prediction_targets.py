"""Where the results of a prediction go, and what they may not replace."""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

from sphemb._checks import InputError
from sphemb.cli._label_images import either_picture, named_for
from sphemb.cli._results import check_unwritten
from sphemb.data import ImageWindows


def image_targets(
    images: Sequence[ImageWindows],
    called: Mapping[pathlib.Path, str],
    names: Sequence[str],
    out: pathlib.Path,
) -> list[list[pathlib.Path]]:
    """The files of every image.

    Args:
        images: the images.
        called: image file -> name of its results, see `result_names`.
        names: of an image's files; ``{}`` is the name of its results.
        out: the folder that they are in.

    Returns:
        The paths for each image, in the order of the names.
    """
    return [
        [named_for(out / n.format(called[image.path]), image.size) for n in names]
        for image in images
    ]


def check_targets(
    images: Sequence[ImageWindows], wanted: Sequence[pathlib.Path], *, overwrite: bool
) -> None:
    """Refuses to write over an image, unasked over a result, or two results as one.

    Raises:
        InputError: as above.
    """
    sources = {os.path.realpath(image.path) for image in images}
    twice = [path for path, number in Counter(wanted).items() if number > 1]
    if twice:
        raise InputError(
            f"{twice[0]} would be written for two images: predict them into different "
            "folders"
        )
    for path in wanted:
        for there in either_picture(path):
            if os.path.realpath(there) in sources:
                raise InputError(
                    f"{there} is an image that is predicted: give another --out"
                )
            check_unwritten(there, overwrite=overwrite)
