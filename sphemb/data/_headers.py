"""How large an image is, from its header alone."""

from __future__ import annotations

import os
import pathlib
import warnings

from PIL import ExifTags, Image

from sphemb.data._findings import FileError, PathLike
from sphemb.data._image_files import UNREADABLE

_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width


def read_size(path: PathLike) -> tuple[int, int]:
    """Returns the (H, W) that `read_image` would give, without decoding pixels.

    Args:
        path: an image file.

    Returns:
        Height and width, with a camera's orientation applied.

    Raises:
        FileError: the file is missing or no image.
    """
    path = pathlib.Path(path)
    if not os.path.isfile(path):
        raise FileError(f"no such image file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `read_image` refuses what is too large
            with Image.open(path) as image:
                width, height = image.size
                # Pillow turns the size of a TIFF itself. PNG's own method would decode
                # the file to look for a header behind the pixels.
                sideways = image.format != "TIFF" and (
                    Image.Image.getexif(image).get(ExifTags.Base.Orientation)
                    in _SIDEWAYS
                )
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"image {path} cannot be read: {reason}") from error
    except Image.DecompressionBombError as error:
        raise FileError(f"image {path} has far too many pixels") from error
    return (width, height) if sideways else (height, width)
