"""The 1-D toy of the supplement: what recurrent mean shift does to the gradient.

    python examples/toy_1d.py --out toy_1d.png

Points from three Gaussians on a line are to be told apart in two classes by a fixed
regressor, y = x / 2 - 1 / 2. Gradient descent moves the points themselves, the loss
standing on the raw points, on what Gaussian blurring mean shift (GBMS) makes of them,
or on several of its steps. Losses on every step give the largest gradients and end in
two groups at 3 and 5; without mean shift three clusters are left after as many updates,
and grouping them misses 5. Prints the numbers of six checks and draws Fig. 2.

A single loss after five steps is left out: its gradient explodes, in contrast to what
the text says of it (the last line printed shows by how much).

Reference: Kong and Fowlkes, CVPR 2018, supplement, section 2.2.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sphemb.viz import save_figure

GROUPS = ((3.0, 0.2), (4.0, 0.3), (5.0, 0.1))  # means and standard deviations
BANDWIDTH = 0.2
RATE = 0.1
UPDATES = 30
LAST_STEP = 5
VARIANTS = {
    "no mean shift": (0,),
    "loss on step 1": (1,),
    "loss on step 2": (2,),
    "losses on steps 0..1": (0, 1),
    "losses on steps 0..2": (0, 1, 2),
    "losses on steps 0..5": (0, 1, 2, 3, 4, 5),
    "losses on steps 1..5": (1, 2, 3, 4, 5),
}


def draw_points(num_points: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Draws points of every group and their ideal spots 3 or 5, [3 num_points]."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(*group, num_points) for group in GROUPS])
    return jnp.asarray(x, jnp.float32), jnp.where(jnp.asarray(x) >= 3.5, 5.0, 3.0)


@jax.checkpoint
def mean_shift_step(x: jax.Array) -> jax.Array:
    """Moves every point to the mean of all under a Gaussian around it."""
    kernel = jnp.exp(-0.5 * ((x[:, None] - x) / BANDWIDTH) ** 2)
    return kernel @ x / jnp.sum(kernel, axis=1)


@functools.partial(jax.jit, static_argnums=1)
def group(x: jax.Array, num_steps: int) -> jax.Array:
    """Runs mean shift on the line."""
    return jax.lax.fori_loop(0, num_steps, lambda _, x: mean_shift_step(x), x)


def loss(x: jax.Array, ideal: jax.Array, steps: tuple[int, ...]) -> jax.Array:
    """Sums the squared error of the regressor over points and steps.

    With y = x / 2 - 1 / 2 the error is half the distance to the ideal spot. The sum
    over points, not their mean, is what a step of .1 a point stands for.
    """
    total = jnp.zeros(())
    for step in range(max(steps) + 1):
        if step:
            x = mean_shift_step(x)
        if step in steps:
            total += jnp.sum((0.5 * (x - ideal)) ** 2)
    return total


@functools.partial(jax.jit, static_argnums=2)
def first_gradient(x: jax.Array, ideal: jax.Array, steps: tuple[int, ...]) -> jax.Array:
    """Returns the mean size of the points' first gradients."""
    return jnp.mean(jnp.abs(jax.grad(loss)(x, ideal, steps)))


@functools.partial(jax.jit, static_argnums=2)
def descend(x: jax.Array, ideal: jax.Array, steps: tuple[int, ...]) -> jax.Array:
    """Returns the points before, between and after all updates, [UPDATES + 1, N]."""

    def update(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = x - RATE * jax.grad(loss)(x, ideal, steps)
        return x, x

    return jnp.concatenate([x[None], jax.lax.scan(update, x, None, length=UPDATES)[1]])


def rmse(x: jax.Array, ideal: jax.Array) -> float:
    """Returns the root mean square distance from the ideal spots."""
    return float(jnp.sqrt(jnp.mean((x - ideal) ** 2)))


def find_modes(x: jax.Array, gap: float = 0.1) -> list[float]:
    """Returns the mean of each run of points without a gap."""
    ordered = np.sort(np.asarray(x, np.float64))
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > gap) + 1)
    return [float(run.mean()) for run in runs]


def check_unaided(x: jax.Array, ideal: jax.Array) -> dict[str, float | list[float]]:
    """Check 1: without mean shift, 30 updates shrink every error by .95^30."""
    last = descend(x, ideal, (0,))[-1]
    middle = len(x) // 3
    return {
        "factor": 0.95**UPDATES,
        "largest deviation": float(
            jnp.max(jnp.abs(last - ideal - 0.95**UPDATES * (x - ideal)))
        ),
        "clusters": [
            float(jnp.median(part))
            for part in (last[:middle], last[middle:-middle], last[-middle:])
        ],
    }


