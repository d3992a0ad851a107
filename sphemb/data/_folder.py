"""A folder of one's own images and masks as a data set."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable
from typing import Any

from sphemb._checks import InputError, check_choice
from sphemb.data._division import SPLITS, check_division, divide
from sphemb.data._folder_examples import FolderExamples
from sphemb.data._layouts import find_layout
from sphemb.data.files import (
    Annotations,
    FileError,
    PathLike,
    Reading,
    check_mask_settings,
    check_palettes,
    inspect_mask,
    with_measured_range,
)


def open_folder(
    dir: PathLike | None = None,
    *,
    masks: str = "instances",
    void: int | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    page: int | str = 0,
    intensity: str = "full",
) -> FolderDataset:
    """Opens a folder of images and masks as a data set.

    The layout is found by looking: ``{train,val,test}/{images,masks}``,
    ``{images,masks}/{train,val,test}``, ``{images,masks}``, one folder with
    ``NAME_mask.png`` beside ``NAME.jpg``, or images with COCO json. A mask has the name
    of its image, with or without ``_mask``, ``_masks``, ``_label`` or ``_labels``;
    ``labels`` may stand for ``masks``.

    Args:
        dir: the folder; it must be given, though a configuration starts without.
        masks: what a value of a mask stands for, see `read_mask`.
        void: the value of pixels that count for nothing, see `read_mask`.
        validation_fraction: of the images, where there is no folder for validation.
        test_fraction: of the images, where there are no folders for splits at all.
            Where there is none to test, ``"test"`` is the validation split.
        seed: for the split. It is by a hash of each name, so that one more image leaves
            all others in their splits; only where one would stay empty, because there
            are few images, it takes one from training.
        page: of image files with several, see `Reading`.
        intensity: which values become black and white, see `Reading`; ``"range"`` are
            the lowest and the highest of the training images.

    Returns:
        The data set.

    Raises:
        InputError: a setting does not fit; no layout that is known; images without a
            mask or masks without an image; with masks="instances", masks that all hold
            the same single value.
    """
    dataset = FolderDataset(
        dir,
        masks=masks,
        void=void,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        page=page,
        intensity=intensity,
    )
    for problem in dataset.problems:
        raise problem
    swapped = palette_problem(dataset)
    if swapped is not None:
        raise swapped
    if masks == "instances":
        binary = same_value_problem(_single_values(dataset), dataset.dir)
        if binary is not None:
            raise binary
    return dataset


class FolderDataset:
    """A folder of images and masks whose files may have faults; see `open_folder`.

    Args:
        dir: the folder.
        masks: see `open_folder`.
        void: see `open_folder`.
        validation_fraction: see `open_folder`.
        test_fraction: see `open_folder`.
        seed: see `open_folder`.
        page: see `open_folder`.
        intensity: see `open_folder`.

    Attributes:
        dir: the folder.
        masks: as given.
        layout: how the folder is laid out, in words.
        problems: images without a mask and masks without an image.

    Raises:
        InputError: a setting does not fit, or no layout that is known.
    """

    def __init__(
        self,
        dir: PathLike | None,
        *,
        masks: str = "instances",
        void: int | None = None,
        validation_fraction: float = 0.15,
        test_fraction: float = 0.15,
        seed: int = 0,
        page: int | str = 0,
        intensity: str = "full",
    ) -> None:
        """Looks through the folder; see the class."""
        self._wanted = Reading(page, intensity)
        check_mask_settings(masks, void)
        check_division(validation_fraction, test_fraction, seed)
        if not dir:
            raise InputError(
                "dir must be a folder of images and masks, got none: give "
                "--config.data.dir=DIR"
            )
        self.dir = pathlib.Path(dir).expanduser()
        self.masks = masks
        self._void = void
        layout = find_layout(self.dir)
        self.layout, self.problems = layout.kind, layout.problems
        self._pairs = divide(layout, validation_fraction, test_fraction, seed)

    def source(self, split: str) -> FolderExamples:
        """Returns the examples of ``"train"``, ``"validation"`` or ``"test"``.

        Args:
            split: which; ``"test"`` is ``"validation"`` where there is none to test.

        Returns:
            The examples, always the same object for one split.

        Raises:
            InputError: an unknown split, or one without images.
        """
        check_choice("split", split, SPLITS)
        if split == "test" and not self._pairs["test"]:
            split = "validation"
        if not self._pairs[split]:
            number = sum(len(pairs) for pairs in self._pairs.values())
            raise InputError(
                f"the {split} split of {self.dir} must have at least one of its "
                f"{number} images: raise {split}_fraction, or make folders for splits"
                if split != "train"
                else f"{self.dir} must have images to train on, got none"
            )
        return self._sources[split]

    @functools.cached_property
    def reading(self) -> Reading:
        """What is read of an image file, ``"range"`` replaced by what was measured.

        Raises:
            InputError: there is no range.
        """
        files = [pair.image for pair in self._pairs["train"]]
        return with_measured_range(self._wanted, files)

    @functools.cached_property
    def _sources(self) -> dict[str, FolderExamples]:
        return {
            split: FolderExamples(
                pairs, masks=self.masks, void=self._void, reading=self.reading
            )
            for split, pairs in self._pairs.items()
        }


def palette_problem(dataset: FolderDataset) -> FileError | None:
    """Words the error about classes that have other colours in other files, if any."""
    if dataset.masks != "classes":
        return None
    paths = [
        pair.mask
        for source in dataset._sources.values()
        for pair in source.pairs
        if isinstance(pair.mask, pathlib.Path)
    ]

    def read(path: pathlib.Path) -> Any:
        mask = inspect_mask(path, masks="classes", void=dataset._void)
        return mask.colors, mask.classes

    try:
        check_palettes(dict.fromkeys(paths), read)
    except FileError as error:
        return error
    return None


def same_value_problem(
    values: Iterable[int | None], folder: pathlib.Path
) -> FileError | None:
    """Words the complaint about masks that look binary, if all do.

    Args:
        values: of every mask with objects, the only value beside background and void,
            or None where there are several. It is read up to the first that tells ids.
        folder: of the masks.

    Returns:
        The complaint, or None.
    """
    number, common = 0, None
    for value in values:
        number += 1
        common = value if common is None else common
        if value is None or value != common:
            return None
    if not number:
        return None
    return FileError(
        f"the masks of {folder} must hold an id for each instance, but all {number} "
        f"with objects hold the one value {common}: masks='components' makes every "
        "connected part an instance, masks='single' takes each mask for one instance",
        kind="binary",
    )


def _single_values(dataset: FolderDataset) -> Iterable[int | None]:
    for split in SPLITS:
        source = dataset._sources[split]
        for i, pair in enumerate(source.pairs):
            if isinstance(pair.mask, Annotations):
                yield None  # which are ids by themselves
                continue
            try:
                mask = source.mask(i)
            except FileError:
                continue  # the reader of the example reports it
            if mask.instances.max(initial=0) > 0:
                yield mask.only
