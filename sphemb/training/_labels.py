"""Whether the labels of a data set are those that a task can learn from.

Values cannot be refused under `jax.jit`, and a loss of void pixels alone is 0: what is
wrong with labels is looked for on the host, before training and as examples are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.tasks import LabelMap

_LOOKED = 256  # examples that are read before training, unless one tells enough
_ELSEWHERE = {
    "instances": "unlabelled images, and maps of classes alone, have no instances",
    "semantic": "config.data.name voc and coco have classes, and so has a folder with "
    "config.data.masks classes",
    "boundaries": "config.data.name bsds has boundaries",
}


@dataclasses.dataclass(frozen=True)
class BoundedLabels(grain.transforms.Map):
    """Refuses an example with a label that the task has no class for.

    Attributes:
        maps: that have a bound.
        data: what the data set is called.
    """

    maps: tuple[LabelMap, ...]
    data: str

    # Grain declares its base method without a result.
    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Checks an example, and returns it as it is.

        Raises:
            InputError: a label is as large as the bound, or larger.
        """
        for one in self.maps:
            if one.below is None or one.name not in element:
                continue
            high = int(np.max(element[one.name], initial=VOID))
            if high >= one.below:
                raise InputError(
                    f"{one.name} of example {element.get('name', '')!r} of "
                    f"config.data.name {self.data} must be -1 (void) or one of the "
                    f"classes 0 to {one.below - 1} that config.task.{one.setting} "
                    f"gives, got {high}: raise config.task.{one.setting}"
                )
        return element


def check_labels(experiment: Any, splits: Sequence[str]) -> None:
    """Refuses data that the task cannot learn from, or be scored by.

    Args:
        experiment: with ``task``, ``config``, ``class_names`` and ``source(split)``.
        splits: that are learned from (``"train"``) or scored.

    Raises:
        InputError: the data have other classes than the task, lack a label map that it
            reads, or have no pixel that counts; or there is no object to learn from.
    """
    maps = experiment.task.label_maps
    _check_names(experiment)
    for split in splits:
        read = [m for m in maps if m.learned or split != "train"]
        if read:
            _check_split(experiment, split, read)


def _check_names(experiment: Any) -> None:
    names = experiment.class_names
    for one in experiment.task.label_maps:
        if one.below is None or not names:
            continue
        # Scores are named after the classes; those that clusters are matched with are
        # counted alone.
        if len(names) > one.below or (one.learned and len(names) < one.below):
            raise InputError(
                f"config.task.{one.setting} must go with the {len(names)} classes of "
                f"config.data.name {experiment.config.data.name}, from 0 {names[0]} to "
                f"{len(names) - 1} {names[-1]}, but those of the task end at "
                f"{one.below - 1}"
            )


def _check_split(experiment: Any, split: str, maps: Sequence[LabelMap]) -> None:
    data, source = experiment.config.data.name, experiment.source(split)
    number = len(source)
    if split != "train":
        number = min(number, experiment.config.evaluation[f"num_{split}"])
    task = f"config.task.name {experiment.config.task.name}"
    bounded = BoundedLabels(tuple(maps), data)
    unknown = not experiment.class_names and any(m.below is not None for m in maps)
    valid, above = set[str](), set[str]()
    looked = 0
    for example in _spread(source, number):
        looked += 1
        bounded.map(example)
        for one in maps:
            if one.name in example:
                labels = np.asarray(example[one.name])
                valid |= {one.name} if (labels != VOID).any() else set()
                above |= {one.name} if (labels > 0).any() else set()
            elif one.needed:
                raise InputError(
                    f"{task} needs {one.name}, but the examples of config.data.name "
                    f"{data} have none: {_ELSEWHERE.get(one.name, '')}"
                )
            else:
                valid.add(one.name)
        wanted = {m.name for m in maps}
        if valid >= wanted and (split != "train" or above >= wanted):
            if not unknown or looked >= _LOOKED:
                return
        # What is void everywhere so far is not read to its end; a rare object may come.
        elif not valid >= wanted and looked >= _LOOKED:
            break
    every = f"all {looked} examples" if looked == number else f"{looked} of {number}"
    for one in maps:
        if one.name not in valid:
            raise InputError(
                f"{task} finds no valid pixel in the {split} split of config.data.name "
                f"{data}: {one.name} is void everywhere in {every} that were looked "
                f"at: {_ELSEWHERE.get(one.name, '')}"
            )
        if split == "train" and one.name not in above:
            raise InputError(
                f"{task} finds nothing to learn in the train split of config.data.name "
                f"{data}: {one.name} is background (0) or void everywhere in {every}"
            )


def _spread(source: Any, number: int) -> Iterator[dict[str, Any]]:
    """The first so many examples in an order that begins anywhere among them."""
    for index in np.random.default_rng(0).permutation(number):
        yield source[int(index)]
