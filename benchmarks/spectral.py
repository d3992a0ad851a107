"""Seconds of the spectral loss and of its roundings at the size of an image.

    python -m benchmarks.spectral [--points 262144] [--dim 21] [--clusters 32]

By default 512 x 512 pixels in 21 dimensions. The points lie around the axes and their
opposites, of which there are enough for twice as many clusters as dimensions.
"""

from __future__ import annotations

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._machine import describe
from benchmarks.throughput import seconds_per_call
from sphemb.grouping import kwik_cluster, orthogonal_rounding
from sphemb.losses import spectral_loss
from sphemb.sphere import l2_normalize

_SPREAD = 0.2  # of a point around its direction


def draw_points(num_points: int, dim: int, clusters: int) -> tuple[jax.Array, ...]:
    """Unit vectors [N, D] around their cluster's direction, and int labels [N]."""
    if clusters > 2 * dim:
        raise SystemExit(f"--clusters must be at most twice --dim {dim}")
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(clusters, size=num_points))
    directions = jnp.concatenate([jnp.eye(dim), -jnp.eye(dim)])
    noise = rng.normal(0, _SPREAD / dim**0.5, (num_points, dim))
    points = l2_normalize(directions[labels] + jnp.asarray(noise, jnp.float32))
    return points, jnp.asarray(labels, jnp.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--points", type=int, default=512**2, metavar="N")
    parser.add_argument("--dim", type=int, default=21, metavar="D")
    parser.add_argument("--clusters", type=int, default=32, metavar="K")
    parser.add_argument("--budget", type=float, default=5.0, metavar="SECONDS")
    flags = parser.parse_args()

    machine = describe(os.cpu_count() or 1)
    points, labels = draw_points(flags.points, flags.dim, flags.clusters)
    key = jax.random.key(1)
    loss = jax.jit(jax.value_and_grad(spectral_loss))
    cases = {
        "spectral loss and its gradient": lambda: loss(points, labels),
        f"KwikCluster, {flags.clusters} clusters": lambda: kwik_cluster(
            key, points, max_groups=2 * flags.clusters
        ),
        "the same, best of five orders": lambda: kwik_cluster(
            key, points, max_groups=2 * flags.clusters, num_orders=5
        ),
        "orthogonal rounding": lambda: orthogonal_rounding(key, points),
    }
    print(f"{flags.points} points, {flags.dim} dimensions; {machine}")
    for name, call in cases.items():
        taken = seconds_per_call(
            lambda call=call: jax.block_until_ready(call()), budget=flags.budget
        )
        print(f"{name:40} {taken:.3f} s", flush=True)
    found = kwik_cluster(key, points, max_groups=2 * flags.clusters)
    print(f"KwikCluster found {int(found.num_groups)} clusters")


if __name__ == "__main__":
    main()
