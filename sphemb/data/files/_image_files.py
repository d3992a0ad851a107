"""Image files for prediction: finding, reading and writing them."""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from sphemb._checks import InputError, check_count, check_integer, check_shape
from sphemb._whole_files import written_whole
from sphemb.data.files._findings import PathLike
from sphemb.data.files._stored_images import AS_SHOWN, Reading, read_values

_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jp2", "bmp", "gif", "pbm", "pgm", "ppm", "pnm"),
        *("tga", "tif", "tiff", "webp"),
    )
)
_MOST_LABELS = 2**16 - 1


def find_images(paths: PathLike | Iterable[PathLike]) -> list[pathlib.Path]:
    """Finds the image files that a list of files, folders and patterns stands for.

    A file is taken as it is, a folder stands for the images directly inside it, and a
    pattern such as ``"photos/**/*.png"`` for the files that it matches.

    Args:
        paths: one or several files, folders or patterns.

    Returns:
        The files, sorted, each once, whatever links lead to it. A link that leads to
        nothing is among those of a folder, so that whoever reads it says so.

    Raises:
        InputError: one of the paths stands for nothing.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    wanted = [os.path.expanduser(os.fspath(path)) for path in paths]
    if not wanted:
        raise InputError("paths must name at least one image file or folder, got none")
    return each_once(file for text in wanted for file in sorted(_files_of(text)))


def each_once(files: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Files, sorted, without those that are others by another name."""
    found: dict[str, pathlib.Path] = {}
    for file in files:
        found.setdefault(os.path.realpath(file), file)  # which survives links in rings
    return sorted(found.values())


def images_in(folder: PathLike) -> list[pathlib.Path]:
    """The images directly in a folder, by all of their names, sorted."""
    return sorted(file for file in pathlib.Path(folder).iterdir() if is_image(file))


def _files_of(text: str) -> list[pathlib.Path]:
    path = pathlib.Path(text)
    if os.path.isfile(path):  # where a name is impossible, pathlib raises
        return [path]
    if os.path.isdir(path):
        files = images_in(path)
        if not files:
            listed = ", ".join(sorted(suffix[1:] for suffix in _SUFFIXES))
            raise InputError(f"no images ({listed}) in the folder {text}")
        return files
    if glob.has_magic(text):
        matches = [pathlib.Path(match) for match in glob.glob(text, recursive=True)]
        files = [file for file in matches if is_image(file)]
        if not files:
            raise InputError(f"no image matches the pattern {text}")
        return files
    raise InputError(f"no such file or folder: {text}")


def is_image(path: pathlib.Path) -> bool:
    """Whether a file is called like an image; nothing is read."""
    if path.name.startswith(".") or path.suffix.lower() not in _SUFFIXES:
        return False
    broken = path.is_symlink() and not os.path.exists(path)
    return broken or os.path.isfile(path)


def read_image(path: PathLike, reading: Reading = AS_SHOWN) -> np.ndarray:
    """Reads an image file as RGB, the way a viewer shows it.

    Grey becomes RGB, transparency is laid over black, palettes are looked up, 16-bit
    values are scaled to 8 bits, a camera's orientation is applied, and of several
    pages the first is taken.

    Args:
        path: the file.
        reading: another page, or other values for black and white.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: the file is missing, no image, damaged, far too large, or has
            values of which there is no rule how they are shown.
    """
    return read_values(pathlib.Path(path), reading).shown()


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Writes a PNG; a write that breaks off leaves nothing behind.

    Args:
        path: the file, ending in ``.png``; a file that is there is replaced.
        image: uint8 [H, W, 3], or uint16 [H, W] for grey, with at least one pixel.

    Raises:
        InputError: another shape or dtype, or the file cannot be written.
    """
    path, image = pathlib.Path(path), np.asarray(image)
    if path.suffix.lower() != ".png":
        raise InputError(f"path must end in .png, got {path}")
    colour = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    grey = image.dtype == np.uint16 and image.ndim == 2
    if image.size == 0 or not (colour or grey):
        raise InputError(
            "image must be uint8 [H, W, 3] or uint16 [H, W] with pixels, got "
            f"{image.dtype} {image.shape}"
        )
    with image_written_whole(path) as unfinished:
        Image.fromarray(image).save(unfinished, format="PNG")


@contextlib.contextmanager
def image_written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`written_whole` of an image.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with written_whole(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise InputError(f"image cannot be written to {path}: {error}") from error


def write_labels(path: PathLike, labels: np.ndarray) -> None:
    """Writes instances as a 16-bit grey PNG; see `write_image`.

    Args:
        path: the file, ending in ``.png``.
        labels: int [H, W] with 0 for background, up to 65535.

    Raises:
        InputError: labels do not fit 16 bits, or the file cannot be written.
    """
    labels = np.asarray(labels)
    check_shape("labels", labels, "H W")
    check_integer("labels", labels)
    if labels.size == 0:
        raise InputError(f"labels must hold at least one pixel, got {labels.shape}")
    if labels.min() < 0 or labels.max() > _MOST_LABELS:
        raise InputError(
            f"labels must lie in 0 .. {_MOST_LABELS} to be written as 16-bit PNG, got "
            f"{labels.min()} to {labels.max()}"
        )
    write_image(path, labels.astype(np.uint16))


def pad_to_multiple(
    image: np.ndarray, *, multiple: int = 8
) -> tuple[np.ndarray, tuple[int, int]]:
    """Extends an image at the bottom and the right until a network takes its size.

    The image is mirrored at its border, so that no new edge appears.

    Args:
        image: [H, W, ...], at least one pixel.
        multiple: what height and width must be a multiple of.

    Returns:
        The extended image, and (H, W): ``result[:H, :W]`` takes it back.

    Raises:
        InputError: there is no pixel to repeat.

    >>> padded, (height, width) = pad_to_multiple(np.zeros((5, 16, 3)))
    >>> padded.shape, height, width
    ((8, 16, 3), 5, 16)
    """
    check_count("multiple", multiple, at_least=1)
    if image.ndim < 2 or image.size == 0:
        raise InputError(f"image must be [H, W, ...] with pixels, got {image.shape}")
    height, width = image.shape[:2]
    border = [(0, -height % multiple), (0, -width % multiple)]
    border += [(0, 0)] * (image.ndim - 2)
    return np.pad(image, border, mode="symmetric"), (height, width)
