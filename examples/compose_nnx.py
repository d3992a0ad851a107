"""Mean shift inside a Flax NNX model: coloured squares, told apart.

    python examples/compose_nnx.py

Each image has three squares; nothing but their place tells them apart. The model has
convolutions, and kappa beside them as an ``nnx.Param``; its call ends with the steps of
the mean shift. Prints loss, kappa, and how new squares are found.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sphemb

SIDE, SQUARE, DIM = 16, 4, 8


def draw_images(key, number=8):
    """Images [B, H, W, 3] and instances [B, H, W]; of what overlaps the later wins."""
    corners = jax.random.randint(key, (number, 3, 2), 0, SIDE - SQUARE + 1)
    rows, columns = jnp.mgrid[:SIDE, :SIDE]
    instances = jnp.zeros((number, SIDE, SIDE), jnp.int32)
    for i in range(3):
        down = rows - corners[:, i, 0, None, None]
        along = columns - corners[:, i, 1, None, None]
        inside = (jnp.minimum(down, along) >= 0) & (jnp.maximum(down, along) < SQUARE)
        instances = jnp.where(inside, i + 1, instances)
    return jnp.where(
        instances[..., None] > 0, jnp.array([0.9, 0.6, 0.1]), 0.1
    ), instances


class Grouper(nnx.Module):
    """Images [B, H, W, 3] to the points of every step, [T + 1, B, N, D]."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(5, 16, (5, 5), rngs=rngs)
        self.second = nnx.Conv(16, 16, (5, 5), rngs=rngs)
        self.last = nnx.Linear(16 + 5, DIM, rngs=rngs)
        self.log_kappa = nnx.Param(jnp.log(10.0))

    def __call__(self, image, *, num_steps):
        where = jnp.stack(jnp.mgrid[:SIDE, :SIDE], axis=-1) / SIDE
        where = jnp.broadcast_to(where, (*image.shape[:3], 2))
        pixel = jnp.concatenate([image, where], axis=-1)
        features = nnx.relu(self.second(nnx.relu(self.first(pixel))))
        embedding = self.last(jnp.concatenate([features, pixel], axis=-1))
        points = sphemb.sphere.l2_normalize(embedding).reshape(len(image), -1, DIM)
        return sphemb.gbms_trajectory(
            points, concentration=jnp.exp(self.log_kappa[...]), num_steps=num_steps
        )


def loss(model, image, instances):
    labels = instances.reshape(len(instances), -1)
    points = model(image, num_steps=2)
    return sphemb.trajectory_margin_loss(points, labels, margin=0.3).mean()


@nnx.jit
def update(model, optimizer, key):
    value, gradient = nnx.value_and_grad(loss)(model, *draw_images(key))
    optimizer.update(model, gradient)
    return value


def main(steps=120):
    model = Grouper(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(5e-3), wrt=nnx.Param)
    keys = jax.random.split(jax.random.key(1), steps)
    values = [float(update(model, optimizer, key)) for key in keys]
    image, instances = draw_images(jax.random.key(2))
    modes = nnx.jit(model, static_argnames="num_steps")(image, num_steps=15)[-1]
    groups = sphemb.label_modes(modes, max_groups=8, min_size=3)
    scores = sphemb.metrics.PairScores.from_batch(
        groups.labels, instances.reshape(8, -1), max_predicted=8, max_true=3
    ).compute()
    found = {"first loss": values[0], "last loss": values[-1]}
    found["kappa"] = float(jnp.exp(model.log_kappa[...]))
    found["adjusted Rand index"] = scores["adjusted_rand_index"]
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    return found


if __name__ == "__main__":
    main()
