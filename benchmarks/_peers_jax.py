"""sphemb, and what a JAX user would write without it.

The dense forms take the full float32 precision too, and know that the cosine of unit
rows is at most 1: they need no running maximum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sphemb
from benchmarks._cases import FORWARD, GRADIENT, GROUPING, LOSS, Case, Inputs
from benchmarks._peers import OURS, Peer, Program

_ROWS = 1024
_MOST_GROUPS = 32
_SAMPLE, _SEEDS = 4096, 1024

MOST_EXACT = 16_384  # beyond, the exact grouping takes minutes

_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _ours(x: Any, kappa: Any, eta: Any, num_steps: int) -> jax.Array:
    return sphemb.gbms(x, concentration=kappa, step_size=eta, num_steps=num_steps)


def _naive_step(x: jax.Array, kappa: jax.Array, eta: jax.Array) -> jax.Array:
    kernel = jnp.exp(kappa * (_matmul(x, x.T) - 1.0))
    mean = _matmul(kernel, x) / jnp.sum(kernel, axis=1, keepdims=True)
    moved = (1.0 - eta) * x + eta * mean
    return moved / jnp.linalg.norm(moved, axis=1, keepdims=True)


def _scan(step: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def move(x: Any, kappa: Any, eta: Any, num_steps: int) -> jax.Array:
        def body(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return step(x, kappa, eta), None

        return jax.lax.scan(body, x, None, length=num_steps)[0]

    return move


_NAIVE = _scan(_naive_step)
_CHECKPOINTED = _scan(jax.checkpoint(_naive_step, prevent_cse=False))


def _our_loss(x: Any, labels: Any, weights: Any, margin: Any) -> jax.Array:
    del weights  # it finds them itself
    return sphemb.margin_loss(x, labels, margin=margin)


def _pairs(rows: Any, columns: Any, margin: Any) -> jax.Array:
    """Eq. 2 without 1/N for some rows against all columns."""
    (x, labels, weights), (y, others, masses) = rows, columns
    similarity = 0.5 * (1.0 + _matmul(x, y.T))
    same = labels[:, None] == others
    excess = jnp.maximum(similarity - margin, 0.0)
    return weights @ _matmul(jnp.where(same, 1.0 - similarity, excess), masses)


def _naive_loss(x: Any, labels: Any, weights: Any, margin: Any) -> jax.Array:
    points = (x, labels, weights)
    return _pairs(points, points, margin) / x.shape[0]


def _loss_by_rows(x: Any, labels: Any, weights: Any, margin: Any) -> jax.Array:
    points = (x, labels, weights)
    rows = min(_ROWS, x.shape[0])
    blocks = jax.tree.map(lambda a: a.reshape(-1, rows, *a.shape[1:]), points)
    block = functools.partial(_pairs, columns=points, margin=margin)
    return jnp.sum(jax.lax.map(jax.checkpoint(block), blocks)) / x.shape[0]


def _compile(function: Callable[..., Any], *arguments: jax.Array) -> Program:
    compiled = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    return Program(
        call=lambda: jax.block_until_ready(compiled(*arguments)),
        temp_bytes=None if memory is None else memory.temp_size_in_bytes,
    )


def _forward(move: Any, dtype: Any, case: Case, inputs: Inputs) -> Program:
    def run(x: jax.Array, kappa: jax.Array, eta: jax.Array) -> tuple[jax.Array]:
        return (move(x, kappa, eta, case.num_steps),)

    numbers = (inputs.points, inputs.concentration, inputs.step_size)
    return _compile(run, *(jnp.asarray(number, dtype) for number in numbers))


def _gradient(move: Any, dtype: Any, case: Case, inputs: Inputs) -> Program:
    def scalar(x: Any, kappa: Any, eta: Any, cotangent: jax.Array) -> jax.Array:
        return jnp.sum(move(x, kappa, eta, case.num_steps) * cotangent)

    numbers = (inputs.points, inputs.concentration, inputs.step_size, inputs.cotangent)
    arguments = (jnp.asarray(number, dtype) for number in numbers)
    return _compile(jax.grad(scalar, (0, 1, 2)), *arguments)


def _loss_gradient(loss: Any, dtype: Any, case: Case, inputs: Inputs) -> Program:
    del case
    return _compile(
        jax.value_and_grad(loss),
        jnp.asarray(inputs.points, dtype),
        jnp.asarray(inputs.labels),
        jnp.asarray(inputs.weights, dtype),
        jnp.asarray(inputs.margin, dtype),
    )


def _label(modes: jax.Array) -> jax.Array:
    return sphemb.label_modes(modes, max_groups=_MOST_GROUPS).labels


def _fast_labels(x: jax.Array, kappa: Any, num_steps: int) -> jax.Array:
    settings = {"concentration": kappa, "num_steps": num_steps}
    return _label(sphemb.accelerated_gbms(x, **settings))


def _exact_labels(x: jax.Array, kappa: Any, num_steps: int) -> jax.Array:
    return _label(sphemb.gbms(x, concentration=kappa, num_steps=num_steps))


def _seeded_labels(x: jax.Array, kappa: Any, num_steps: int) -> jax.Array:
    """Seeds climb the density of a sample; a point goes where its nearest seed goes."""
    drawn = jax.random.choice(
        jax.random.key(0), x, (min(_SAMPLE, len(x)),), replace=False
    )
    seeds = drawn[:_SEEDS]
    settings = {"concentration": kappa, "num_steps": num_steps}
    labels = _label(sphemb.mean_shift(seeds, drawn, **settings))

    def nearest(rows: jax.Array) -> jax.Array:
        return labels[jnp.argmax(_matmul(rows, seeds.T), axis=1)]

    return jax.lax.map(nearest, x.reshape(-1, min(_ROWS, len(x)), x.shape[1])).reshape(
        -1
    )


def _grouping(group: Any, case: Case, inputs: Inputs) -> Program:
    def run(x: jax.Array, kappa: jax.Array) -> tuple[jax.Array]:
        return (group(x, kappa, case.num_steps),)

    numbers = (inputs.points, inputs.concentration)
    return _compile(run, *(jnp.asarray(number, jnp.float32) for number in numbers))


def exact_labels(case: Case, inputs: Inputs) -> np.ndarray:
    """Labels by the exact mean shift, as :func:`sphemb.gbms` makes it."""
    return np.asarray(_grouping(_exact_labels, case, inputs).call()[0])


def _kinds(
    move: Any, loss: Any, *, dtype: Any = jnp.float32, forward: bool = True
) -> dict[str, Any]:
    kinds = {
        FORWARD: functools.partial(_forward, move, dtype),
        GRADIENT: functools.partial(_gradient, move, dtype),
        LOSS: functools.partial(_loss_gradient, loss, dtype),
    }
    if not forward:
        del kinds[FORWARD]
    return kinds


def _naive_matrices(case: Case) -> int:
    return {FORWARD: 2, GRADIENT: 4 + 2 * case.num_steps, LOSS: 3}[case.kind]


def _checkpoint_matrices(case: Case) -> int:
    return {GRADIENT: 4, LOSS: 0}[case.kind]


def reference(case: Case, inputs: Inputs) -> list[np.ndarray]:
    """The outputs of the naive form in float64."""
    with jax.enable_x64(True):
        kinds = _kinds(_NAIVE, _naive_loss, dtype=jnp.float64)
        return [np.asarray(output) for output in kinds[case.kind](case, inputs).call()]


PEERS = (
    Peer(
        name=OURS,
        about=(
            "`sphemb.gbms` and `sphemb.margin_loss` as they come; grouping by "
            "`sphemb.accelerated_gbms` and `sphemb.label_modes`"
        ),
        kinds=_kinds(_ours, _our_loss)
        | {GROUPING: functools.partial(_grouping, _fast_labels)},
    ),
    Peer(
        name="exact",
        about="grouping by `sphemb.gbms` and `sphemb.label_modes`",
        kinds={GROUPING: functools.partial(_grouping, _exact_labels)},
        most_points=MOST_EXACT,
    ),
    Peer(
        name="seeds",
        about=(
            f"grouping by `sphemb.mean_shift` of {_SEEDS:,} points on the density of "
            f"{_SAMPLE:,}, each point with its nearest seed"
        ),
        kinds={GROUPING: functools.partial(_grouping, _seeded_labels)},
    ),
    Peer(
        name="jnp",
        about="dense `jax.numpy` under `jit`, differentiated through `lax.scan`",
        kinds=_kinds(_NAIVE, _naive_loss),
        matrices=_naive_matrices,
        any_points=False,
    ),
    Peer(
        name="jnp + checkpoint",
        about=(
            "the same with `jax.checkpoint` on the step (which changes gradients only)"
            f"; the loss by blocks of {_ROWS} rows, each under `jax.checkpoint`"
        ),
        kinds=_kinds(_CHECKPOINTED, _loss_by_rows, forward=False),
        matrices=_checkpoint_matrices,
        any_points=False,
    ),
)
