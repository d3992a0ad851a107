"""The data of a configuration: sources, batches, passes over a split, label checks."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import ml_collections
import numpy as np

import sphemb.data
from sphemb._checks import VOID, InputError
from sphemb.tasks import LabelMap, Task
from sphemb.training._components import call, entries, named

_PADDING = -1  # the index of an example that fills up a batch
_LOOKED = 256  # examples that are read before training, if fewer do not decide
_ELSEWHERE = {
    "instances": "unlabelled images, and maps of classes alone, have no instances",
    "semantic": "config.data.name voc and coco have classes, and so has a folder with "
    "config.data.masks classes",
    "boundaries": "config.data.name bsds has boundaries",
}


@dataclasses.dataclass(frozen=True, eq=False)
class ExperimentData(abc.ABC):
    """The base of `Experiment`: its images and their order."""

    config: ml_collections.ConfigDict
    prepares: bool = True

    @property
    @abc.abstractmethod
    def stride(self) -> int:
        """The sides of the network's images are multiples of it."""

    @property
    @abc.abstractmethod
    def task(self) -> Task:
        """The task, which reads the labels."""

    @property
    def multiple(self) -> int:
        """Whole images are padded to multiples of it; maps do not depend on it."""
        return math.lcm(self.stride, self.config.evaluation.size_multiple)

    @functools.cached_property
    def _dataset(self) -> Any:
        settings = entries(self.config.data)
        name, known = settings.pop("name"), sphemb.data.DATASETS
        prepare = named(known, name, "config.data", has=("source",))
        reads = sphemb.data.only_prepared()
        with contextlib.nullcontext() if self.prepares else reads:
            return call(prepare, settings, "config.data")

    @property
    def reading(self) -> sphemb.data.Reading:
        """How image files are read, in training and prediction."""
        names = ("page", "intensity")
        settings = {n: self.config.data[n] for n in names if n in self.config.data}
        return sphemb.data.Reading(**settings)

    @property
    def measured_reading(self) -> sphemb.data.Reading:
        """The same, with intensity ``"range"`` measured in the training images."""
        return self._dataset.reading

    @functools.cached_property
    def _sources(self) -> dict[str, sphemb.data.ExampleSource]:
        return {}

    def source(self, split: str) -> sphemb.data.ExampleSource:
        """The examples of ``"train"``, ``"validation"`` or ``"test"``."""
        if split not in self._sources:
            source = self._dataset.source(split)
            if self.config.loader.skip_bad:
                source = sphemb.data.SkippingSource(source)
            self._sources[split] = source
        return self._sources[split]

    def usable(self, split: str, number: int | None = None) -> list[int]:
        """The indices of the first ``number`` usable images of a split."""
        source = self.source(split)
        number = len(source) if number is None else number
        if isinstance(source, sphemb.data.SkippingSource):
            return source.usable(number)
        return list(range(min(number, len(source))))

    @property
    def skipped(self) -> list[str]:
        """What was wrong with the examples that were skipped so far."""
        return [
            reason
            for source in self._sources.values()
            if isinstance(source, sphemb.data.SkippingSource)
            for reason in source.skipped.values()
        ]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the data set's classes, from 0 on, if it has names."""
        return tuple(getattr(self.source("train"), "class_names", ()))

    def names(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """The names of the training images of a batch."""
        source, there = self.source("train"), np.asarray(batch["valid"])
        return [str(source[int(i)]["name"]) for i in batch["index"][there]]

    @property
    def batch_size(self) -> int:
        """Images of a training step, on all devices."""
        on_each = self.config.loader.images_per_device
        return on_each * jax.device_count() or self.config.loader.batch_size

    @property
    def batch_scale(self) -> float:
        """Images of a step over ``config.loader.batch_size``."""
        return self.batch_size / self.config.loader.batch_size

    @functools.cached_property
    def num_steps(self) -> int:
        """Training steps: those of ``config.train``, or those of its epochs."""
        train = self.config.train
        if train.num_steps:
            images = train.num_steps * self.config.loader.batch_size
            return -(-images // self.batch_size)
        steps = train.num_epochs * len(self.source("train")) / self.batch_size
        return max(1, math.ceil(round(steps, 6)))

    def times_due(self, every: int, step: int) -> int:
        """How often an action every so many batches has been due after a step."""
        if not every:
            return 0
        return step * self.batch_size // (every * self.config.loader.batch_size)

    def train_batches(self) -> grain.DatasetIterator:
        """This host's endless stream of training batches, shuffled and augmented."""
        if self.batch_size % jax.device_count():
            raise InputError(
                "config.loader.batch_size must be divisible by the number of devices, "
                f"{jax.device_count()}, got {self.batch_size}: with "
                "config.loader.images_per_device=1 the settings are carried over to "
                "one image on each"
            )
        return iter(
            self._loader(
                self.source("train"),
                self.batch_size // jax.process_count(),
                *self._label_checks("train"),
                *self._augmentation,
                seed=self.config.seed,
                shuffle=True,
                repeat=True,
            )
        )

    def _loader(
        self,
        source: sphemb.data.ExampleSource,
        batch_size: int,
        *transforms: Any,
        **settings: Any,
    ) -> Any:
        """This host's share of some examples, in batches."""
        return sphemb.data.make_loader(
            source,
            batch_size=batch_size,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            transforms=transforms,
            num_threads=self.config.loader.num_threads,
            **settings,
        )

    def _label_checks(self, split: str) -> tuple[grain.transforms.Map, ...]:
        """The first transformation of an example of a split."""
        maps = tuple(
            one
            for one in self.task.label_maps
            if one.below is not None and (one.learned or split != "train")
        )
        return (BoundedLabels(maps, self.config.data.name),) if maps else ()

    @functools.cached_property
    def _augmentation(self) -> tuple[Any, ...]:
        settings = entries(self.config.augmentation)
        name = settings.pop("name")
        if not name:
            return ()
        where, known = "config.augmentation", sphemb.data.AUGMENTATIONS
        augmentation = named(known, name, where, has=("map|random_map",))
        return (call(augmentation, settings, where),)

    def one_pass(
        self, split: str, indices: list[int], *, batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """One pass over this host's images of a split without augmentation."""
        source, checks = self.source(split), self._label_checks(split)
        buckets = sphemb.data.size_buckets(source, indices, multiple=self.multiple)
        for size, chosen in buckets.items():
            pad = sphemb.data.PadExample(size)
            yield from self._batches(source, chosen, batch_size, *checks, pad)

    def train_pass(self, number: int) -> Iterator[dict[str, Any]]:
        """Batches of one pass over this host's training images, for `Task.update`."""
        order = np.random.default_rng([self.config.seed, number])
        indices = order.permutation(self.usable("train")).tolist()
        size = self.batch_size // jax.process_count()
        fixed = [a for a in self._augmentation if isinstance(a, grain.transforms.Map)]
        if fixed:
            steps = (*self._label_checks("train"), *fixed)
            return self._batches(self.source("train"), indices, size, *steps)
        return self.one_pass("train", indices, batch_size=size)

    def _batches(
        self,
        source: sphemb.data.ExampleSource,
        chosen: list[int],
        batch_size: int,
        *transforms: Any,
    ) -> Iterator[dict[str, Any]]:
        """This host's batches of some examples, with their indices in the source."""
        places = np.array([*chosen, _PADDING])
        for batch in self._loader(_Chosen(source, chosen), batch_size, *transforms):
            yield {**batch, "index": places[batch["index"]]}


class _Chosen:
    """Some examples of a source."""

    def __init__(self, source: sphemb.data.ExampleSource, indices: list[int]):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[self._indices[index]]

    def size(self, index: int) -> tuple[int, int]:
        return self._source.size(self._indices[index])


@dataclasses.dataclass(frozen=True)
class BoundedLabels(grain.transforms.Map):
    """Refuses an example with a label outside the task's classes."""

    maps: tuple[LabelMap, ...]
    data: str

    # Grain declares its base method without a result.
    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the example unchanged."""
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


def check_labels(experiment: ExperimentData, splits: Sequence[str]) -> None:
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
    experiment: ExperimentData, split: str, maps: Sequence[LabelMap], limit: int | None
) -> None:
    config, source = experiment.config, experiment.source(split)
    data, task = config.data.name, f"config.task.name {config.task.name}"
    number = len(source) if split == "train" else config.evaluation[f"num_{split}"]
    indices: Sequence[int] = range(min(number, len(source)))
    if limit is not None:
        indices = experiment.usable(split, number)
    bounded, wanted = BoundedLabels(tuple(maps), data), {m.name for m in maps}
    unknown = not experiment.class_names and any(m.below is not None for m in maps)
    valid, above, most = set[str](), set[str](), (0, 0)
    looked, decided = 0, not maps
    # In random order, since similar examples may be neighbors.
    for place in np.random.default_rng(0).permutation(len(indices)):
        index = indices[int(place)]
        if decided:  # the rest is read for the number of objects alone
            labels = (
                source.instances(index)
                if hasattr(source, "instances")
                else source[index].get("instances", 0)
            )
            most = max(most, (int(np.max(labels, initial=0)), index))
            continue
        example, looked = source[index], looked + 1
        bounded.map(example)
        if limit is not None:
            most = max(
                most, (int(np.max(example.get("instances", 0), initial=0)), index)
            )
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
            decided = not unknown or looked >= _LOOKED
            if decided and limit is None:
                return
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
    if limit is not None and most[0] > limit:
        name = source[most[1]].get("name", most[1])
        raise InputError(
            f"config.task.max_objects must be at least {most[0]}, the largest number "
            f"of an instance in the {split} split of config.data.name {data} (image "
            f"{name}), got {limit}"
        )
