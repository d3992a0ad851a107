"""Checks of a data set's labels against a task, before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sphemb._checks import VOID, InputError
from sphemb.tasks import LabelMap
from sphemb.training._experiment import BoundedLabels, Experiment

_LOOKED = 256  # examples that are read before training, if fewer do not decide
_ELSEWHERE = {
    "instances": "unlabelled images, and maps of classes alone, have no instances",
    "semantic": "config.data.name voc and coco have classes, and so has a folder with "
    "config.data.masks classes",
    "boundaries": "config.data.name bsds has boundaries",
}


def check_labels(experiment: Experiment, splits: Sequence[str]) -> None:
    """Refuses data that the task cannot learn from, or that cannot be scored."""
    task, names = experiment.task, experiment.class_names
    for one in task.label_maps:
        # Clusters may be matched with fewer classes; scores need a class per name.
        if one.below is None or not names:
            continue
        if len(names) > one.below or (one.learned and len(names) < one.below):
            raise InputError(
                f"config.task.{one.setting} must go with the {len(names)} classes of "
                f"config.data.name {experiment.config.data.name}, from 0 {names[0]} to "
                f"{len(names) - 1} {names[-1]}, but those of the task end at "
                f"{one.below - 1}"
            )
    for split in splits:
        maps = [m for m in task.label_maps if m.learned or split != "train"]
        limit = None if split == "train" else getattr(task, "object_limit", None)
        if maps or limit is not None:
            _check_split(experiment, split, maps, limit)


def _check_split(
    experiment: Experiment, split: str, maps: Sequence[LabelMap], limit: int | None
) -> None:
    config, source = experiment.config, experiment.source(split)
    data, task = config.data.name, f"config.task.name {config.task.name}"
    number = len(source) if split == "train" else config.evaluation[f"num_{split}"]
    indices: Sequence[int] = range(min(number, len(source)))
    if limit is not None:
        indices = experiment.usable(split, number)
    bounded, wanted = BoundedLabels(tuple(maps), data), {m.name for m in maps}
    unknown = not experiment.class_names and any(m.below is not None for m in maps)
    valid, above, looked = set[str](), set[str](), 0
    largest: dict[int, int] = {}  # number of an instance, by example
    # In random order, since similar examples may be neighbors.
    for place in np.random.default_rng(0).permutation(len(indices)):
        index, looked = indices[int(place)], looked + 1
        example = source[index]
        largest[index] = int(np.max(example.get("instances", 0), initial=0))
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
        if valid >= wanted and (split != "train" or above >= wanted):
            if not unknown or looked >= _LOOKED:
                break
        # Maps that are void so far are not read to the end; a rare object may come.
        elif not valid >= wanted and looked >= _LOOKED:
            break
    number = len(indices)
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
    if limit is None:
        return
    # Some sources read the instances alone, which is faster.
    read = getattr(source, "instances", lambda i: source[i].get("instances", 0))
    for index in set(indices) - set(largest):
        largest[index] = int(np.max(read(index), initial=0))
    most, index = max(((most, i) for i, most in largest.items()), default=(0, 0))
    if most > limit:
        raise InputError(
            f"config.task.max_objects must be at least {most}, the largest number of "
            f"an instance in the {split} split of config.data.name {data} (image "
            f"{source[index].get('name', index)}), got {limit}"
        )
