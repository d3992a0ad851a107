"""A folder of images that nobody has labelled, as a data set.

H W image size.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError, check_choice
from sphemb._labels import VOID
from sphemb.data._division import SPLITS, check_division, divide
from sphemb.data._layouts import SPLIT_NAMES, Layout
from sphemb.data.files import (
    AS_SHOWN,
    PathLike,
    Reading,
    each_once,
    images_in,
    read_image,
    read_size,
    with_measured_range,
)


def open_images(
    dir: PathLike | None = None,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    page: int | str = 0,
    intensity: str = "full",
) -> ImageDataset:
    """Opens a folder of images as a data set; there is no label file anywhere.

    The images lie directly in the folder, or in folders within it, however deep; where
    there are folders for splits (``train``, ``val``, ``test``), they are the splits.

    Args:
        dir: the folder; it must be given, though a configuration starts without.
        validation_fraction: of the images, where there is no folder for validation.
            These and those to test are looked at, since nothing can be scored.
        test_fraction: of the images, where there are no folders for splits at all.
            Where there is none to test, ``"test"`` is the validation split.
        seed: for the split, by a hash of each name, see `open_folder`.
        page: of image files with several, see `Reading`.
        intensity: which values become black and white, see `open_folder`.

    Returns:
        The data set.

    Raises:
        InputError: a setting does not fit, or there are no images.
    """
    return ImageDataset(
        dir,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        page=page,
        intensity=intensity,
    )


class ImageDataset:
    """Images without labels; see `open_images`.

    Args:
        dir: the folder.
        validation_fraction: see `open_images`.
        test_fraction: see `open_images`.
        seed: see `open_images`.
        page: see `open_images`.
        intensity: see `open_images`.

    Attributes:
        dir: the folder.

    Raises:
        InputError: a setting does not fit, or there are no images.
    """

    def __init__(
        self,
        dir: PathLike | None,
        *,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
        page: int | str = 0,
        intensity: str = "full",
    ) -> None:
        """Looks through the folder; see the class."""
        self._wanted = Reading(page, intensity)
        check_division(validation_fraction, test_fraction, seed)
        if not dir:
            raise InputError(
                "dir must be a folder of images, got none: give --config.data.dir=DIR"
            )
        self.dir = pathlib.Path(dir).expanduser()
        if not self.dir.is_dir():
            raise InputError(f"dir must be a folder of images, got {self.dir}")
        folders = {
            split: path
            for split, names in SPLIT_NAMES.items()
            for path in self.dir.iterdir()
            if path.is_dir() and path.name.lower() in names
        }
        found: Any = (
            {"": _images(self.dir)}
            if "train" not in folders
            else {split: _images(path) for split, path in folders.items()}
        )
        # It divides by the names alone.
        layout = Layout("images without labels", found, [])
        self._files: Any = divide(layout, validation_fraction, test_fraction, seed)

    def source(self, split: str) -> ImageExamples:
        """Returns the examples of ``"train"``, ``"validation"`` or ``"test"``.

        Args:
            split: which; ``"test"`` is ``"validation"`` where there is none to test.

        Returns:
            The examples.

        Raises:
            InputError: an unknown split, or one without images.
        """
        check_choice("split", split, SPLITS)
        if split == "test" and not self._files["test"]:
            split = "validation"
        if not self._files[split]:
            raise InputError(
                f"the {split} split of {self.dir} must have at least one image: raise "
                f"{split}_fraction, or make folders for splits"
            )
        return ImageExamples(self._files[split], reading=self.reading)

    @functools.cached_property
    def reading(self) -> Reading:
        """What is read of an image file, ``"range"`` replaced by what was measured.

        Raises:
            InputError: there is no range.
        """
        files = [file.image for file in self._files["train"]]
        return with_measured_range(self._wanted, files)


class ImageFile(NamedTuple):
    """An image and what it is called.

    Attributes:
        name: the path within the folder, without the ending.
        image: the file.
    """

    name: str
    image: pathlib.Path


class ImageExamples:
    """Images by random access, every pixel of which is void.

    Args:
        files: the images and their names.
        reading: what is read of them.
    """

    def __init__(
        self, files: Sequence[ImageFile], *, reading: Reading = AS_SHOWN
    ) -> None:
        self.files = tuple(files)
        self.reading = reading

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads one example.

        Args:
            index: which.

        Returns:
            ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``, -1
            in all of the instances.

        Raises:
            InputError: the file cannot be read; it is named.
        """
        file = self.files[index]
        image = read_image(file.image, self.reading)
        unknown = np.full(image.shape[:2], VOID, np.int32)
        return {"image": image, "instances": unknown, "name": file.name}

    def size(self, index: int) -> tuple[int, int]:
        """Returns the (H, W) of an example from the header of its image."""
        return read_size(self.files[index].image, self.reading)


def _images(folder: pathlib.Path) -> list[ImageFile]:
    """The images directly in a folder, or else those in all folders within it."""
    files = each_once(images_in(folder)) or each_once(_images_within(folder))
    if not files:
        raise InputError(f"{folder} must hold images, got none")
    return [
        ImageFile(path.relative_to(folder).with_suffix("").as_posix(), path)
        for path in files
    ]


def _images_within(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The images of all folders within one; of links that go in rings, one turn."""
    seen = set()
    for root, folders, _ in os.walk(folder, followlinks=True):
        place = os.path.realpath(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        yield from images_in(root)