def check_unsupervised(x: jax.Array) -> dict[str, list[float]]:
    """Check 2: mean shift alone finds three modes and keeps them."""
    return {f"modes after {n} steps": find_modes(group(x, n)) for n in (10, 50)}


def check_supervised(
    x: jax.Array, ideal: jax.Array, steps: tuple[int, ...]
) -> dict[str, float | list[float]]:
    """Checks 3, 4 and 6: where the points lie after the updates, raw and grouped."""
    last = descend(x, ideal, steps)[-1]
    grouped = group(last, LAST_STEP)
    return {
        "rmse raw": rmse(last, ideal),
        "rmse grouped": rmse(grouped, ideal),
        "modes": find_modes(grouped),
    }


def check_gradients(x: jax.Array, ideal: jax.Array) -> dict[str, float]:
    """Check 5: mean first gradients, which rise in the order of the variants."""
    names = list(VARIANTS)[:-1]
    return {name: float(first_gradient(x, ideal, VARIANTS[name])) for name in names}


def print_checks(x: jax.Array, ideal: jax.Array) -> None:
    """Prints what the six checks found."""
    several, two, later = (
        VARIANTS[f"losses on steps {steps}"] for steps in ("0..5", "0..1", "1..5")
    )
    findings = {
        "1. no mean shift": check_unaided(x, ideal),
        "2. mean shift alone": check_unsupervised(x),
        "3. losses on steps 0..5": check_supervised(x, ideal, several),
        "4. losses on steps 0..1": check_supervised(x, ideal, two),
        "5. mean first gradient": check_gradients(x, ideal),
        "6. losses on steps 1..5": check_supervised(x, ideal, later),
    }
    for title, numbers in findings.items():
        print(title)
        for name, value in numbers.items():
            values = value if isinstance(value, list) else [value]
            print(f"   {name}: {', '.join(f'{v:.5g}' for v in values)}")
    largest = jnp.max(jnp.abs(jax.grad(loss)(x, ideal, (LAST_STEP,))))
    print(f"(largest first gradient of one loss after step 5: {float(largest):.5g})")


def draw_figure(
    x: jax.Array,
    ideal: jax.Array,
    path: str,
    variants: Mapping[str, tuple[int, ...]] = VARIANTS,
) -> None:
    """Draws points before and after, and a hundred trajectories, for every variant."""
    import matplotlib.pyplot as plt

    colors = {3.0: "#0072b2", 5.0: "#d55e00"}
    rng = np.random.default_rng(0)
    shown = rng.choice(len(x), size=min(100, len(x)), replace=False)
    bins = np.linspace(2.0, 6.0, 161)
    figure, axes = plt.subplots(
        len(variants) + 1, 3, figsize=(11, 2 * len(variants) + 2), layout="constrained"
    )

    def histogram(axis, points):
        for spot, color in colors.items():
            axis.hist(np.asarray(points)[np.asarray(ideal) == spot], bins, color=color)
        axis.set(xlim=(2.0, 6.0), yscale="symlog", ylim=(0, len(x)))

    alone = np.stack([group(x, step) for step in range(2 * LAST_STEP + 1)])
    every_path = {"mean shift alone,\nno update": alone} | {
        name.replace(" on ", "\non "): np.asarray(descend(x, ideal, steps))
        for name, steps in variants.items()
    }
    for row, (name, paths) in zip(axes, every_path.items(), strict=True):
        histogram(row[0], paths[0 if paths is alone else -1])
        row[0].hist(np.asarray(x), bins, histtype="step", color="0.4", lw=0.7)
        row[0].set_ylabel(name)
        ends = paths[LAST_STEP] if paths is alone else group(paths[-1], LAST_STEP)
        histogram(row[1], ends)
        for index in shown:
            color = colors[float(ideal[index])]
            row[2].plot(paths[:, index], color=color, lw=0.5, alpha=0.6)
        row[2].set(ylim=(2.0, 6.0), xlim=(0, len(paths) - 1), yticks=(3, 4, 5))
    titles = (
        f"points after {UPDATES} updates (line: before)",
        f"the same after {LAST_STEP} steps of mean shift",
        "a hundred points on their way",
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    axes[0, 2].set_xlabel("step of mean shift")
    for axis, label in zip(axes[-1], ("x", "x", "update"), strict=True):
        axis.set_xlabel(label)
    save_figure(figure, path, dpi=110, max_bytes=300_000)
    plt.close(figure)


def main() -> None:
    """Prints the checks and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="toy_1d.png", help="the figure's file")
    parser.add_argument("--points", type=int, default=1000, help="points per group")
    options = parser.parse_args()
    x, ideal = draw_points(options.points)
    print_checks(x, ideal)
    draw_figure(x, ideal, options.out)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
