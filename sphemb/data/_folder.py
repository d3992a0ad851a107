"""Folders of your own images as data sets, with or without masks. H W image size."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import VOID, InputError, check_choice, check_count, check_number
from sphemb.data import files
from sphemb.data._pipeline import SPLITS
from sphemb.data.files import Annotations, FileError, Mask, PathLike, Reading

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
_IMAGE_FOLDERS = ("images", "image", "imgs")
_MASK_FOLDERS = ("masks", "labels", "mask", "label")
_MASK_SUFFIXES = tuple(f"_{word}" for word in _MASK_FOLDERS)


class Pair(NamedTuple):
    """An image and its labels."""

    name: str  # the image's file name without the ending
    image: pathlib.Path
    mask: pathlib.Path | Annotations | None  # None of an image without labels


class FolderExamples:
    """Images and masks in files, an `ExampleSource`.

    ``masks`` and ``void`` are those of `read_mask`. Examples have ``"semantic"`` where
    the masks hold classes; without a mask, all pixels are void.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        masks: str = "instances",
        void: int | None = None,
        reading: Reading = files.AS_SHOWN,
    ) -> None:
        self.reading, self.pairs = reading, tuple(pairs)
        self._masks, self._void = masks, void

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.inspect(index)[0]

    def size(self, index: int) -> tuple[int, int]:
        """Returns the (H, W) of an example from the header of its image."""
        return files.read_size(self.pairs[index].image, self.reading)

    def instances(self, index: int) -> np.ndarray:
        """Reads the instances of one example alone."""
        return self.mask(index).instances

    def inspect(self, index: int) -> tuple[dict[str, Any], Mask]:
        """Reads one example, and its mask with what is doubtful about it."""
        pair = self.pairs[index]
        image, mask = files.read_image(pair.image, self.reading), self.mask(index)
        _check_size(pair, mask.instances.shape, image.shape[:2])
        example = {"image": image, "instances": mask.instances, "name": pair.name}
        if mask.semantic is not None:
            example["semantic"] = mask.semantic
        return example, mask

    def mask(self, index: int) -> Mask:
        """Reads the mask of one example alone."""
        pair = self.pairs[index]
        if pair.mask is None:
            return Mask(np.full(self.size(index), VOID, np.int32), kind="")
        if isinstance(pair.mask, pathlib.Path):
            return files.inspect_mask(pair.mask, masks=self._masks, void=self._void)
        # The size is compared before an array of the size in the file is allocated.
        header = files.read_header(pair.image, self.reading)
        if not header.fits(pair.mask.size):
            _check_size(pair, pair.mask.size, header.size)
        if self._masks == "classes":
            text = f"annotations {pair.mask} are not a mask of classes: give label"
            raise FileError(f"{text} images", kind="not ids")
        drawn = files.read_annotations(pair.mask)
        return drawn._replace(instances=header.turn(drawn.instances))


def _check_size(pair: Pair, found: tuple[int, ...], size: tuple[int, ...]) -> None:
    if tuple(found) == tuple(size):
        return
    height, width = size
    turned = tuple(found) == (width, height)
    hint = ": images are turned as their camera says, masks are not" * turned
    file = isinstance(pair.mask, pathlib.Path)
    raise FileError(
        f"{'mask' if file else 'annotations'} {pair.mask} must be {height} x {width} "
        f"as the image {pair.image} is, got {' x '.join(map(str, found))}{hint}",
        kind="size mismatch",
    )


