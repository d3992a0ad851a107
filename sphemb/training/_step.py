"""The state, the step and the optimizer: the only place that takes a gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax import lax

from sphemb._checks import VOID, InputTypeError, check_choice, check_count, check_number
from sphemb._tiles import vary
from sphemb.tasks import Batch, Maps, Task, TaskState

Network = Callable[[Any, Any, jax.Array, jax.Array | None], tuple[Maps, Any]]
"""(parameters, batch statistics, images, mask of valid pixels or None) -> (named maps,
next batch statistics)."""


@chex.dataclass(frozen=True, mappable_dataclass=False)
class TrainState:
    """The content of a checkpoint that an exact resume needs.

    ``step`` is int32, the number of steps taken; the key of a step is the run's key
    folded with it. ``batch_stats`` are the moments of batch normalization, or empty.
    """

    step: chex.Array
    params: optax.Params
    batch_stats: chex.ArrayTree
    opt_state: optax.OptState
    task_state: TaskState


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    task: Task,
    network: Network,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey,
) -> TrainStep:
    """Builds the pure step of one device: (state, its batch) -> (next state, scalars).

    It reduces with ``lax.pmean(..., "batch")``: map it over an axis of that name, by
    `data_parallel`, or by ``jax.shard_map`` over a sharded batch, whose ``check_vma``
    then finds that all results are replicated. The scalars are ``loss``; the task's
    ``loss/...`` terms; ``valid_share``, if the loss reads labels: the smallest share of
    valid pixels of a label map; ``gradient_norm``; and ``parameter_max``, the largest
    absolute value of the next parameters and statistics.

    Args:
        task: its loss is differentiated.
        network: see `Network`; its batch statistics must be equal on all devices.
        optimizer: turns gradients into updates.
        key: the run's; folded with the step for the task's random choices.
    """

    def step(state: TrainState, batch: Batch):
        image = batch["image"].dtype
        if not jnp.issubdtype(image, jnp.floating):
            raise InputTypeError(
                f"image of a batch must be floating point, got {image}: send compact "
                "batches by split_batch or spread_batch, which convert them"
            )

        def objective(params):
            batch_stats = state.batch_stats

            # A task may apply the network several times, but not within a
            # transformation of its own: the statistics could not leave it.
            def apply(image, mask=None):
                nonlocal batch_stats
                maps, batch_stats = network(params, batch_stats, image, mask)
                return maps

            step_key = jax.random.fold_in(key, state.step)
            loss, terms = task.loss(apply, state.task_state, batch, step_key)
            return loss, (terms, batch_stats)

        differentiated = jax.value_and_grad(objective, has_aux=True)
        # Otherwise `shard_map` would have added the devices' gradients up already.
        params = vary(state.params, "batch")
        (loss, (terms, batch_stats)), gradient = differentiated(params)
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
        changed = {"params": params, "batch_stats": batch_stats, "opt_state": opt_state}
        return dataclasses.replace(state, step=state.step + 1, **changed), scalars

    return step


def _valid_share(task: Task, batch: Batch) -> dict[str, jax.Array]:
    shares = [
        lax.pmean(jnp.mean(batch[one.name] != VOID, dtype=jnp.float32), "batch")
        for one in task.label_maps
        if one.learned
    ]
    return {"valid_share": jnp.min(jnp.stack(shares))} if shares else {}


def poly_schedule(
    learning_rate: float, num_steps: int, *, power: float = 0.9, warmup_steps: int = 0
) -> optax.Schedule:
    r"""The "poly" policy :math:`\lambda (1 - t/T)^p` after a linear warm-up.

    Args:
        learning_rate: :math:`\lambda`.
        num_steps: T, where the rate reaches zero.
        power: p, of Kong & Fowlkes, CVPR 2018, section 5.1.
        warmup_steps: steps in which the rate rises from near zero.

    >>> round(float(poly_schedule(1.0, 100, power=1.0)(25)), 6)
    0.75
    """
    check_number("learning_rate", learning_rate, above=0)
    check_count("num_steps", num_steps, at_least=1)
    check_number("power", power, at_least=0)
    check_count("warmup_steps", warmup_steps)
    poly = optax.polynomial_schedule(learning_rate, 0.0, power, num_steps)
    if not warmup_steps:
        return poly
    ramp = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
    return lambda step: poly(step) * ramp(step)


def make_optimizer(
    schedule: optax.Schedule,
    *,
    name: str,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
    backbone_rate: float = 1.0,
) -> optax.GradientTransformation:
    """An optimizer by name.

    Args:
        schedule: update -> learning rate.
        name: ``"sgd"`` with momentum, as in the paper, or ``"adamw"``.
        momentum: of SGD.
        weight_decay: added to the gradient by SGD, decoupled in AdamW.
        clip_norm: largest global norm of a gradient, None for no limit.
        accumulate: steps whose mean gradient makes one update.
        backbone_rate: factor of the learning rate for the parameters below
            ``backbone``, smaller than 1 for pretrained ones; 0 freezes them.
    """
    where = "config.optimizer"
    check_choice(f"{where}.name", name, ("sgd", "adamw"))
    check_number(f"{where}.weight_decay", weight_decay, at_least=0)
    check_number(f"{where}.momentum", momentum, at_least=0, below=1)
    check_count(f"{where}.accumulate", accumulate, at_least=1)
    check_number(f"{where}.backbone_rate", backbone_rate, at_least=0)
    clip = optax.identity()
    if clip_norm is not None:
        check_number(f"{where}.clip_norm", clip_norm, above=0)
        clip = optax.clip_by_global_norm(clip_norm)
    if name == "sgd":
        decay = optax.add_decayed_weights(weight_decay)
        update = optax.chain(clip, decay, optax.sgd(schedule, momentum=momentum))
    else:
        update = optax.chain(clip, optax.adamw(schedule, weight_decay=weight_decay))
    if backbone_rate != 1:
        slow = optax.masked(optax.scale(backbone_rate), _is_backbone)
        update = optax.chain(update, slow)
    if accumulate == 1:
        return update
    return optax.MultiSteps(update, accumulate).gradient_transformation()


def _is_backbone(params: Any) -> dict[str, bool]:
    return {name: name == "backbone" for name in params}
