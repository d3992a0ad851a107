"""What training carries from step to step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sphemb.tasks import Apply, Task, TaskState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint must hold to go on exactly.

    There is no random key in it: each step's key is the run's key folded with `step`.

    Attributes:
        step: int32 scalar, the steps taken.
        params: the network's parameters.
        batch_stats: what the network keeps beside them, the moments of its batch
            normalisation; empty for a network without.
        opt_state: the optimiser's state.
        task_state: the task's, see `sphemb.tasks.Task`.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    task_state: TaskState


def init_state(
    task: Task,
    params: Any,
    batch_stats: Any,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    apply: Apply,
) -> TrainState:
    """The state at step 0."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        task_state=task.init(key, apply),
    )
