"""Time series: the regimes of a signal, found without knowing how many there are.

    python examples/compose_series.py --out series.png

A signal swings at a few rates, in turns. A network embeds each moment by the window
around it; moments of one regime are pulled together. Prints the loss and how well the
regimes of new signals, with other rates, are found.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import sphemb

LENGTH, WINDOW, DIM = 252, 33, 8


def draw_signals(key, number=8):
    """Signals [B, L] and regimes [B, L]: three rates, in six parts."""
    rates, order, noise = jax.random.split(key, 3)
    rates = jnp.array([0.15, 0.4, 1.0]) * jax.random.uniform(
        rates, (number, 3), minval=0.8
    )
    turns = jnp.broadcast_to(jnp.arange(3), (2 * number, 3))
    order = jax.random.permutation(order, turns, axis=1, independent=True)
    regimes = jnp.repeat(order.reshape(number, 6), LENGTH // 6, axis=1)
    phase = jnp.cumsum(jnp.take_along_axis(rates, regimes, axis=1), axis=1)
    return jnp.sin(phase) + 0.1 * jax.random.normal(noise, phase.shape), regimes


def embed(params, signal):
    around = range(-(WINDOW // 2), WINDOW // 2 + 1)
    windows = jnp.stack([jnp.roll(signal, i, axis=1) for i in around], axis=-1)
    hidden = jnp.square(windows @ params["in"])  # the phase must not matter
    hidden = jnp.tanh(hidden @ params["middle"])
    return sphemb.sphere.l2_normalize(hidden @ params["out"])


def init(key):
    sizes, names = (WINDOW, 64, 64, DIM), ("in", "middle", "out")
    keys = jax.random.split(key, 3)
    draw = jax.nn.initializers.lecun_normal()
    return {n: draw(keys[i], sizes[i : i + 2]) for i, n in enumerate(names)}


def loss(params, signal, regimes):
    points = embed(params, signal)
    points = sphemb.gbms_trajectory(points, concentration=15.0, num_steps=2)
    return sphemb.trajectory_margin_loss(points, regimes, margin=0.3).mean()


def update(params, key):
    value, gradient = jax.value_and_grad(loss)(params, *draw_signals(key))
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), value


def main(steps=150, out=None):
    keys = jax.random.split(jax.random.key(1), steps)
    params, values = jax.lax.scan(update, init(jax.random.key(0)), keys)
    signal, regimes = draw_signals(jax.random.key(2))
    modes = sphemb.gbms(embed(params, signal), concentration=15.0, num_steps=15)
    groups = sphemb.label_modes(modes, max_groups=8, min_size=10)
    scores = sphemb.metrics.PairScores.from_batch(
        groups.labels, regimes, max_predicted=8, max_true=2
    ).compute()
    found = {"first loss": float(values[0]), "last loss": float(values[-1])}
    found["adjusted Rand index"] = scores["adjusted_rand_index"]
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    if out:
        draw(np.asarray(signal[:3]), np.asarray(groups.labels[:3]), out)
    return found


def draw(signal, labels, out):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(signal))):
        axes.scatter(np.arange(LENGTH), signal[row], c=labels[row], cmap="tab10", s=8)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="a file for the picture")
    main(out=parser.parse_args().out)
