"""From a configuration to its parts: data, network, task, optimiser."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

import sphemb.data
import sphemb.models
import sphemb.tasks
from sphemb._checks import InputError
from sphemb.tasks import Apply, Maps, Memory, Task
from sphemb.training._checkpoints import Checkpoints
from sphemb.training._components import call, component, entries, named
from sphemb.training._config import check_config
from sphemb.training._optimizers import make_optimizer, poly_schedule
from sphemb.training._state import TrainState, init_state
from sphemb.training._workdir import load_class_names, load_config

_PADDING = -1  # the index of what fills up a batch


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts that a configuration names, made when they are first asked for.

    Attributes:
        config: see ``configs/common.py`` for its sections.
        prepares: whether data sets may be prepared in a folder that it names.
    """

    config: ml_collections.ConfigDict
    prepares: bool = True

    def __post_init__(self):
        check_config(self.config)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network."""
        return component(sphemb.models, self.config.model, "config.model")

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        return component(sphemb.tasks, self.config.task, "config.task")

    @functools.cached_property
    def _dataset(self) -> Any:
        settings = entries(self.config.data)
        prepare = named(sphemb.data.DATASETS, settings.pop("name"), "config.data")
        reads = sphemb.data.only_prepared()
        with contextlib.nullcontext() if self.prepares else reads:
            return call(prepare, settings, "config.data")

    @functools.cached_property
    def schedule(self) -> optax.Schedule:
        """The learning rate of each update."""
        settings = self.config.optimizer
        updates = -(-self.config.train.num_steps // settings.accumulate)
        return poly_schedule(
            settings.learning_rate,
            updates,
            power=settings.power,
            warmup_steps=settings.warmup_steps,
        )

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser."""
        settings = self.config.optimizer
        return make_optimizer(
            self.schedule,
            name=settings.name,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
        )

    @property  # not kept: a trace may be what asks first, and its values end with it
    def keys(self) -> dict[str, jax.Array]:
        """The run's random keys, one for each use."""
        uses = ("params", "memory", "step", "refresh")
        keys = jax.random.split(jax.random.key(self.config.seed), len(uses))
        return dict(zip(uses, keys, strict=True))

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
        """Images of a training step, on all devices; one on each if not said."""
        return self.config.loader.batch_size or jax.device_count()

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
                f"{jax.device_count()}, got {self.batch_size}"
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
                transforms=self._augmentation,
                num_threads=self.config.loader.num_threads,
            )
        )

    @functools.cached_property
    def _augmentation(self) -> tuple[Any, ...]:
        settings = entries(self.config.augmentation)
        name = settings.pop("name")
        if not name:
            return ()
        augmentation = named(sphemb.data.AUGMENTATIONS, name, "config.augmentation")
        return (call(augmentation, settings, "config.augmentation"),)

    @property
    def refresh_every(self) -> int:
        """Steps between two refreshes of the task's memory, see `Task`."""
        every = self.task.refresh_every
        if every is None:
            return -(-len(self.source("train")) // self.batch_size)
        return every

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
        source = self.source(split)
        buckets = sphemb.data.size_buckets(
            source,
            indices,
            stride=self.model.stride,
            multiple=self.config.evaluation.size_multiple,
        )
        for size, chosen in buckets.items():
            yield from self._batches(
                source, chosen, batch_size, sphemb.data.PadExample(size)
            )

    def train_pass(self, number: int) -> Iterator[dict[str, Any]]:
        """One pass over this host's training images, for `Task.refresh`.

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
            return self._batches(self.source("train"), indices, size, *fixed)
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

    def network(self, params: Any, batch_stats: Any, image: jax.Array) -> Maps:
        """The network as a function of its variables, as it predicts."""
        variables = {"params": params, "batch_stats": batch_stats}
        maps: Any = self.model.apply(variables, image)
        return maps

    def bound(self, params: Any, batch_stats: Any) -> BoundNetwork:
        """The network with its parameters; it is compiled once for each size."""
        return BoundNetwork(params, batch_stats, self._compiled_network)

    @functools.cached_property
    def _compiled_network(self) -> Callable[..., Maps]:
        return jax.jit(self.network)

    def training_network(
        self, params: Any, batch_stats: Any, image: jax.Array
    ) -> tuple[Maps, Any]:
        """The network as it learns: with the next batch statistics."""
        variables = {"params": params, "batch_stats": batch_stats}
        maps: Any
        maps, updated = self.model.apply(
            variables, image, train=True, mutable=["batch_stats"]
        )
        return maps, updated.get("batch_stats", {})

    def init_state(self, variables: Any = None) -> TrainState:
        """The state at step 0, with new variables or given ones."""
        if variables is None:
            size = self.model.stride
            image = jnp.zeros((1, size, size, 3))
            variables = self.model.init(self.keys["params"], image)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return init_state(
            self.task,
            params,
            batch_stats,
            self.optimizer,
            self.keys["memory"],
            self.bound(params, batch_stats),
        )

    def start_state(self) -> TrainState:
        """The state that training starts from.

        That is the variables of the run ``config.train.init_from``; or new ones, with
        the backbone's of ``config.train.weights``, by their name or of a run; or new
        ones.

        Raises:
            InputError: the variables do not fit this network.
        """
        workdir, weights = self.config.train.init_from, self.config.train.weights
        if workdir:
            run = load_run(pathlib.Path(workdir))
            variables = {"params": run.params, "batch_stats": run.batch_stats}
            self._check_variables(variables, f"config.train.init_from {workdir}")
            return self.init_state(variables)
        state = self.init_state()
        if not weights:
            return state
        backbone = getattr(self.model, "backbone", None)
        if backbone is None:
            raise InputError(
                f"config.train.weights {weights} are those of a backbone, but "
                f"config.model.name {self.config.model.name} has none"
            )
        loaded = (
            _backbone_of(weights)
            if pathlib.Path(weights, "config.json").is_file()
            else sphemb.models.load_weights(weights, backbone=backbone)
        )
        variables = {
            name: {**getattr(state, name), "backbone": loaded[name]}
            for name in ("params", "batch_stats")
        }
        self._check_variables(variables, f"config.train.weights {weights}")
        return self.init_state(variables)

    def _check_variables(self, variables: Any, where: str) -> None:
        own = self.abstract_state
        wanted = {"params": own.params, "batch_stats": own.batch_stats}
        different = sorted(
            set(_leaf_shapes(variables).items()) ^ set(_leaf_shapes(wanted).items())
        )
        if different:
            name, shape = different[0]
            raise InputError(
                f"{where} must hold this network's parameters, but {len(different)} "
                f"differ, such as {name} {shape}: is config.model the same?"
            )

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state's shapes and dtypes."""
        return jax.eval_shape(self.init_state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundNetwork:
    """A network with its parameters: called with images, and a pytree to be kept.

    Attributes:
        params: the network's parameters.
        batch_stats: the moments of its batch normalisation.
        network: of parameters, moments and images; static.
    """

    params: Any
    batch_stats: Any
    network: Callable[..., Maps] = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array) -> Maps:
        """The maps of images [B, H, W, 3]."""
        return self.network(self.params, self.batch_stats, image)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to predict.

    Attributes:
        experiment: where it comes from.
        params: the network's parameters.
        memory: the task's.
        step: how long it was trained.
        batch_stats: the moments of the network's batch normalisation, if it has any.
        class_names: of the classes it learned, from 0 on, where the data set has some.
    """

    experiment: Experiment
    params: Any
    memory: Memory
    step: int
    batch_stats: Any = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @property
    def apply(self) -> Apply:
        """The network with its parameters bound."""
        return self.experiment.bound(self.params, self.batch_stats)


def load_run(workdir: str | pathlib.Path) -> Trained:
    """The newest checkpoint of a run.

    Args:
        workdir: the run's folder.

    Returns:
        The trained network.

    Raises:
        InputError: there is no run, or no checkpoint yet, or it is damaged.
    """
    workdir = pathlib.Path(workdir)
    # It may be somebody else's, and name folders that are none of its business.
    experiment = Experiment(load_config(workdir), prepares=False)
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder) if folder.is_dir() else None
    if checkpoints is None or checkpoints.latest is None:
        raise InputError(f"workdir {workdir} holds no checkpoint yet: train first")
    try:
        state, _ = checkpoints.restore(experiment.abstract_state)
    finally:
        checkpoints.close()
    return Trained(
        experiment,
        state.params,
        state.memory,
        int(state.step),
        state.batch_stats,
        load_class_names(workdir),
    )


def _backbone_of(workdir: str) -> dict[str, Any]:
    """The variables of the backbone of a run's network."""
    run = load_run(workdir)
    found = {"params": run.params, "batch_stats": run.batch_stats}
    if any("backbone" not in variables for variables in found.values()):
        raise InputError(
            f"config.train.weights {workdir} must be a run whose network has a "
            f"backbone, got one of {run.experiment.config.model.name}"
        )
    return {name: variables["backbone"] for name, variables in found.items()}


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


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
