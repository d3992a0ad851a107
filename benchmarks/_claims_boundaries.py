"""Claims about the embeddings of a boundary detector."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from benchmarks._claims_images import read_out
from benchmarks._claims_records import Effect, over_images
from sphemb import InputError
from sphemb.tasks import Boundaries
from sphemb.training import load_config, load_run

_POSITIVE = (0.0, None)
_WIDTH, _PIXELS, _SMOOTHING = 5.0, 1000, 2.0
# Columns of `geometry`, and the change of R² that the paper claims.
TARGETS = {
    "orientation": (slice(0, 2), _POSITIVE),
    "distance": (slice(2, 3), None),
    "signed distance": (slice(3, 4), _POSITIVE),
}


def geometry(boundary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Measures where pixels lie relative to a boundary pixel, up to 5 pixels away.

    The normal at a boundary pixel is the direction in which the smoothed boundary
    bends most, by its Hessian; of its two signs the one that points down, or to the
    right if it is horizontal.

    Args:
        boundary: bool [H, W], not empty.

    Returns:
        The pixels, bool [H, W], and of each [P, 4]: :math:`\cos 2\theta` and
        :math:`\sin 2\theta` of the normal, the distance, and its component along the
        normal, in pixels.
    """
    smooth = boundary.astype(float)
    orders = {"yy": (2, 0), "yx": (1, 1), "xx": (0, 2)}
    bend = {
        name: ndimage.gaussian_filter(smooth, _SMOOTHING, order)
        for name, order in orders.items()
    }
    # The eigenvector of the smaller eigenvalue: on a ridge it is the negative one.
    twice = np.arctan2(-2.0 * bend["yx"], bend["yy"] - bend["xx"])
    normal = np.mod(twice / 2.0, np.pi)  # from x to y, which points down
    found: Any = ndimage.distance_transform_edt(~boundary, return_indices=True)
    distance, nearest = found
    near = distance <= _WIDTH
    rows, columns = nearest[:, near]
    angle = normal[rows, columns]
    dy, dx = np.argwhere(near).T - (rows, columns)
    signed = dy * np.sin(angle) + dx * np.cos(angle)
    parts = np.cos(2 * angle), np.sin(2 * angle), distance[near], signed
    return near, np.stack(parts, axis=1)


def vectors_and_targets(
    workdir: pathlib.Path, number: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each test image the vectors of all branches at some pixels, and `geometry`.

    A boundary is what two annotators at least have marked.
    """
    trained = load_run(workdir)
    experiment, task = trained.experiment, trained.experiment.task
    if not isinstance(task, Boundaries):
        kind = type(task).__name__
        raise InputError(f"{workdir} must be a run of configs/bsds.py, got {kind}")

    @jax.jit
    def branches(batch):
        found = task.predict(trained.apply, trained.task_state, batch)
        return jnp.moveaxis(found.branches[0], 0, -2)

    rows = []
    indices = experiment.usable("test", number)
    for batch in experiment.one_pass("test", indices, batch_size=1):
        inside = batch["mask"][0]
        height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
        marked = (batch["boundaries"][0] > 0).sum(axis=0)[:height, :width] >= 2
        if not marked.any():
            continue
        near, targets = geometry(marked)
        seen = {name: jnp.asarray(batch[name]) for name in ("image", "mask")}
        vectors = np.asarray(branches(seen))[:height, :width][near]
        vectors = vectors.reshape(len(targets), -1)
        chosen = np.random.default_rng(len(rows)).permutation(len(targets))[:_PIXELS]
        rows.append((vectors[chosen], targets[chosen]))
    return rows


def measure_boundary_embeddings(flags: argparse.Namespace) -> list[Effect]:
    """Measures R² of linear read-outs, before and after the fine-tuning."""
    start = load_config(flags.finetuned).train.init_from
    if pathlib.Path(start or "").absolute() != flags.workdir.absolute():
        raise InputError(
            f"--finetuned must be a run that started from {flags.workdir}, got one "
            f"that started from {start}"
        )
    shares = []
    for workdir in (flags.workdir, flags.finetuned):
        rows = vectors_and_targets(workdir, flags.number)
        shares.append(read_out(rows[::2], rows[1::2]))
    effects = []
    for name, (columns, claimed) in TARGETS.items():
        (before, total), (after, _) = (
            (residual[:, columns].sum(axis=1), total[:, columns].sum(axis=1))
            for residual, total in shares
        )
        effects += [
            over_images(f"{name}, before", total - before, total),
            over_images(f"{name}, after", total - after, total),
            over_images(f"{name}, difference", before - after, total, claimed=claimed),
        ]
    return effects
