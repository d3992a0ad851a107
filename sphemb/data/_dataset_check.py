"""Checks of a whole data set before training, and the sizes of its instances.

H W image size, K + 1 numbers of the instances of an image, also of absent ones.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from sphemb._checks import VOID, InputError, check_count
from sphemb._grid import Grid
from sphemb.data import files
from sphemb.data._folder import FolderDataset
from sphemb.data._pipeline import SPLITS, Dataset, ExampleSource, network_ready
from sphemb.data.files import Annotations, Finding, error_finding

_MOST_VOID = 0.5


@dataclasses.dataclass(frozen=True)
class CheckedFile:
    """The check of one example."""

    split: str
    name: str
    size: tuple[int, int] | None  # (H, W), or None if it cannot be used
    instances: int  # how many it has
    vanishing: int  # how many of them vanish at the stride
    void: float  # the fraction of void pixels
    kind: str  # of its mask file, such as "palette"; empty without one
    findings: tuple[Finding, ...]  # what is wrong or doubtful


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `check_data`."""

    layout: str  # of the data, in words
    stride: int  # that instances were compared with
    files: tuple[CheckedFile, ...]  # of every example, in the order of the splits
    findings: tuple[Finding, ...]  # about the data set as a whole

    @property
    def all_findings(self) -> list[Finding]:
        """All findings, errors first, of one kind together."""
        found = [*self.findings, *(f for file in self.files for f in file.findings)]
        return sorted(found, key=lambda f: (f.level, f.kind))

    @property
    def errors(self) -> list[Finding]:
        """The findings at which training would stop."""
        return [f for f in self.all_findings if f.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The other findings."""
        return [f for f in self.all_findings if f.level != "error"]

    def totals(self) -> dict[str, dict[str, Any]]:
        """Returns, for each split, images, usable ones, instances and sizes."""
        of_split = collections.defaultdict(list)
        for file in self.files:
            of_split[file.split].append(file)
        return {split: _total(files) for split, files in of_split.items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in the types of JSON."""

        def listed(part: Report | CheckedFile) -> dict[str, Any]:
            findings = [finding._asdict() for finding in part.findings]
            return {**dataclasses.asdict(part), "findings": findings}

        numbers = {"errors": len(self.errors), "warnings": len(self.warnings)}
        files = [listed(file) for file in self.files]
        return {**listed(self), **numbers, "totals": self.totals(), "files": files}


def _total(checked: list[CheckedFile]) -> dict[str, Any]:
    usable = [file for file in checked if file.size is not None]
    numbers = [file.instances for file in usable] or [0]
    sizes = collections.Counter(file.size for file in usable if file.size)
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return {
        "images": len(checked),
        "usable": len(usable),
        "instances": sum(numbers),
        "median_instances": float(np.median(numbers)),
        "most_instances": max(numbers),
        "masks": sorted({file.kind for file in usable if file.kind}),
        "vanishing": sum(file.vanishing for file in usable),
        "sizes": len(sizes),
        "smallest": list(ordered[0]) if ordered else None,
        "largest": list(ordered[-1]) if ordered else None,
        "commonest": list(sizes.most_common(1)[0][0]) if sizes else None,
    }


def check_data(
    data: str | os.PathLike[str] | Dataset,
    *,
    stride: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> Report:
    """Reads every example of a data set, as training would, and reports its faults.

    Training stops at errors, with the same line: unusable files, masks with soft edges,
    sizes that differ, images without a mask, masks without an image, masks that are all
    binary, palettes of classes that differ, a split without anything to learn. It does
    not stop at warnings: several parts of one value where no mask has a second one, 255
    among ids, an instance around all others, palettes whose background is not black,
    mostly void, no instances, one image in two splits, images with several pages or
    values in a small part of their bits, and instances that vanish at the stride.

    Args:
        data: a folder, or a data set.
        stride: of the network's output.
        progress: called with the split, the number of examples read and of all.
        **settings: for a folder: those of `FolderDataset`.
    """
    check_count("stride", stride, at_least=1)
    if isinstance(data, str | os.PathLike):
        data = FolderDataset(data, **settings)
    elif settings:
        raise InputError(f"{', '.join(settings)} must go with a folder, not a data set")
    findings = [error_finding(problem) for problem in getattr(data, "problems", ())]
    images = files.ImageValues(getattr(data, "reading", files.AS_SHOWN))
    checked: list[CheckedFile] = []
    values: list[int | None] = []
    seen: dict[bytes, tuple[str, str]] = {}
    sources: list[Any] = []
    for split in SPLITS:
        try:
            source = data.source(split)
        except InputError as error:
            findings.append(error_finding(error)._replace(kind="no examples"))
            continue
        if any(source is other for other in sources):
            continue  # a folder's test split may be its validation split
        sources.append(source)
        masks = [pair.mask for pair in getattr(source, "pairs", ())]
        for file, mask in itertools.zip_longest(files.image_files(source), masks):
            drawn_on = mask.size if isinstance(mask, Annotations) else None
            images.add(file, drawn_on=drawn_on, masked=isinstance(mask, pathlib.Path))
        for i in range(len(source)):
            checked.append(_check_example(source, i, split, stride, values, seen))
            if progress is not None:
                progress(split, i + 1, len(source))
    findings += images.findings
    if isinstance(data, FolderDataset):
        findings += map(error_finding, data.content_problems())
        findings += _nothing_to_learn(checked)
        findings += _not_read(sources)
    if None in values:  # if another mask has ids, one value is one instance
        for i, file in enumerate(checked):
            kept = tuple(f for f in file.findings if f.kind != "binary")
            checked[i] = dataclasses.replace(file, findings=kept)
    layout = getattr(data, "layout", type(data).__name__)
    return Report(layout, stride, tuple(checked), tuple(findings))


def _warning(kind: str, message: str) -> Finding:
    return Finding("warning", kind, message)


def _check_example(
    source: Any,
    index: int,
    split: str,
    stride: int,
    values: list[int | None],
    seen: dict[bytes, tuple[str, str]],
) -> CheckedFile:
    pairs = getattr(source, "pairs", None)
    name = pairs[index].name if pairs else f"{split}[{index}]"
    findings: list[Finding] = []
    kind = ""
    try:
        if hasattr(source, "inspect"):
            example, mask = source.inspect(index)
            kind = mask.kind
            findings += mask.findings
            if mask.instances.max(initial=0) > 0:
                values.append(mask.only)
        else:
            example = source[index]
        instances = network_ready(example)["instances"]
    except InputError as error:
        return CheckedFile(split, name, None, 0, 0, 0.0, kind, (error_finding(error),))
    name = str(example.get("name") or name)

    areas = _areas(instances)
    number = int((areas > 0).sum())
    vanishing = int(vanishing_instances(instances, areas, stride).sum())
    void = float(np.mean(instances == VOID)) if instances.size else 0.0
    where = f"{name} ({split})"
    if not number:
        findings.append(_warning("no instances", f"{where} has no instances"))
    if vanishing:
        text = f"{vanishing} of {number} instances vanish at stride {stride}"
        findings.append(_warning("vanishing", f"{where}: {text}"))
    if void > _MOST_VOID:
        findings.append(_warning("void", f"{where}: {void:.0%} of its pixels are void"))
    image = np.ascontiguousarray(example["image"])
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).digest()
    other_split, other = seen.setdefault(digest, (split, name))
    if other_split != split:
        text = f"{where} is the same image as {other} ({other_split})"
        findings.append(_warning("duplicate", text))
    return CheckedFile(
        split, name, instances.shape, number, vanishing, void, kind, tuple(findings)
    )


def _not_read(sources: Sequence[Any]) -> Iterator[Finding]:
    pairs = (pair for source in sources for pair in source.pairs)
    folders = {p.image.parent for p in pairs if isinstance(p.mask, pathlib.Path)}
    for folder in sorted(folders):
        for inner in sorted(folder.iterdir()):
            hidden = inner.name.startswith(".") or inner in folders
            number = 0 if hidden or not inner.is_dir() else len(files.images_in(inner))
            if number:
                text = f"{number} images in {inner} are not read: only those directly"
                yield _warning("sub-folder", f"{text} in {folder} are")


def _nothing_to_learn(checked: list[CheckedFile]) -> Iterator[Finding]:
    for split in SPLITS:
        usable = [f for f in checked if f.split == split and f.size is not None]
        many = f"but all {len(usable)} of its masks are"
        if usable and all(file.void == 1 for file in usable):
            lacks = f"have a valid pixel, {many} void"
        elif usable and split == "train" and not any(f.instances for f in usable):
            lacks = f"have an instance to learn, {many} background (0) or void"
        else:
            continue
        yield Finding("error", "no instances", f"the {split} split must {lacks}")


@dataclasses.dataclass(frozen=True)
class InstanceSizes:
    """The result of `measure_instances`; I images, J instances of all of them."""

    images: np.ndarray  # int [I, 2], (H, W) of every image
    counts: np.ndarray  # int [I], its instances
    areas: np.ndarray  # int [J], pixels
    sides: np.ndarray  # int [J], the longer side of the bounding box, in pixels
    touching: np.ndarray  # bool [J], whether it shares a border with another one
    vanishing: dict[int, np.ndarray]  # stride -> bool [J], see `vanishing_instances`
    unusable: tuple[str, ...]  # why examples could not be used

    @property
    def diameter(self) -> float:
        """The diameter of a typical instance in pixels, nan without instances.

        That of a disc with the instance's area: the median of an image's instances, of
        which the median over the images.
        """
        each = np.split(self.areas, np.cumsum(self.counts)[:-1])
        areas = [np.median(one) for one in each if one.size]
        return math.sqrt(4 / math.pi * np.median(areas)) if areas else math.nan

    def merge(self, *others: InstanceSizes) -> InstanceSizes:
        """Returns the sizes of these images and of others, at the same strides."""
        parts = (self, *others)
        arrays = ("images", "counts", "areas", "sides", "touching")
        return InstanceSizes(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in arrays),
            vanishing={
                s: np.concatenate([p.vanishing[s] for p in parts])
                for s in self.vanishing
            },
            unusable=tuple(reason for p in parts for reason in p.unusable),
        )


