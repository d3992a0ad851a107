"""From a configuration to its parts: data, network, task, optimiser."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import ml_collections
import optax

import sphemb.data
import sphemb.models
import sphemb.tasks
from sphemb._checks import InputError
from sphemb.tasks import Apply, Maps, Memory, Task
from sphemb.training._checkpoints import Checkpoints
from sphemb.training._config import check_config
from sphemb.training._optimizers import make_optimizer, poly_schedule
from sphemb.training._state import TrainState, init_state
from sphemb.training._workdir import load_config


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts that a configuration names, made when they are first asked for.

    Attributes:
        config: see ``configs/common.py`` for its sections.
    """

    config: ml_collections.ConfigDict

    def __post_init__(self):
        check_config(self.config)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network."""
        return _component(sphemb.models, self.config.model, "config.model")

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        return _component(sphemb.tasks, self.config.task, "config.task")

    @functools.cached_property
    def _dataset(self) -> Any:
        settings = _settings(self.config.data)
        name = settings.pop("name")
        if name not in sphemb.data.DATASETS:
            known = ", ".join(sphemb.data.DATASETS)
            raise InputError(f"config.data.name must be one of {known}, got {name!r}")
        prepare = sphemb.data.DATASETS[name]
        return _call(prepare, settings, "config.data")

    @functools.cached_property
    def schedule(self) -> optax.Schedule:
        """The learning rate of each step."""
        settings = self.config.optimizer
        return poly_schedule(
            settings.learning_rate,
            self.config.train.num_steps,
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
        )

    @property  # not kept: a trace may be what asks first, and its values end with it
    def keys(self) -> dict[str, jax.Array]:
        """The run's random keys, one for each use."""
        uses = ("params", "memory", "step", "refresh")
        keys = jax.random.split(jax.random.key(self.config.seed), len(uses))
        return dict(zip(uses, keys, strict=True))

    def source(self, split: str) -> sphemb.data.ExampleSource:
        """The examples of ``"train"``, ``"validation"`` or ``"test"``."""
        return sphemb.data.BuilderExamples(self._dataset, split)

    def train_batches(self) -> grain.DatasetIterator:
        """This host's endless stream of training batches, shuffled and augmented."""
        name = self.config.loader.augmentation
        if name and name not in sphemb.data.AUGMENTATIONS:
            raise InputError(
                "config.loader.augmentation must be one of "
                f"{', '.join(sphemb.data.AUGMENTATIONS)}, got {name!r}"
            )
        transforms = (sphemb.data.AUGMENTATIONS[name](),) if name else ()
        return iter(
            self._train_loader(shuffle=True, repeat=True, transforms=transforms)
        )

    def train_pass(self) -> grain.DatasetIterator:
        """One pass over this host's training images as they are, for `Task.refresh`."""
        return iter(self._train_loader())

    def _train_loader(self, **settings: Any) -> grain.IterDataset:
        loader = self.config.loader
        hosts = jax.process_count()
        if loader.batch_size % jax.device_count():
            raise InputError(
                "config.loader.batch_size must be divisible by the number of devices, "
                f"{jax.device_count()}, got {loader.batch_size}"
            )
        return sphemb.data.make_loader(
            self.source("train"),
            batch_size=loader.batch_size // hosts,
            seed=self.config.seed,
            shard_index=jax.process_index(),
            shard_count=hosts,
            num_threads=loader.num_threads,
            **settings,
        )

    def network(self, params: Any, image: jax.Array) -> Maps:
        """The network as a function of its parameters."""
        maps: Any = self.model.apply({"params": params}, image)
        return maps

    def init_state(self, params: Any = None) -> TrainState:
        """The state at step 0, with new parameters or given ones."""
        if params is None:
            size = self.model.stride
            image = jnp.zeros((1, size, size, 3))
            params = self.model.init(self.keys["params"], image)["params"]
        return init_state(self.task, params, self.optimizer, self.keys["memory"])

    def start_state(self) -> TrainState:
        """The state that training starts from: ``config.train.init_from``, if given.

        Raises:
            InputError: the parameters of that run do not fit this network.
        """
        workdir = self.config.train.init_from
        if not workdir:
            return self.init_state()
        params = load_run(pathlib.Path(workdir)).params
        different = sorted(
            set(_leaf_shapes(params).items())
            ^ set(_leaf_shapes(self.abstract_state.params).items())
        )
        if different:
            name, shape = different[0]
            raise InputError(
                f"config.train.init_from {workdir} must hold this network's parameters,"
                f" but {len(different)} differ, such as {name} {shape}: is "
                "config.model the same?"
            )
        return self.init_state(params)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state's shapes and dtypes."""
        return jax.eval_shape(self.init_state)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to predict.

    Attributes:
        experiment: where it comes from.
        params: the network's parameters.
        memory: the task's.
        step: how long it was trained.
    """

    experiment: Experiment
    params: Any
    memory: Memory
    step: int

    @property
    def apply(self) -> Apply:
        """The network with its parameters bound."""
        return functools.partial(self.experiment.network, self.params)


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
    experiment = Experiment(load_config(workdir))
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder) if folder.is_dir() else None
    if checkpoints is None or checkpoints.latest is None:
        raise InputError(f"workdir {workdir} holds no checkpoint yet: train first")
    try:
        state = checkpoints.restore(experiment.abstract_state)
    finally:
        checkpoints.close()
    return Trained(experiment, state.params, state.memory, int(state.step))


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def _component(room: Any, section: Mapping[str, Any], where: str) -> Any:
    """An object of the class that a section names, with the rest as settings."""
    settings = _settings(section)
    name = settings.pop("name")
    known = [n for n in room.__all__ if inspect.isclass(getattr(room, n))]
    if name not in known:
        raise InputError(
            f"{where}.name must be a class of {room.__name__} ({', '.join(known)}), "
            f"got {name!r}"
        )
    return _call(getattr(room, name), settings, where)


def _call(factory: Callable[..., Any], settings: dict[str, Any], where: str) -> Any:
    known = inspect.signature(factory).parameters
    for key in settings:
        if key not in known:
            raise InputError(
                f"unknown config key {where}.{key}: it must be one of "
                f"{', '.join(k for k in known if k not in ('parent', 'kwargs'))}"
            )
    return factory(**settings)


def _settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section's entries; JSON knows no tuples, settings must be hashable."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