class _SplitFolder:
    _holds: str
    _settings: Mapping[str, Any] = {}  # of `FolderExamples`

    def __init__(
        self,
        dir: PathLike | None = None,
        *,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
        page: int | str = 0,
        intensity: str = "full",
    ) -> None:
        shares = {"validation": validation_fraction, "test": test_fraction}
        for split, share in shares.items():
            check_number(f"{split}_fraction", share, at_least=0, below=1)
        if sum(shares.values()) >= 1:
            text = "validation_fraction and test_fraction must leave images to train on"
            raise InputError(f"{text}, got {validation_fraction} and {test_fraction}")
        check_count("seed", seed)
        self._reading = Reading(page, intensity)
        wanted = f"dir must be a folder of {self._holds}, got"
        if not dir:
            raise InputError(f"{wanted} none: give --config.data.dir=DIR")
        self.dir = pathlib.Path(dir).expanduser()
        if not self.dir.is_dir():
            raise InputError(f"{wanted} {self.dir}")
        self._pairs = _divide(self._find(), shares, seed)

    def _find(self) -> dict[str, list[Pair]]:
        """Returns split -> pairs; without splits, all are under ``""``."""
        raise NotImplementedError

    def source(self, split: str) -> FolderExamples:
        """Returns the examples of a split, always the same object."""
        check_choice("split", split, SPLITS)
        if split == "test" and not self._pairs["test"]:
            split = "validation"
        if not self._pairs[split] and split == "train":
            raise InputError(f"{self.dir} must have images to train on, got none")
        if not self._pairs[split]:
            number = sum(map(len, self._pairs.values()))
            text = f"the {split} split of {self.dir} must have at least one of its"
            advice = f"raise {split}_fraction, or make folders for splits"
            raise InputError(f"{text} {number} images: {advice}")
        return self._sources[split]

    @functools.cached_property
    def reading(self) -> Reading:
        """How images are read; intensity ``"range"`` is that of the training images."""
        images = [pair.image for pair in self._pairs["train"]]
        return files.with_measured_range(self._reading, images)

    @functools.cached_property
    def _sources(self) -> dict[str, FolderExamples]:
        settings: Any = {"reading": self.reading, **self._settings}
        return {s: FolderExamples(p, **settings) for s, p in self._pairs.items()}


class ImageDataset(_SplitFolder):
    """A folder of images without labels: every pixel is void.

    The images lie directly in the folder, or in folders within it; ``train``, ``val``
    and ``test`` are the splits. The settings are those of `FolderDataset`.
    """

    _holds = "images"

    def _find(self) -> dict[str, list[Pair]]:
        folders = _splits_of(self.dir)
        if "train" not in folders:
            return {"": _unlabeled(self.dir)}
        return {split: _unlabeled(folder) for split, folder in folders.items()}


class FolderDataset(_SplitFolder):
    """A folder of images and masks, in which files may be faulty.

    The layout is detected: ``{train,val,test}/{images,masks}``,
    ``{images,masks}/{train,val,test}``, ``{images,masks}``, one folder with
    ``NAME_mask.png`` beside ``NAME.jpg``, or images with COCO json. A mask has the name
    of its image, with or without ``_mask``, ``_masks``, ``_label`` or ``_labels``;
    ``labels`` may stand for ``masks``. ``layout`` names it in words; ``problems`` are
    images without a mask and masks without an image.

    Args:
        dir: the folder; required, though a configuration starts without.
        masks, void: see `read_mask`.
        validation_fraction, test_fraction: of the images without folders for splits.
        seed: of the split, which goes by a hash of each name: one more image leaves all
            others in their splits. A split that would be empty takes one from training.
        page, intensity: see `Reading`; ``"range"`` is that of the training images.
    """

    _holds = "images and masks"

    def __init__(
        self,
        dir: PathLike | None = None,
        *,
        masks: str = "instances",
        void: int | None = None,
        validation_fraction: float = 0.15,
        test_fraction: float = 0.15,
        seed: int = 0,
        page: int | str = 0,
        intensity: str = "full",
    ) -> None:
        files.check_mask_settings(masks, void)
        self.masks, self._settings = masks, {"masks": masks, "void": void}
        self.layout, self.problems = "", list[FileError]()
        super().__init__(
            dir,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
            page=page,
            intensity=intensity,
        )

    def _find(self) -> dict[str, list[Pair]]:
        self.layout, pairs = _find_layout(self.dir, self.problems)
        return pairs

    def content_problems(self) -> Iterator[FileError]:
        """Yields errors about values of all masks: palettes that differ, no ids."""
        pairs = [pair for source in self._sources.values() for pair in source.pairs]
        paths = [pair.mask for pair in pairs if isinstance(pair.mask, pathlib.Path)]

        def inspect(path: pathlib.Path) -> Mask:
            return files.inspect_mask(path, **self._settings)

        if self.masks == "classes":
            try:
                files.check_palettes(dict.fromkeys(paths), inspect)
            except FileError as error:
                yield error
        if self.masks != "instances" or len(paths) < len(pairs):
            return
        values = []
        for path in paths:
            with contextlib.suppress(FileError):  # raised again by reading the example
                mask = inspect(path)
                if mask.instances.max(initial=0) > 0:
                    values.append(mask.only)
                    if mask.only is None or mask.only != values[0]:
                        return  # these are ids
        if values:
            yield FileError(
                f"the masks of {self.dir} must hold an id for each instance, but all "
                f"{len(values)} with objects hold the one value {values[0]}: "
                "masks='components' makes every connected part an instance, "
                "masks='single' takes each mask for one instance",
                kind="binary",
            )


