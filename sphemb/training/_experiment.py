"""From a configuration, or a run's folder, to its parts: network, task, state."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import sphemb.models
import sphemb.tasks
from sphemb._checks import InputError
from sphemb.tasks import Apply, Batch, Maps, Task, TaskState
from sphemb.training._checkpoints import newest_state
from sphemb.training._components import call, check_config, component, entries
from sphemb.training._experiment_data import ExperimentData
from sphemb.training._step import (
    TrainState,
    make_optimizer,
    make_train_step,
    poly_schedule,
)
from sphemb.training._workdir import load_class_names, load_config


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundNetwork:
    """A network with its parameters: a function of images that is also a pytree."""

    params: optax.Params
    batch_stats: chex.ArrayTree
    network: Callable[..., Maps] = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array, mask: jax.Array | None = None) -> Maps:
        """The maps of images [B, H, W, 3], with a mask [B, H, W] if they are padded."""
        return self.network(self.params, self.batch_stats, image, mask)


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment(ExperimentData):
    """The parts that a configuration names, each created at its first use.

    Attributes:
        config: see ``configs/common.py`` for its sections.
        prepares: whether data sets may be prepared in a folder that it names.
    """

    def __post_init__(self):
        check_config(self.config)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network."""
        has = ("init", "apply")
        return component(sphemb.models, self.config.model, "config.model", has=has)

    @property
    def stride(self) -> int:
        """The sides of the network's images are multiples of it."""
        return self.model.stride

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        has = ("prediction", "loss", "predict", "metrics")
        return component(sphemb.tasks, self.config.task, "config.task", has=has)

    @functools.cached_property
    def schedule(self) -> optax.Schedule:
        """The learning rate of an update."""
        settings = self.config.optimizer
        return poly_schedule(
            settings.learning_rate * self.batch_scale,
            -(-self.num_steps // settings.accumulate),
            power=settings.power,
            warmup_steps=math.ceil(settings.warmup_steps / self.batch_scale),
        )

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer."""
        settings = entries(self.config.optimizer)
        for name in ("learning_rate", "power", "warmup_steps"):
            del settings[name]  # the schedule's
        # Its length needs the data, without which a run is loaded: at its first use.
        make = functools.partial(make_optimizer, lambda update: self.schedule(update))
        return call(make, settings, "config.optimizer")

    @property  # not cached: the first use may be within a trace
    def keys(self) -> dict[str, chex.PRNGKey]:
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
        params: optax.Params,
        batch_stats: chex.ArrayTree,
        image: jax.Array,
        mask: jax.Array | None = None,
    ) -> Maps:
        """The network as a function of its variables, for prediction.

        Args:
            params: its parameters.
            batch_stats: the moments of its batch normalization.
            image: [B, H, W, 3].
            mask: [B, H, W], False where pixels are padding, see `models.apply_masked`.
        """
        variables = {"params": params, "batch_stats": batch_stats}
        return sphemb.models.apply_masked(self.model, variables, image, mask)

    def bound(self, params: optax.Params, batch_stats: chex.ArrayTree) -> BoundNetwork:
        """The network with its parameters; it is compiled once for each size."""
        return BoundNetwork(params, batch_stats, self._compiled_network)

    @functools.cached_property
    def _compiled_network(self) -> Callable[..., Maps]:
        return jax.jit(self.network)

    def training_network(
        self,
        params: optax.Params,
        batch_stats: chex.ArrayTree,
        image: jax.Array,
        mask: jax.Array | None = None,
    ) -> tuple[Maps, Any]:
        """The network in training: maps, and the next batch statistics."""
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
        apply = self.bound(params, batch_stats)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=self.optimizer.init(params),
            task_state=self.task.init(self.keys["task_state"], apply),
        )

    def start_state(self) -> TrainState:
        """The state that training starts from.

        Its variables are those of the run ``config.train.init_from``, or new with the
        backbone of ``config.train.weights``, a file's, a name's or a run's.
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
            if any("backbone" not in part for part in found.values()):
                raise InputError(
                    f"{where} must be a run whose network has a backbone, got one of "
                    f"{network}"
                )
            loaded = {name: part["backbone"] for name, part in found.items()}
        else:
            loaded = sphemb.models.load_weights(weights, backbone=backbone)
        variables = {
            name: {**part, "backbone": loaded[name]}
            for name, part in _variables(state).items()
        }
        return self._state_with(variables, where)

    def _state_with(self, variables: Any, where: str) -> TrainState:
        found, wanted = map(_shapes, (variables, _variables(self.abstract_state)))
        if different := sorted(found ^ wanted):
            name, shape = different[0]
            raise InputError(
                f"{where} must hold this network's parameters, but {len(different)} "
                f"differ, such as {name} {shape}: is config.model the same?"
            )
        return self.init_state(variables)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state's shapes and dtypes."""
        return jax.eval_shape(self.init_state)


def _variables(state: TrainState) -> dict[str, Any]:
    """The variables of a state as Flax names them."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def _shapes(tree: Any) -> set[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves}


def _run_variables(workdir: str) -> tuple[str, dict[str, Any]]:
    """The name of a run's network, and the variables of its newest checkpoint."""
    folder = pathlib.Path(workdir)
    experiment = Experiment(load_config(folder))
    state = newest_state(folder, experiment.abstract_state)
    return experiment.config.model.name, _variables(state)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to predict.

    Attributes:
        experiment: its configuration.
        params: the network's parameters.
        task_state: the task's.
        step: number of training steps.
        batch_stats: the moments of the network's batch normalization, if it has any.
        class_names: of the learned classes, from 0 on, where the data set has names.
    """

    experiment: Experiment
    params: optax.Params
    task_state: TaskState
    step: int
    batch_stats: chex.ArrayTree = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, experiment: Experiment, state: TrainState, class_names: tuple[str, ...]
    ) -> Trained:
        """The network of a state."""
        return cls(
            experiment,
            state.params,
            state.task_state,
            int(state.step),
            state.batch_stats,
            class_names,
        )

    @property
    def apply(self) -> Apply:
        """The network with its parameters bound."""
        return self.experiment.bound(self.params, self.batch_stats)


def load_run(workdir: str | pathlib.Path) -> Trained:
    """The newest checkpoint of a run; `InputError` if its folder has none to read."""
    workdir = pathlib.Path(workdir)
    # The run of another person may name folders that it must not write to.
    experiment = Experiment(load_config(workdir), prepares=False)
    state = newest_state(workdir, experiment.abstract_state)
    return Trained.of(experiment, state, load_class_names(workdir))
