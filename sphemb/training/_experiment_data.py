"""The data of a configuration: sources, endless batches, and passes over a split."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import ml_collections
import numpy as np

import sphemb.data
from sphemb._checks import InputError
from sphemb.tasks import Task
from sphemb.training._components import call, entries, named
from sphemb.training._labels import BoundedLabels

_PADDING = -1  # the index of what fills up a batch


@dataclasses.dataclass(frozen=True, eq=False)
class ExperimentData(abc.ABC):
    """The base of `Experiment`: where its images come from, and in which order.

    Attributes:
        config: see ``configs/common.py`` for its sections.
        prepares: whether data sets may be prepared in a folder that it names.
    """

    config: ml_collections.ConfigDict
    prepares: bool = True

    @property
    @abc.abstractmethod
    def stride(self) -> int:
        """What the sides of the network's images must be divisible by."""

    @property
    def multiple(self) -> int:
        """What images are padded to multiples of, wherever they are predicted whole.

        That is what the network needs and ``config.evaluation.size_multiple``, for few
        sizes. What the network says does not depend on it, see `padded_size`.
        """
        return math.lcm(self.stride, self.config.evaluation.size_multiple)

    @property
    @abc.abstractmethod
    def task(self) -> Task:
        """What reads the labels."""

    @functools.cached_property
    def _dataset(self) -> Any:
        settings = entries(self.config.data)
        prepare = named(sphemb.data.DATASETS, settings.pop("name"), "config.data")
        reads = sphemb.data.only_prepared()
        with contextlib.nullcontext() if self.prepares else reads:
            return call(prepare, settings, "config.data")

    @property
    def reading(self) -> sphemb.data.Reading:
        """What is read of image files, for training and prediction alike."""
        names = ("page", "intensity")
        settings = {n: self.config.data[n] for n in names if n in self.config.data}
        return sphemb.data.Reading(**settings)

    @property
    def measured_reading(self) -> sphemb.data.Reading:
        """The same, with intensity ``"range"`` measured in the training images."""
        return self._dataset.reading

    def source(self, split: str) -> sphemb.data.ExampleSource:
        """The examples of ``"train"``, ``"validation"`` or ``"test"``.

        With ``config.loader.skip_bad``, those that cannot be used are stood in for by
        the next that can.
        """
        if split not in self._sources:
            source = self._dataset.source(split)
            if self.config.loader.skip_bad:
                source = sphemb.data.SkippingSource(source)
            self._sources[split] = source
        return self._sources[split]

    @property
    def batch_size(self) -> int:
        """Images of a training step, on all devices."""
        on_each = self.config.loader.images_per_device
        return on_each * jax.device_count() or self.config.loader.batch_size

    @property
    def batch_scale(self) -> float:
        """Images of a step over those that the settings are stated for.

        Where it is not 1, lengths and intervals keep their number of images, and the
        learning rate is multiplied by it, the linear rule of Goyal et al. (2017).
        """
        return self.batch_size / self.config.loader.batch_size

    @functools.cached_property
    def num_steps(self) -> int:
        """Training steps, the last of which may show more images than were asked for.

        The images are those of ``config.train.num_epochs`` passes over the training
        split, or of ``config.train.num_steps`` batches of ``config.loader.batch_size``.
        """
        train = self.config.train
        if train.num_steps:
            return -(
                -train.num_steps * self.config.loader.batch_size // self.batch_size
            )
        steps = train.num_epochs * len(self.source("train")) / self.batch_size
        return max(1, math.ceil(round(steps, 6)))

    def times_due(self, every: int, step: int) -> int:
        """How often what is due every so many batches has been due after a step.

        Args:
            every: batches of ``config.loader.batch_size`` images; 0 for never.
            step: of `batch_size` images.
        """
        if not every:
            return 0
        return step * self.batch_size // (every * self.config.loader.batch_size)

    @property
    def skipped(self) -> list[str]:
        """What was wrong with the examples that could not be used, as far as met."""
        return [
            reason
            for source in self._sources.values()
            if isinstance(source, sphemb.data.SkippingSource)
            for reason in source.skipped.values()
        ]

    def names(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """What the training images of a batch are called."""
        source, there = self.source("train"), np.asarray(batch["valid"])
        return [str(source[int(i)]["name"]) for i in batch["index"][there]]

    @functools.cached_property
    def _sources(self) -> dict[str, sphemb.data.ExampleSource]:
        return {}

    def train_batches(self) -> grain.DatasetIterator:
        """This host's endless stream of training batches, shuffled and augmented."""
        if self.batch_size % jax.device_count():
            raise InputError(
                "config.loader.batch_size must be divisible by the number of devices, "
                f"{jax.device_count()}, got {self.batch_size}: with "
                "config.loader.images_per_device=1 the settings are carried over to "
                "one image on each"
            )
        hosts = jax.process_count()
        return iter(
            sphemb.data.make_loader(
                self.source("train"),
                batch_size=self.batch_size // hosts,
                seed=self.config.seed,
                shuffle=True,
                repeat=True,
                shard_index=jax.process_index(),
                shard_count=hosts,
                transforms=(*self._checks("train"), *self._augmentation),
                num_threads=self.config.loader.num_threads,
            )
        )

    def _checks(self, split: str) -> tuple[grain.transforms.Map, ...]:
        """What comes first of all that is done to an example of a split."""
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
        augmentation = named(sphemb.data.AUGMENTATIONS, name, "config.augmentation")
        return (call(augmentation, settings, "config.augmentation"),)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the data set's classes, from 0 on, where it has some."""
        return tuple(getattr(self.source("train"), "class_names", ()))

    def usable(self, split: str, number: int | None = None) -> list[int]:
        """The places of the first so many images of a split that can be used."""
        source = self.source(split)
        number = len(source) if number is None else number
        if isinstance(source, sphemb.data.SkippingSource):
            return source.usable(number)
        return list(range(min(number, len(source))))

    def one_pass(
        self, split: str, indices: list[int], *, batch_size: int
    ) -> Iterator[dict[str, Any]]:
        """One pass over this host's images of a split as they are, in order of size.

        Args:
            split: which.
            indices: places in the split of the images, for all hosts.
            batch_size: images of a batch on this host.

        Yields:
            Batches of images of one size each, the commonest first, padded to few
            sizes; ``index`` is the place in the split.
        """
        source, checks = self.source(split), self._checks(split)
        buckets = sphemb.data.size_buckets(source, indices, multiple=self.multiple)
        for size, chosen in buckets.items():
            pad = sphemb.data.PadExample(size)
            yield from self._batches(source, chosen, batch_size, *checks, pad)

    def train_pass(self, number: int) -> Iterator[dict[str, Any]]:
        """One pass over this host's training images, for `Task.update`.

        They come as they are; or as an augmentation makes them that leaves nothing to
        chance, and so makes them the same every time.

        Args:
            number: of the pass; the order goes by it.

        Returns:
            Batches as of `one_pass`.
        """
        order = np.random.default_rng([self.config.seed, number])
        indices = order.permutation(self.usable("train")).tolist()
        size = self.batch_size // jax.process_count()
        fixed = [a for a in self._augmentation if isinstance(a, grain.transforms.Map)]
        if fixed:
            steps = (*self._checks("train"), *fixed)
            return self._batches(self.source("train"), indices, size, *steps)
        return self.one_pass("train", indices, batch_size=size)

    def _batches(
        self,
        source: sphemb.data.ExampleSource,
        chosen: list[int],
        batch_size: int,
        *transforms: Any,
    ) -> Iterator[dict[str, Any]]:
        """This host's batches of some examples, with their places in the source."""
        loader = sphemb.data.make_loader(
            _Chosen(source, chosen),
            batch_size=batch_size,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            transforms=transforms,
            num_threads=self.config.loader.num_threads,
        )
        places = np.array([*chosen, _PADDING])
        for batch in loader:
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
