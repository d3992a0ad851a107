"""Classes, features and scores of proposals: G groups, C classes, F features."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    InputError,
    check_count,
    check_floating,
    check_integer,
    check_number,
    check_shape,
)
from sphemb._shards import share_out
from sphemb.instances._morphology import connected_components


class Votes(NamedTuple):
    """The class of every group by the vote of its pixels."""

    # [..., G] int32, 1..C-1, of the largest mean probability; 0 for an empty group.
    classes: jax.Array
    probability: jax.Array  # [..., G], that mean
    background: jax.Array  # [..., G], the mean probability of the background


def vote_classes(
    labels: jax.Array, probabilities: jax.Array, *, max_groups: int
) -> Votes:
    r"""Chooses the class of every group by the vote of its pixels.

    .. math:: \bar p_{gc} = \frac{1}{|R_g|} \sum_{i \in R_g} p_{ic}, \qquad
              c_g = \arg\max_{c > 0} \bar p_{gc}

    Labels are int [..., N], groups 0..G-1, others do not vote; probabilities p are
    [..., N, C], class 0 is the background. ``max_groups`` is G; static.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4: "a simple voting strategy".

    >>> votes = vote_classes(jnp.array([0, 0]), jnp.array([[0.0, 0.9, 0.1]] * 2),
    ...                      max_groups=1)
    >>> votes.classes.tolist()
    [1]
    """
    check_integer("labels", labels)
    check_floating("probabilities", probabilities)
    dims = check_shape("labels", labels, "... N")
    dims |= {"C": check_shape("probabilities", probabilities, "... N C")["C"]}
    check_shape("probabilities", probabilities, "... N C", dims=dims, beside="labels")
    check_count("the number of classes", dims["C"], at_least=2)
    check_count("max_groups", max_groups, at_least=1)
    return _votes(labels, probabilities, max_groups=int(max_groups))


@functools.partial(jax.jit, static_argnames="max_groups")
def _votes(labels, probabilities, *, max_groups: int) -> Votes:
    return share_out(
        functools.partial(_votes_here, max_groups),
        (probabilities, labels),
        ("... N C", "... N"),
        Votes._make(["... G"] * 3),
    )


def _votes_here(max_groups: int, probabilities, labels) -> Votes:
    batch, number = labels.shape[:-1], labels.shape[-1]

    def sums(labels: jax.Array, values: jax.Array) -> jax.Array:
        inside = (labels >= 0) & (labels < max_groups)
        group = jnp.where(inside, labels, max_groups)
        total = jnp.zeros((max_groups, values.shape[-1]), values.dtype)
        return total.at[group].add(values, mode="drop")

    ones = jnp.ones_like(probabilities[..., :1])
    values = jnp.concatenate([probabilities, ones], axis=-1)
    flat = values.reshape(math.prod(batch), number, -1)
    totals = jax.vmap(sums)(labels.reshape(math.prod(batch), number), flat)
    totals = totals.reshape(*batch, max_groups, -1)
    sizes = totals[..., -1]
    means = totals[..., :-1] / jnp.maximum(sizes, 1.0)[..., None]
    chosen = 1 + jnp.argmax(means[..., 1:], axis=-1).astype(jnp.int32)
    return Votes(
        classes=jnp.where(sizes > 0, chosen, 0),
        probability=jnp.where(sizes > 0, jnp.max(means[..., 1:], axis=-1), 0.0),
        background=means[..., 0],
    )


PROPOSAL_FEATURES = (
    "size",  # the square root of its share of the image
    "connectedness",  # the share of the largest connected component
    "fill",  # the share of its bounding box
    "aspect",  # shorter side of the box over the longer one
    "height",  # of the box, as a share of the image's
    "border",  # 1 if the box reaches the image's border
    "probability",  # of the voted class, less the background's
    "agreement",  # the share of its pixels that have this class in the map
    "class_iou",  # IoU with all pixels of this class in the map
)
"""The columns of :func:`proposal_features`, 0 for an empty group."""


def proposal_features(
    labels: jax.Array, classes: jax.Array, votes: Votes, *, mask: Any = None
) -> jax.Array:
    """Describes the shape of every group and its consistency with a map of classes.

    Args:
        labels: int [..., H, W], groups 0..G-1; pixels of others belong to none.
        classes: int [..., H, W], the class of every pixel.
        votes: of the groups, [..., G].
        mask: bool [..., H, W], False in padding; the image is the box around the rest.

    Returns:
        float32 [..., G, 9], in the order of `PROPOSAL_FEATURES`.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4.

    >>> labels = jnp.array([[0, 0, 1, 1], [0, 0, 1, -1]])
    >>> votes = Votes(jnp.array([2, 3]), jnp.array([0.9, 0.5]), jnp.zeros(2))
    >>> features = proposal_features(labels, jnp.full((2, 4), 2), votes)
    >>> features[:, 2].tolist(), features[:, 7].tolist()
    ([1.0, 0.75], [1.0, 0.0])
    """
    check_integer("labels", labels)
    check_integer("classes", classes)
    dims = check_shape("labels", labels, "... H W")
    check_shape("classes", classes, "... H W", dims=dims, beside="labels")
    groups = check_shape("votes.classes", votes.classes, "... G")["G"]
    check_count("the number of groups", groups, at_least=1)
    labels = jnp.asarray(labels)
    if mask is None:
        mask = jnp.ones_like(labels, bool)
    return _features(labels, classes, mask, votes, groups=groups)


@functools.partial(jax.jit, static_argnames="groups")
def _features(labels, classes, mask, votes: Votes, *, groups: int) -> jax.Array:
    return share_out(
        functools.partial(_features_here, groups),
        (labels, classes, mask, *votes),
        ("... H W", "... H W", "... H W", "... G", "... G", "... G"),
        "... G F",
    )


def _features_here(groups: int, labels, classes, mask, *votes) -> jax.Array:
    batch, size = labels.shape[:-2], labels.shape[-2:]
    flat = (math.prod(batch), *size)
    labels = jnp.where(mask & (labels < groups), labels, -1)
    features = jax.vmap(_describe, in_axes=(0, 0, 0, 0, 0, None))(
        labels.reshape(flat),
        connected_components(labels).reshape(flat),
        classes.reshape(flat),
        jnp.broadcast_to(mask, labels.shape).reshape(flat),
        Votes(*(vote.reshape(flat[0], groups) for vote in votes)),
        groups,
    )
    return features.reshape(*batch, groups, len(PROPOSAL_FEATURES))


def _describe(labels, components, classes, mask, votes: Votes, groups: int):
    """The features [G, F] of the groups of one image [H, W]."""
    height, width = labels.shape
    group = jnp.where(labels >= 0, labels, groups).reshape(-1)

    def count(where: jax.Array) -> jax.Array:
        ones = where.reshape(-1).astype(jnp.float32)
        return jnp.zeros(groups).at[group].add(ones, mode="drop")

    sizes = count(labels >= 0)
    rows, columns = (
        jax.lax.broadcasted_iota(jnp.int32, labels.shape, axis).reshape(-1)
        for axis in (0, 1)
    )

    def extent(values: jax.Array, last: int) -> tuple[jax.Array, jax.Array]:
        first = jnp.full(groups, last).at[group].min(values, mode="drop")
        return first, jnp.zeros(groups, int).at[group].max(values, mode="drop")

    top, bottom = extent(rows, height)
    left, right = extent(columns, width)
    high = (bottom - top + 1).astype(jnp.float32)
    wide = (right - left + 1).astype(jnp.float32)
    # The image without its padding, which lies below and to the right of it.
    tall = jnp.max(jnp.where(mask.any(axis=1), jnp.arange(height) + 1, 0))
    broad = jnp.max(jnp.where(mask.any(axis=0), jnp.arange(width) + 1, 0))
    at_border = (top == 0) | (left == 0) | (bottom == tall - 1) | (right == broad - 1)
    tall, broad = tall.astype(jnp.float32), broad.astype(jnp.float32)
    component = jnp.where(components >= 0, components, labels.size).reshape(-1)
    component_sizes = jnp.zeros(labels.size).at[component].add(1.0, mode="drop")
    own_size = component_sizes.at[component].get(mode="fill", fill_value=0.0)
    largest = jnp.zeros(groups).at[group].max(own_size, mode="drop")

    voted = jnp.append(votes.classes, -1)[group].reshape(labels.shape)
    agreeing = count((classes == voted) & (labels >= 0))
    pixels = jax.vmap(lambda c: jnp.sum((classes == c) & mask, dtype=jnp.float32))
    of_class = pixels(votes.classes)
    features = [
        jnp.sqrt(sizes / jnp.maximum(tall * broad, 1)),
        largest / jnp.maximum(sizes, 1.0),
        sizes / jnp.maximum(high * wide, 1),
        jnp.minimum(high, wide) / jnp.maximum(jnp.maximum(high, wide), 1),
        high / jnp.maximum(tall, 1),
        at_border.astype(jnp.float32),
        votes.probability - votes.background,
        agreeing / jnp.maximum(sizes, 1.0),
        agreeing / jnp.maximum(sizes + of_class - agreeing, 1.0),
    ]
    table = jnp.stack([f.astype(jnp.float32) for f in features], axis=-1)
    return jnp.where(sizes[:, None] > 0, table, 0.0)


class LinearScore(NamedTuple):
    """A linear function of standardized features; a pytree of float32 arrays."""

    mean: jax.Array  # [F], subtracted from the features
    scale: jax.Array  # [F], the divisor of the difference
    slope: jax.Array  # [F]
    offset: jax.Array  # [], the score of mean features


def fit_scores(
    features: np.ndarray, targets: np.ndarray, *, ridge: float = 1.0
) -> LinearScore:
    r"""Fits a linear score regression by least squares, in NumPy in float64.

    .. math:: \min_{a, b} \sum_m \Big(t_m - b - \sum_f a_f
              \frac{x_{mf} - \bar x_f}{\sigma_f}\Big)^2 + \lambda \lVert a \rVert^2

    for features x, [M, F], and targets t, [M], such as the IoU with the best object;
    ``ridge`` is :math:`\lambda`. Constant features get the slope 0.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4: "a linear regressor".

    >>> linear = fit_scores(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0]),
    ...                     ridge=0.0)
    >>> round(float(apply_scores(linear, jnp.array([[3.0]]))[0]), 3)
    7.0
    """
    dims = check_shape("features", features, "M F")
    check_shape("targets", targets, "M", dims={"M": dims["M"]}, beside="features")
    check_number("ridge", ridge, at_least=0)
    x, t = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    if not len(x):
        raise InputError("features must be those of one proposal at least, got none")
    if not (np.isfinite(x).all() and np.isfinite(t).all()):
        raise InputError("features and targets must be finite, got NaN or infinity")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)
    z = (x - mean) / scale
    # As more rows of the same problem, lambda squares no condition number.
    rows = np.concatenate([z, np.sqrt(ridge) * np.eye(x.shape[1])])
    wanted = np.concatenate([t - t.mean(), np.zeros(x.shape[1])])
    slope = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    scale = np.where(np.isinf(scale), 1.0, scale)
    parts = (mean, scale, slope, t.mean())
    return LinearScore(*(jnp.asarray(part, jnp.float32) for part in parts))


def apply_scores(linear: LinearScore, features: jax.Array) -> jax.Array:
    """Scores proposals [..., F] by a linear regression of :func:`fit_scores`, [...]."""
    wanted = {"F": jnp.shape(linear.mean)[0]}
    check_shape("features", features, "... F", dims=wanted, beside="linear")
    features = jnp.asarray(features)
    mean, scale = (jnp.broadcast_to(v, features.shape) for v in linear[:2])
    z, slope = (features - mean) / scale, jnp.asarray(linear.slope)
    precision = jax.lax.Precision.HIGHEST
    return linear.offset + jnp.einsum("...f,f->...", z, slope, precision=precision)


class SelectedDetections(NamedTuple):
    """The detections of one image."""

    labels: np.ndarray  # int32 [H, W], 0 none, 1.. by falling score, the best on top
    classes: np.ndarray  # int [M], the class of detection 1, 2,
    scores: np.ndarray  # float [M]
    masks: np.ndarray  # bool [M, H, W], each whole, with what others cover


def select_detections(
    label_maps: np.ndarray,
    *,
    scores: np.ndarray,
    classes: np.ndarray,
    min_score: float = -np.inf,
    max_overlap: float = 0.5,
) -> SelectedDetections:
    """Selects proposals by falling score and drops those that are mostly covered.

    Label maps int [H, W] or [K, H, W] have groups 0..G-1 with scores and classes [G] or
    [K, G]; a score of -inf means no proposal. ``max_overlap`` is the share that better
    ones may cover of a proposal.

    >>> found = select_detections(np.array([[[0, 0, 1, 1]], [[0, 0, 0, 1]]]),
    ...                           scores=np.array([[0.9, 0.2], [0.3, 0.8]]),
    ...                           classes=np.array([[5, 6], [7, 8]]))
    >>> found.labels.tolist(), found.classes.tolist(), found.scores.tolist()
    ([[1, 1, 3, 2]], [5, 8, 6], [0.9, 0.8, 0.2])
    """
    check_integer("label_maps", label_maps)
    check_floating("scores", scores)
    check_integer("classes", classes)
    label_maps = np.asarray(label_maps)
    scores, classes = np.asarray(scores, np.float64), np.asarray(classes)
    label_maps = label_maps[None] if label_maps.ndim == 2 else label_maps
    scores = scores[None] if scores.ndim == 1 else scores
    classes = classes[None] if classes.ndim == 1 else classes
    maps = {"K": check_shape("label_maps", label_maps, "K H W")["K"]}
    dims = check_shape("scores", scores, "K G", dims=maps, beside="label_maps")
    check_shape("classes", classes, "K G", dims=dims, beside="scores")
    check_number("max_overlap", max_overlap, at_least=0, at_most=1)
    labels = np.zeros(label_maps.shape[1:], np.int32)
    chosen, masks = [], []
    order = np.argsort(-scores, axis=None, kind="stable")
    for k, g in zip(*np.unravel_index(order, scores.shape), strict=True):
        if not np.isfinite(scores[k, g]) or scores[k, g] < min_score:
            break
        mask = label_maps[k] == g
        size = int(mask.sum())
        if not size or np.sum(mask & (labels > 0)) > max_overlap * size:
            continue
        chosen.append((k, g))
        masks.append(mask)
        labels[mask & (labels == 0)] = len(chosen)
    index = tuple(np.array(chosen, int).reshape(-1, 2).T)
    masks = np.array(masks, bool).reshape(-1, *labels.shape)
    return SelectedDetections(labels, classes[index], scores[index], masks)