def _areas(instances: np.ndarray) -> np.ndarray:
    """Pixels [K + 1] of every number in a label map [H, W], 0 for the background."""
    areas = np.bincount(instances[instances > 0])
    return areas if areas.size else np.zeros(1, np.int64)


def vanishing_instances(
    instances: np.ndarray, areas: np.ndarray, stride: int
) -> np.ndarray:
    """Returns which instances are lost on a coarser map: bool [K + 1].

    They have fewer pixels than a cell of stride x stride, or none at a cell's center.
    ``instances`` are int [H, W], ``areas`` [K + 1] the pixels of every number.

    >>> dot = np.zeros((8, 8), int)
    >>> dot[1, 1] = 1
    >>> [bool(vanishing_instances(dot, np.array([0, 1]), s)[1]) for s in (1, 2)]
    [False, True]
    """
    grid = Grid(stride, 0.0)
    centers = instances[np.ix_(*(grid.pixels(side) for side in instances.shape))]
    sampled = np.bincount(centers[centers > 0], minlength=len(areas)) > 0
    return (areas > 0) & ((areas < stride**2) | ~sampled)


def measure_instances(
    source: ExampleSource,
    *,
    indices: Iterable[int] | None = None,
    strides: Sequence[int] = (8, 4, 2, 1),
) -> InstanceSizes:
    """Measures the instances of some examples, by default all, without unusable ones.

    >>> picture = {"image": np.zeros((8, 8, 3), np.uint8), "name": "a"}
    >>> sizes = measure_instances([{**picture, "instances": np.eye(8, dtype=int)}])
    >>> sizes.counts.tolist(), sizes.areas.tolist(), sizes.sides.tolist()
    ([1], [8], [8])
    """
    for stride in strides:
        check_count("strides", stride, at_least=1)
    none, lost = np.zeros(0, np.int64), {s: np.zeros(0, bool) for s in strides}
    pairs = np.zeros((0, 2), np.int64)
    empty = InstanceSizes(pairs, none, none, none, np.zeros(0, bool), lost, ())
    found = []
    for i in range(len(source)) if indices is None else indices:
        try:
            instances = network_ready(source[i])["instances"]
        except InputError as error:
            found.append(dataclasses.replace(empty, unusable=(str(error),)))
            continue
        areas = _areas(instances)
        present = areas > 0
        boxes = ndimage.find_objects(np.maximum(instances, 0))
        sides = [max(s.stop - s.start for s in box) for box in boxes if box is not None]
        vanishing = {
            s: vanishing_instances(instances, areas, s)[present] for s in strides
        }
        numbers = np.array([instances.shape]), np.array([present.sum()])
        touching = _touching(instances, len(areas))[present]
        of_each = areas[present], np.array(sides, np.int64), touching
        found.append(InstanceSizes(*numbers, *of_each, vanishing, ()))
    return empty.merge(*found)


def _touching(instances: np.ndarray, number: int) -> np.ndarray:
    """Which of the numbers [K + 1] share a side of a pixel with another instance."""
    found = np.zeros(number, bool)
    for turned in (instances, instances.T):
        one, other = turned[1:], turned[:-1]
        meet = (one != other) & (one > 0) & (other > 0)
        found[one[meet]] = found[other[meet]] = True
    return found
