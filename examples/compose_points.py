"""A point cloud: the faces of a dodecahedron, found without any training.

    python examples/compose_points.py --out faces.png

The normal of a surface is a unit vector, so it can be shifted as it is. Twelve hundred
noisy points get theirs from the plane through their neighbours; the mean shift gathers
them at the directions of the faces. The same lines with no `label_modes` are
differentiable, in the points too.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import sphemb

NEIGHBOURS = 16


def dodecahedron(num_points, noise=0.01, seed=0):
    """Points [N, 3] around a dodecahedron, and the face that each lies on, [N]."""
    rng = np.random.default_rng(seed)
    golden = (1 + 5**0.5) / 2
    signs = itertools.product((-1, 1), (-golden, golden))
    faces = [np.roll([0, a, b], turn) for a, b in signs for turn in range(3)]
    faces = np.array(faces) / np.hypot(1, golden)
    rays = rng.standard_normal((num_points, 3))
    # A ray from the centre meets the face first whose normal is nearest to it.
    reach = np.max(rays @ faces.T, axis=1, keepdims=True)
    points = rays / reach + noise * rng.standard_normal(rays.shape)
    return points.astype(np.float32), np.argmax(rays @ faces.T, axis=1)


@jax.jit
def normals(points):
    """The outward normal at every point [N, 3], of the plane through its neighbours."""
    apart = jnp.sum(jnp.square(points[:, None] - points), axis=-1)
    _, nearest = jax.lax.top_k(-apart, NEIGHBOURS)
    around = points[nearest] - jnp.mean(points[nearest], axis=1, keepdims=True)
    spread = jnp.einsum("nki,nkj->nij", around, around)
    across = jnp.linalg.eigh(spread)[1][..., 0]
    outward = jnp.sum(across * points, axis=-1, keepdims=True)
    return jnp.where(outward > 0, across, -across)


def main(num_points=1200, out=None):
    points, faces = dodecahedron(num_points)
    directions = normals(jnp.asarray(points))
    moved = sphemb.gbms(directions, concentration=30.0, num_steps=15)
    groups = sphemb.label_modes(moved, max_groups=32, min_size=num_points // 60)
    scores = sphemb.metrics.PairScores.from_batch(
        groups.labels[None], jnp.asarray(faces)[None], max_predicted=32, max_true=11
    ).compute()
    found = {
        "faces": int(groups.num_groups),
        "adjusted Rand index": scores["adjusted_rand_index"],
    }
    for name, value in found.items():
        print(f"{name}: {value:.3g}")
    if out:
        draw(points, np.asarray(directions), np.asarray(groups.labels), out)
    return found


def draw(points, directions, labels, out):
    from matplotlib.figure import Figure

    from sphemb.viz import label_rgb

    figure = Figure(figsize=(8, 4), layout="constrained")
    for i, (title, x) in enumerate({"points": points, "normals": directions}.items()):
        axes = figure.add_subplot(1, 2, i + 1, projection="3d", title=title)
        axes.scatter(*x.T, c=label_rgb(labels, background=None), s=4)
        axes.set_box_aspect((1, 1, 1))
        axes.set_axis_off()
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="a file for the picture")
    main(out=parser.parse_args().out)
