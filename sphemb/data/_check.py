"""Decodes a whole data set and tells what is wrong or doubtful, before training does.

H W image size.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError, check_count
from sphemb._labels import VOID
from sphemb.data._division import SPLITS
from sphemb.data._examples import network_ready
from sphemb.data._folder import (
    FolderDataset,
    palette_problem,
    same_value_problem,
)
from sphemb.data._instance_sizes import instance_areas, vanishing_instances
from sphemb.data.files import (
    AS_SHOWN,
    Annotations,
    Finding,
    ImageValues,
    error_finding,
    image_files,
    images_in,
)

_MOST_VOID = 0.5


@dataclasses.dataclass(frozen=True)
class CheckedFile:
    """What was found out about one example.

    Attributes:
        split: where it belongs.
        name: its name.
        size: (H, W), or None if it cannot be used.
        instances: how many it has.
        vanishing: how many of them vanish at the stride.
        void: the share of its pixels that count for nothing.
        kind: what its mask was read from, such as ``"palette"``; empty if not from a
            mask file.
        findings: what is wrong or doubtful.
    """

    split: str
    name: str
    size: tuple[int, int] | None
    instances: int
    vanishing: int
    void: float
    kind: str
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check_data` found.

    Attributes:
        layout: how the data is laid out, in words.
        stride: that instances were compared with.
        files: of every example, in the order of the splits.
        findings: what is about the data set as a whole.
    """

    layout: str
    stride: int
    files: tuple[CheckedFile, ...]
    findings: tuple[Finding, ...]

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
        return {
            split: _total([file for file in self.files if file.split == split])
            for split in dict.fromkeys(file.split for file in self.files)
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON can hold it."""
        files = [
            {**dataclasses.asdict(f), "findings": [g._asdict() for g in f.findings]}
            for f in self.files
        ]
        return {
            "layout": self.layout,
            "stride": self.stride,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "totals": self.totals(),
            "findings": [finding._asdict() for finding in self.findings],
            "files": files,
        }


def check_data(
    data: Any,
    *,
    stride: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> Report:
    """Reads every example of a data set, as training would, and reports.

    Errors are what training stops at, with the same line: files that are unreadable,
    hold no ids or more labels than is possible, masks with soft edges, sizes that
    differ, images without a mask, masks without an image, masks that are all binary,
    palettes of classes that differ, nothing to learn. Warnings are what it does not
    stop at: several parts of one value where no mask has a second one, 255 among ids,
    an instance around all others, palettes whose background is not black, mostly void,
    no instances, one image in two splits, images with several pages or with values
    that use a small share of their bits, and instances that vanish at the output
    stride, which have fewer pixels than a cell of stride x stride or none in the middle
    of a cell.

    Args:
        data: a folder, or a data set: what has ``source(split)``.
        stride: of the network's output.
        progress: called with the split, the number of examples read and of all.
        **settings: for a folder: those of `open_folder`.

    Returns:
        The report.

    Raises:
        InputError: a setting does not fit, or there is no such folder.
    """
    check_count("stride", stride, at_least=1)
    if isinstance(data, str | os.PathLike):
        data = FolderDataset(data, **settings)
    elif settings:
        raise InputError(f"{', '.join(settings)} must go with a folder, not a data set")
    findings = [error_finding(problem) for problem in getattr(data, "problems", ())]
    images = ImageValues(getattr(data, "reading", AS_SHOWN))
    files: list[CheckedFile] = []
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
        for file, mask in itertools.zip_longest(image_files(source), masks):
            outlined = isinstance(mask, Annotations)
            images.add(
                file,
                drawn_on=mask.size if outlined else None,
                masked=isinstance(mask, pathlib.Path),
            )
        for i in range(len(source)):
            files.append(_check_example(source, i, split, stride, values, seen))
            if progress is not None:
                progress(split, i + 1, len(source))
    findings += images.findings
    if isinstance(data, FolderDataset) and data.masks == "instances":
        binary = same_value_problem(values, data.dir)
        if binary is not None:
            findings.append(error_finding(binary))
    if isinstance(data, FolderDataset):
        swapped = palette_problem(data)
        if swapped is not None:
            findings.append(error_finding(swapped))
        findings += _nothing_to_learn(files)
        findings += _not_read(sources)
    if None in values:  # where others have ids, one id is one instance
        files = [
            dataclasses.replace(
                f, findings=tuple(g for g in f.findings if g.kind != "binary")
            )
            for f in files
        ]
    layout = getattr(data, "layout", type(data).__name__)
    return Report(layout, stride, tuple(files), tuple(findings))


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

    areas = instance_areas(instances)
    number = int((areas > 0).sum())
    vanishing = int(vanishing_instances(instances, areas, stride).sum())
    void = float(np.mean(instances == VOID)) if instances.size else 0.0
    where = f"{name} ({split})"
    if not number:
        findings.append(Finding("warning", "no instances", f"{where} has no instances"))
    if vanishing:
        findings.append(
            Finding(
                "warning",
                "vanishing",
                f"{where}: {vanishing} of {number} instances vanish at stride {stride}",
            )
        )
    if void > _MOST_VOID:
        findings.append(
            Finding("warning", "void", f"{where}: {void:.0%} of its pixels are void")
        )
    image = np.ascontiguousarray(example["image"])
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).digest()
    other_split, other = seen.setdefault(digest, (split, name))
    if other_split != split:
        findings.append(
            Finding(
                "warning",
                "duplicate",
                f"{where} is the same image as {other} ({other_split})",
            )
        )
    return CheckedFile(
        split, name, instances.shape, number, vanishing, void, kind, tuple(findings)
    )


def _not_read(sources: Sequence[Any]) -> list[Finding]:
    """Warnings about images in sub-folders, which are not looked for."""
    pairs = [pair for source in sources for pair in source.pairs]
    folders = {p.image.parent for p in pairs if isinstance(p.mask, pathlib.Path)}
    found = []
    for folder in sorted(folders):
        for inner in sorted(folder.iterdir()):
            hidden = inner.name.startswith(".") or inner in folders
            number = 0 if hidden or not inner.is_dir() else len(images_in(inner))
            if number:
                message = (
                    f"{number} images in {inner} are not read: only those directly in "
                    f"{folder} are"
                )
                found.append(Finding("warning", "sub-folder", message))
    return found


def _nothing_to_learn(files: list[CheckedFile]) -> list[Finding]:
    """Errors about splits that no task can learn from, or be scored by."""
    found = []
    for split in SPLITS:
        usable = [f for f in files if f.split == split and f.size is not None]
        if not usable:
            continue
        many = f"all {len(usable)} of its masks are"
        if all(file.void == 1 for file in usable):
            lacks = f"have a pixel that counts, but {many} void"
        elif split == "train" and not any(file.instances for file in usable):
            lacks = f"have an instance to learn, but {many} background (0) or void"
        else:
            continue
        message = f"the {split} split must {lacks}"
        found.append(Finding("error", "no instances", message))
    return found


def _total(files: list[CheckedFile]) -> dict[str, Any]:
    usable = [file for file in files if file.size is not None]
    numbers = [file.instances for file in usable] or [0]
    sizes = collections.Counter(file.size for file in usable if file.size)
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    return {
        "images": len(files),
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
