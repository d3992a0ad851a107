"""Mean shift inside a plain JAX function: rings of random radii, told apart.

    python examples/compose_plain.py

A scene is 96 points on three rings around one centre. The network is a dict of arrays
and two lines of JAX. The loss stands on every step of the mean shift, whose kappa is
learned like a weight. Prints loss, kappa, and how the rings of new scenes are found.
"""

import jax
import jax.numpy as jnp

import sphemb

POINTS, WIDTH, DIM = 96, 64, 8


def draw_scenes(key, number=8):
    """Points [B, N, 2] and the ring that each lies on, [B, N]."""
    gaps, turn, noise = jax.random.split(key, 3)
    radii = jnp.cumsum(jax.random.uniform(gaps, (number, 3), minval=0.3), axis=1)
    rings = jnp.arange(POINTS) % 3
    angle = 2 * jnp.pi * jax.random.uniform(turn, (number, POINTS))
    radius = radii[:, rings] + 0.02 * jax.random.normal(noise, (number, POINTS))
    points = radius[..., None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return points, jnp.broadcast_to(rings, (number, POINTS))


def init(key):
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (2, WIDTH)),
        "bias": jnp.linspace(-3.0, 3.0, WIDTH),
        "out": jax.random.normal(second, (WIDTH, DIM)) / WIDTH**0.5,
        "log_kappa": jnp.log(10.0),
    }


def embed(params, points):
    hidden = jnp.sin(jnp.square(points) @ params["in"] + params["bias"])
    return sphemb.sphere.l2_normalize(hidden @ params["out"])


def loss(params, points, rings):
    trajectory = sphemb.gbms_trajectory(
        embed(params, points), concentration=jnp.exp(params["log_kappa"]), num_steps=3
    )
    return sphemb.trajectory_margin_loss(
        trajectory, rings, margin=0.3, normalize="pairs"
    ).mean()


def update(params, key):
    value, gradient = jax.value_and_grad(loss)(params, *draw_scenes(key))
    return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), value


def main(steps=200):
    keys = jax.random.split(jax.random.key(1), steps)
    params, values = jax.lax.scan(update, init(jax.random.key(0)), keys)
    points, rings = draw_scenes(jax.random.key(2))
    kappa = jnp.exp(params["log_kappa"])
    modes = sphemb.gbms(embed(params, points), concentration=kappa, num_steps=20)
    groups = sphemb.label_modes(modes, max_groups=8, min_size=3)
    scores = sphemb.metrics.PairScores.from_batch(
        groups.labels, rings, max_predicted=8, max_true=2
    ).compute()
    found = {
        "first loss": float(values[0]),
        "last loss": float(values[-1]),
        "kappa": float(kappa),
        "adjusted Rand index": scores["adjusted_rand_index"],
    }
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    return found


if __name__ == "__main__":
    main()
