"""Claims about mean shift that random points can test, in float64."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._claims_records import Effect, over_seeds
from sphemb import gbms_trajectory, margin_loss
from sphemb.sphere import l2_normalize

_ROUNDING = 1e-11  # smaller errors are those of float64, not of the mean shift
# (x [N, D], cotangent [N, D] of a step before it is normalized, kappa) -> [N, D]
Rule = Callable[[jax.Array, jax.Array, float], jax.Array]


def random_groups(
    seed: Any, centers: np.ndarray, *, spread: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows [G size, D] around centers [G, D] with rms ``spread``; their groups."""
    labels = np.repeat(np.arange(len(centers)), size)
    noise = np.random.default_rng(seed).normal(size=(len(labels), centers.shape[1]))
    x = centers[labels] + spread / np.sqrt(centers.shape[1]) * noise
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def printed_rule(x: jax.Array, cotangent: jax.Array, kappa: float) -> jax.Array:
    """Eq. 6 of the supplement as printed, with eta = 1; both ∂l/∂K are added."""
    kernel = jnp.exp(kappa * (x @ x.T))
    q, d_p = 1.0 / kernel.sum(axis=0), x @ cotangent.T
    d_q = d_p.T @ kernel.sum(axis=1)
    d_k = (d_p @ q)[:, None] - d_q * q**2
    return 2.0 * (kappa * kernel * d_k).T @ x


def doubled_rule(x: jax.Array, cotangent: jax.Array, kappa: float) -> jax.Array:
    """The true gradient, except for the printed 2 X ∂l/∂S."""
    kernel = jnp.exp(kappa * (x @ x.T))
    q, d_p = 1.0 / kernel.sum(axis=0), x @ cotangent.T
    d_k = d_p * q - (d_p * kernel).sum(axis=0) * q**2
    return 2.0 * (kappa * kernel * d_k).T @ x + (kernel * q) @ cotangent


def rule_steps(x: jax.Array, rule: Rule, kappa: float, num_steps: int) -> jax.Array:
    """The points [T + 1, N, D] at every step, differentiated by a rule."""

    @jax.custom_vjp
    def means(x):
        return jax.nn.softmax(kappa * (x @ x.T), axis=-1) @ x

    means.defvjp(lambda x: (means(x), x), lambda x, g: (rule(x, g, kappa),))
    steps = [x]
    for _ in range(num_steps):
        steps.append(l2_normalize(means(steps[-1])))
    return jnp.stack(steps)


def step_gradients(
    x: np.ndarray,
    labels: np.ndarray,
    *,
    kappa: float,
    margin: float,
    num_steps: int,
    rule: Rule | None = None,
) -> np.ndarray:
    """Gradients [T + 1, N, D] of the loss on each step: the library's, or by a rule."""

    def losses(x):
        x = l2_normalize(x)
        if rule is None:
            steps = gbms_trajectory(x, concentration=kappa, num_steps=num_steps)
        else:
            steps = rule_steps(x, rule, kappa, num_steps)
        given = jnp.broadcast_to(labels, steps.shape[:-1])
        return margin_loss(steps, given, margin=margin)

    with jax.enable_x64(True):
        return np.asarray(jax.jacrev(losses)(jnp.asarray(x)))


def log_growth(gradients: np.ndarray) -> float:
    """The slope of the logarithm of the lengths [T + 1, N, D] in T = 1, 2, ..."""
    lengths = np.linalg.norm(gradients[1:], axis=(1, 2))
    return float(np.polyfit(np.arange(len(lengths)), np.log(lengths), 1)[0])


def measure_growth(flags: argparse.Namespace) -> list[Effect]:
    """Growth of the gradient with T: the true one, and by the printed rules."""
    settings: Any = {"kappa": 36.0, "margin": 0.5, "num_steps": 10}
    logs: dict[str, list[float]] = {}
    for seed in range(flags.number):
        for groups, dim, size in ((4, 3, 30), (8, 64, 16)):
            # Noise around zero has random directions.
            around = {"spread": 1.0, "size": 1}
            centers, _ = random_groups([seed, 1], np.zeros((groups, dim)), **around)
            points = random_groups(seed, centers, spread=0.4, size=size)
            true = step_gradients(*points, **settings)
            rules = {
                "true gradient": true,
                "the same, losses on all steps": true.cumsum(axis=0),
                "with 2 X ∂l/∂S": step_gradients(
                    *points, **settings, rule=doubled_rule
                ),
                "as printed": step_gradients(*points, **settings, rule=printed_rule),
            }
            for name, found in rules.items():
                logs.setdefault(f"{dim}-d, {name}", []).append(log_growth(found))
    return [
        over_seeds(n, v, scale=np.exp, claimed=(1.0, None) if "true" in n else None)
        for n, v in logs.items()
    ]


def convergence_order(errors: np.ndarray) -> float:
    """The p of e' = c e^p, fitted to successive errors above rounding."""
    errors = errors[errors > _ROUNDING]
    return float(np.polyfit(np.log(errors[:-1]), np.log(errors[1:]), 1)[0])


def widest_spread(x: np.ndarray, groups: int, **shift: Any) -> np.ndarray:
    """The largest standard deviation [T + 1] in any direction of equal groups of x."""
    with jax.enable_x64(True):
        steps = np.asarray(gbms_trajectory(jnp.asarray(x), **shift))
    steps = steps.reshape(len(steps), groups, -1, x.shape[-1])
    steps = steps - steps.mean(axis=2, keepdims=True)
    return np.linalg.norm(steps, 2, (2, 3)).max(axis=1) / np.sqrt(steps.shape[2])


def measure_order(flags: argparse.Namespace) -> list[Effect]:
    """The order of convergence of one group, and of several at right angles."""
    effects = []
    for name, groups, kappa, step_size, claimed in (
        ("one group, κ = 36", 1, 36.0, 1.0, (2.9, 3.1)),
        ("eight groups, κ = 36", 8, 36.0, 1.0, (2.9, 3.1)),
        ("eight groups, κ = 6", 8, 6.0, 1.0, None),
        ("one group, κ = 36, η = .5", 1, 36.0, 0.5, None),
    ):
        shift = {"concentration": kappa, "step_size": step_size, "num_steps": 10}
        orders = []
        for seed in range(flags.number):
            x, _ = random_groups(seed, np.eye(8)[:groups], spread=0.06, size=40)
            orders.append(convergence_order(widest_spread(x, groups, **shift)))
        effects.append(over_seeds(name, orders, claimed=claimed))
    return effects
