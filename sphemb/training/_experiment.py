"""From a configuration to its parts: network, task, optimiser, and the first state."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import sphemb.models
import sphemb.tasks
from sphemb._checks import InputError
from sphemb.tasks import Batch, Maps, Task
from sphemb.training._bound_network import BoundNetwork
from sphemb.training._checkpoints import newest_state
from sphemb.training._components import call, component, entries
from sphemb.training._config import check_config
from sphemb.training._experiment_data import ExperimentData
from sphemb.training._optimizers import make_optimizer, poly_schedule
from sphemb.training._state import TrainState, init_state
from sphemb.training._step import make_train_step
from sphemb.training._variables import (
    backbone_of,
    check_variables,
    variables_of,
    with_backbone,
)
from sphemb.training._workdir import load_config


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment(ExperimentData):
    """The parts that a configuration names, made when they are first asked for.

    Attributes:
        config: see ``configs/common.py`` for its sections.
        prepares: whether data sets may be prepared in a folder that it names.
    """

    def __post_init__(self):
        check_config(self.config)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network."""
        known = _classes(sphemb.models, lambda kind: issubclass(kind, nn.Module))
        return component(known, self.config.model, "config.model")

    @property
    def stride(self) -> int:
        """What the sides of the network's images must be divisible by."""
        return self.model.stride

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        known = _classes(sphemb.tasks, lambda kind: hasattr(kind, "prediction"))
        return component(known, self.config.task, "config.task")

    def schedule(self, update: Any) -> Any:
        """The learning rate of an update, which may be an array."""
        return self._schedule(update)

    @functools.cached_property  # by its first update: to load a run needs no data
    def _schedule(self) -> optax.Schedule:
        settings = self.config.optimizer
        return poly_schedule(
            settings.learning_rate * self.batch_scale,
            -(-self.num_steps // settings.accumulate),
            power=settings.power,
            warmup_steps=math.ceil(settings.warmup_steps / self.batch_scale),
        )

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser."""
        settings = entries(self.config.optimizer)
        for name in ("learning_rate", "power", "warmup_steps"):
            del settings[name]  # the schedule's
        make = functools.partial(make_optimizer, self.schedule)
        return call(make, settings, "config.optimizer")

    @property  # not kept: a trace may be what asks first, and its values end with it
    def keys(self) -> dict[str, jax.Array]:
        """The run's random keys, one for each use."""
        uses = ("params", "task_state", "step", "update")
        keys = jax.random.split(jax.random.key(self.config.seed), len(uses))
        return dict(zip(uses, keys, strict=True))

    @property
    def train_step(
        self,
    ) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
        """The step of one device, see `make_train_step`."""
        return make_train_step(
            self.task, self.training_network, self.optimizer, self.keys["step"]
        )

    @property
    def update_every(self) -> int:
        """Steps between two updates of the task's state, see `Task`."""
        every = self.task.update_every
        if every is None:
            return -(-len(self.source("train")) // self.batch_size)
        return max(1, math.ceil(every / self.batch_scale)) if every > 0 else every

    def network(
        self,
        params: Any,
        batch_stats: Any,
        image: jax.Array,
        mask: jax.Array | None = None,
    ) -> Maps:
        """The network as a function of its variables, as it predicts.

        Args:
            params: its parameters.
            batch_stats: the moments of its batch normalisation.
            image: [B, H, W, 3].
            mask: [B, H, W], False where pixels are padding, which changes nothing, see
                `sphemb.models.apply_masked`.
        """
        variables = {"params": params, "batch_stats": batch_stats}
        return sphemb.models.apply_masked(self.model, variables, image, mask)

    def bound(self, params: Any, batch_stats: Any) -> BoundNetwork:
        """The network with its parameters; it is compiled once for each size."""
        return BoundNetwork(params, batch_stats, self._compiled_network)

    @functools.cached_property
    def _compiled_network(self) -> Callable[..., Maps]:
        return jax.jit(self.network)

    def training_network(
        self,
        params: Any,
        batch_stats: Any,
        image: jax.Array,
        mask: jax.Array | None = None,
    ) -> tuple[Maps, Any]:
        """The network as it learns: with the next batch statistics."""
        variables = {"params": params, "batch_stats": batch_stats}
        maps, updated = sphemb.models.apply_masked(
            self.model, variables, image, mask, train=True, mutable=["batch_stats"]
        )
        return maps, updated.get("batch_stats", {})

    def init_state(self, variables: Any = None) -> TrainState:
        """The state at step 0, with new variables or given ones."""
        if variables is None:
            image = jnp.zeros((1, self.stride, self.stride, 3))
            variables = self.model.init(self.keys["params"], image)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return init_state(
            self.task,
            params,
            batch_stats,
            self.optimizer,
            self.keys["task_state"],
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
            _, variables = _run_variables(workdir)
            return self._state_with(variables, f"config.train.init_from {workdir}")
        state = self.init_state()
        if not weights:
            return state
        where = f"config.train.weights {weights}"
        backbone = getattr(self.model, "backbone", None)
        if backbone is None:
            raise InputError(
                f"{where} are those of a backbone, but config.model.name "
                f"{self.config.model.name} has none"
            )
        if pathlib.Path(weights, "config.json").is_file():
            network, found = _run_variables(weights)
            loaded = backbone_of(found, where=where, network=network)
        else:
            loaded = sphemb.models.load_weights(weights, backbone=backbone)
        return self._state_with(with_backbone(variables_of(state), loaded), where)

    def _state_with(self, variables: Any, where: str) -> TrainState:
        check_variables(variables, variables_of(self.abstract_state), where)
        return self.init_state(variables)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state's shapes and dtypes."""
        return jax.eval_shape(self.init_state)


def _classes(package: Any, keeps: Callable[[type], bool]) -> dict[str, type]:
    """The public classes of a package that a configuration may name."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {n: c for n, c in found.items() if inspect.isclass(c) and keeps(c)}


def _run_variables(workdir: str) -> tuple[str, dict[str, Any]]:
    """The name of a run's network, and the variables of its newest checkpoint."""
    folder = pathlib.Path(workdir)
    experiment = Experiment(load_config(folder))
    state = newest_state(folder, experiment.abstract_state)
    return experiment.config.model.name, variables_of(state)
