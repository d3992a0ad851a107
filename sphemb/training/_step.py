"""The training step: the only place that differentiates a task's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sphemb._labels import VOID
from sphemb.tasks import Batch, Maps, Task
from sphemb.training._state import TrainState

Network = Callable[[Any, Any, jax.Array, jax.Array | None], tuple[Maps, Any]]
"""(parameters, batch statistics, images, mask of valid pixels or None) -> (named maps,
next batch statistics)."""


def make_train_step(
    task: Task,
    network: Network,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the pure step of one device.

    It reduces with ``lax.pmean(..., "batch")``, so it must run where an axis of that
    name is mapped: under `data_parallel`, or under ``jax.shard_map``.

    Args:
        task: gives the loss.
        network: is given the parameters and the batch statistics. What it returns of
            the latter must be the same on all devices.
        optimizer: turns gradients into updates.
        key: the run's; folded with the step for the task's draws.

    Returns:
        (state, the device's batch) -> (next state, scalars: ``loss``, the task's
        ``loss/...`` terms; ``valid_share``, if the loss reads labels, the share of the
        batch's pixels that are not void, in the label map where fewest are;
        ``gradient_norm`` and, of the next state, ``parameter_max``, the largest of its
        parameters and statistics by absolute value).
    """

    def step(state: TrainState, batch: Batch):
        def objective(params):
            batch_stats = state.batch_stats

            # A task may look at several images one after the other, but not under a
            # transformation of its own, out of which the statistics would not come.
            def apply(image, mask=None):
                nonlocal batch_stats
                maps, batch_stats = network(params, batch_stats, image, mask)
                return maps

            loss, terms = task.loss(
                apply, state.task_state, batch, jax.random.fold_in(key, state.step)
            )
            return loss, (terms, batch_stats)

        (loss, (terms, batch_stats)), gradient = jax.value_and_grad(
            objective, has_aux=True
        )(state.params)
        loss, terms, gradient = lax.pmean((loss, terms, gradient), "batch")
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        scalars = {
            "loss": loss,
            **terms,
            **_valid_share(task, batch),
            "gradient_norm": optax.tree.norm(gradient),
            # An update can overflow where loss and gradient do not.
            "parameter_max": optax.tree.norm((params, batch_stats), ord="inf"),
        }
        next_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            task_state=state.task_state,
        )
        return next_state, scalars

    return step


def _valid_share(task: Task, batch: Batch) -> dict[str, jax.Array]:
    """The smallest share of valid pixels, of all devices, if the loss reads labels."""
    shares = [
        lax.pmean(jnp.mean(batch[one.name] != VOID, dtype=jnp.float32), "batch")
        for one in task.label_maps
        if one.learned
    ]
    return {"valid_share": jnp.min(jnp.stack(shares))} if shares else {}