@functools.wraps(FolderDataset, assigned=(), updated=())
def open_folder(*args: Any, **settings: Any) -> FolderDataset:
    """Opens a `FolderDataset`, whose settings it takes, and checks it.

    Refused are an unknown layout, images without a mask, masks without an image, class
    colors that differ between files, and masks that all hold the same single value with
    masks="instances".
    """
    dataset = FolderDataset(*args, **settings)
    for problem in itertools.chain(dataset.problems, dataset.content_problems()):
        raise problem
    return dataset


def _divide(
    found: dict[str, list[Pair]], shares: dict[str, float], seed: int
) -> dict[str, list[Pair]]:
    pairs = {split: list(found.get(split, ())) for split in SPLITS}
    if pairs["validation"]:
        return pairs

    def position(pair: Pair) -> float:  # in [0, 1)
        digest = hashlib.blake2b(os.fsencode(f"{seed}/{pair.name}"), digest_size=8)
        return int.from_bytes(digest.digest(), "big") / 2**64

    if "" not in found:
        shares = {"validation": shares["validation"]}
    undivided = sorted(found.get("", pairs["train"]), key=position)
    pairs["train"], bounds = [], np.cumsum([*shares.values()])
    for pair in undivided:
        chosen = np.searchsorted(bounds, position(pair), side="right")
        pairs[[*shares, "train"][chosen]].append(pair)
    for split, share in shares.items():
        if share and not pairs[split] and len(pairs["train"]) > 1:
            pairs[split] = [pairs["train"].pop(0)]
    return {s: sorted(inside, key=lambda p: p.name) for s, inside in pairs.items()}


def _find_layout(
    root: pathlib.Path, problems: list[FileError]
) -> tuple[str, dict[str, list[Pair]]]:
    """Returns the layout in words, and split -> pairs."""
    kind, pairs, splits = "", {}, _splits_of(root)
    images, masks = _subfolder(root, _IMAGE_FOLDERS), _subfolder(root, _MASK_FOLDERS)
    # Beside images and masks, a folder called test may be anything.
    if splits and not (images and masks):
        kind = "a folder for each split"
        found = {split: _pairs_within(f, problems) for split, f in splits.items()}
        pairs = {split: inside for split, inside in found.items() if inside}
        for split, folder in splits.items():
            # Test images often come without masks.
            if pairs and split not in pairs and split != "test":
                text = "must hold images and masks, as the other splits do"
                raise InputError(f"{folder} {text}")
    elif images and masks and _splits_of(images):
        kind = f"{images.name} and {masks.name}, divided into splits"
        mask_splits = _splits_of(masks)
        for split, folder in _splits_of(images).items():
            if split in mask_splits:
                pairs[split] = _pair_files(folder, mask_splits[split], problems)
            elif split != "test":
                text = f"{masks} must have a folder {folder.name} as"
                raise InputError(f"{text} {images} has")
    elif inside := _pairs_within(root, problems):
        kind, pairs = "one folder without splits", {"": inside}
    if problems:
        return kind, pairs
    if not pairs:
        kind = "images with COCO annotations"
        entries, missing = files.find_annotations(root, _SPLIT_NAMES, _IMAGE_FOLDERS)
        problems += missing
        for split, inside in entries.items():
            pairs[split] = [
                Pair(str(pathlib.PurePosixPath(name).with_suffix("")), path, part)
                for name, path, part in inside
            ]
    if not pairs and not problems:
        inside = ", ".join(sorted(path.name for path in root.iterdir())[:8])
        raise InputError(
            f"{root} must hold images and masks ({{train,val}}/{{images,masks}}, "
            "{images,masks}/{train,val}, {images,masks}, NAME_mask.png beside NAME.ext,"
            f" or COCO json), got {inside or 'nothing'}"
        )
    if not problems and not {"", "train"} & pairs.keys():
        raise InputError(f"{root} must have a train split, got {', '.join(pairs)}")
    return kind, pairs


