"""Mean shift as a Flax linen module, around any module that embeds.

    python examples/compose_linen.py

`Recurrent` wraps another module, keeps kappa and the step size as parameters of its
own, and returns the points of every step. Here it wraps two dense layers that see blobs
in the plane, three in each scene. Prints loss, kappa, step size, and
how the blobs of new scenes are found.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import sphemb

POINTS, DIM = 96, 8


def draw_scenes(key, number=8):
    """Points [B, N, 2] and the blob that each is of, [B, N]."""
    middles, noise = jax.random.split(key)
    # One in each third of the circle, so that no two blobs lie on each other.
    turn = jax.random.uniform(middles, (number, 3), maxval=0.6) + jnp.arange(3)
    angle = 2 * jnp.pi / 3 * turn
    middles = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    blobs = jnp.broadcast_to(jnp.arange(POINTS) % 3, (number, POINTS))
    points = jnp.take_along_axis(middles, blobs[..., None], axis=1)
    return points + 0.2 * jax.random.normal(noise, points.shape), blobs


class Recurrent(nn.Module):
    """Points [T + 1, B, N, D] of every step, from what `embed` makes of the input."""

    embed: nn.Module
    num_steps: int

    @nn.compact
    def __call__(self, *inputs):
        points = sphemb.sphere.l2_normalize(self.embed(*inputs))
        log_kappa = self.param("log_kappa", nn.initializers.constant(2.3), ())
        step_size = self.param("step_size", nn.initializers.ones, ())
        settings = {"concentration": jnp.exp(log_kappa), "step_size": step_size}
        return sphemb.gbms_trajectory(points, num_steps=self.num_steps, **settings)


def main(steps=120):
    embed = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(DIM)])
    model = Recurrent(embed, num_steps=3)
    params = model.init(jax.random.key(0), draw_scenes(jax.random.key(0))[0])
    optimizer = optax.adam(1e-2)

    def loss(params, points, blobs):
        return sphemb.trajectory_margin_loss(
            model.apply(params, points), blobs, margin=0.3, normalize="pairs"
        ).mean()

    def update(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, *draw_scenes(key))
        changes, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, changes), state), value

    keys = jax.random.split(jax.random.key(1), steps)
    (params, _), values = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    points, blobs = draw_scenes(jax.random.key(2))
    modes = model.clone(num_steps=20).apply(params, points)[-1]
    groups = sphemb.label_modes(modes, max_groups=8, min_size=3)
    scores = sphemb.metrics.PairScores.from_batch(
        groups.labels, blobs, max_predicted=8, max_true=2
    ).compute()
    found = {
        "first loss": float(values[0]),
        "last loss": float(values[-1]),
        "kappa": float(jnp.exp(params["params"]["log_kappa"])),
        "step size": float(params["params"]["step_size"]),
        "adjusted Rand index": scores["adjusted_rand_index"],
    }
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    return found


if __name__ == "__main__":
    main()