def _subfolder(folder: pathlib.Path, names: Iterable[str]) -> pathlib.Path | None:
    inside = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((inside[name] for name in names if name in inside), None)


def _splits_of(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    found = {split: _subfolder(folder, names) for split, names in _SPLIT_NAMES.items()}
    return {split: path for split, path in found.items() if path is not None}


def _pairs_within(folder: pathlib.Path, problems: list[FileError]) -> list[Pair]:
    """The pairs of one folder without splits; none where masks are not files."""
    images, masks = (_subfolder(folder, n) for n in (_IMAGE_FOLDERS, _MASK_FOLDERS))
    if images and masks:
        return _pair_files(images, masks, problems)
    stems = {path.stem for path in files.images_in(folder)}
    masked = any(_masked_stem(stem, stems) for stem in stems)
    return _pair_files(folder, folder, problems) if masked else []


def _masked_stem(stem: str, stems: set[str]) -> str:
    """The stem of the image that a mask's name points to, or nothing."""
    for suffix in _MASK_SUFFIXES:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            # An image may have such a name itself: then its mask has a longer one.
            own_mask = any(stem + other in stems for other in _MASK_SUFFIXES)
            return "" if own_mask else stem[: -len(suffix)]
    return ""


def _pair_files(
    image_folder: pathlib.Path, mask_folder: pathlib.Path, problems: list[FileError]
) -> list[Pair]:
    images, masks = files.images_in(image_folder), files.images_in(mask_folder)
    together = image_folder == mask_folder
    if together:
        stems = {path.stem for path in images}
        masks = [path for path in images if _masked_stem(path.stem, stems)]
        images = [path for path in images if path not in masks]
    if not images:
        raise InputError(f"no images in {image_folder}")

    def image_stem(mask: pathlib.Path) -> str:
        exact = mask.stem in by_stem and not together
        return mask.stem if exact else _masked_stem(mask.stem, set()) or mask.stem

    by_stem = _unique([(path.stem, path) for path in images], "image")
    masks_by_stem = _unique([(image_stem(path), path) for path in masks], "mask")
    unmasked = [path for stem, path in by_stem.items() if stem not in masks_by_stem]
    unseen = [path for stem, path in masks_by_stem.items() if stem not in by_stem]
    hint = ": an image without objects needs a mask of zeros"
    for wanted, kind, lacking, number, advice in (
        (f"image needs a mask in {mask_folder}", "no mask", unmasked, images, hint),
        (f"mask needs an image in {image_folder}", "no image", unseen, masks, ""),
    ):
        if lacking:
            text = f"every {wanted}, but {len(lacking)} of {len(number)} have none"
            text += f", the first is {lacking[0]}{advice}"
            problems.append(FileError(text, kind=kind, files=lacking))
    return [
        Pair(stem, path, masks_by_stem[stem])
        for stem, path in sorted(by_stem.items())
        if stem in masks_by_stem
    ]


def _unique(
    named: list[tuple[str, pathlib.Path]], what: str
) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}
    for name, path in named:
        other = found.setdefault(name, path)
        if other != path:
            text = f"every name must have one {what}, but {other} and {path}"
            raise InputError(f"{text} share one")
    return found


def _unlabeled(folder: pathlib.Path) -> list[Pair]:
    inside = files.each_once(files.images_in(folder))
    inside = inside or files.each_once(_images_within(folder))
    if not inside:
        raise InputError(f"{folder} must hold images, got none")
    names = [p.relative_to(folder).with_suffix("").as_posix() for p in inside]
    return [Pair(name, path, None) for name, path in zip(names, inside, strict=True)]


def _images_within(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    seen = set()
    for root, folders, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen.add(real)
        yield from files.images_in(root)
