"""All of layer 0 under the settings with which JAX looks for mistakes."""

from __future__ import annotations

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import grouping, instances, losses, metrics, sphere, warps

B, N, D, K, H, W = 2, 12, 3, 4, 6, 8
_RNG = np.random.default_rng(0)


def unit(*shape):
    x = _RNG.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


X, SEEDS, PATH = unit(B, N, D), unit(B, 5, D), unit(3, B, N, D)
LABELS = _RNG.integers(-1, 3, (B, N)).astype(np.int32)
MASK = _RNG.uniform(size=(B, N)) < 0.8
WEIGHTS = _RNG.uniform(0.5, 1, (B, N)).astype(np.float32)
LOGITS = _RNG.normal(size=(B, N, K)).astype(np.float32)
CENTROIDS = unit(K, D)
CLUSTERS = np.clip(LABELS, 0, None)
MAPS = _RNG.integers(0, 3, (B, H, W)).astype(np.int32)
TRUTH = _RNG.integers(-1, 3, (B, H, W)).astype(np.int32)
IMAGE = _RNG.uniform(0, 1, (B, H, W, 3)).astype(np.float32)
VALID = np.array([True, False])
BOX = warps.GeometricTransform(
    *np.array([[0.1, 0.2], [0.2, 0.1], [0.5, 0.7]], "f4"), VALID
)
COLOUR = warps.PhotometricTransform(
    *np.array([[1.1, 0.9]] * 3 + [[0.1, 0.2]], "f4"), VALID, np.array([0.5, 1.0], "f4")
)
KEY = jax.random.key(0)
LINE = instances.fit_scores(_RNG.normal(size=(9, 4)), _RNG.uniform(size=9))


def state(counts):
    return grouping.KMeansState(CENTROIDS, counts)


def pooled():
    return instances.pool_proposals(MAPS.reshape(B, 1, -1), max_groups=K)


def voted():
    return instances.vote_classes(CLUSTERS, np.abs(LOGITS), max_groups=K)


# A call, and what of its arguments it is differentiated in.
DIFFERENTIABLE = {
    "sphere.l2_normalize": (sphere.l2_normalize, X),
    "sphere.pairwise_dot": (sphere.pairwise_dot, X, SEEDS),
    "sphere.cosine_similarity": (sphere.cosine_similarity, X, SEEDS),
    "sphere.calibrated_similarity": (sphere.calibrated_similarity, X, SEEDS),
    "sphere.total_similarity": (sphere.total_similarity, X),
    "sphere.total_similarity_bound": (sphere.total_similarity_bound, X),
    "sphere.concentration_from_bandwidth": (
        sphere.concentration_from_bandwidth,
        np.float32(0.2),
    ),
    "sphere.bandwidth_from_concentration": (
        sphere.bandwidth_from_concentration,
        np.float32(9.0),
    ),
    "sphere.concentration_from_margin": (
        sphere.concentration_from_margin,
        np.float32(0.2),
    ),
    "sphere.margin_from_concentration": (
        sphere.margin_from_concentration,
        np.float32(20.0),
    ),
    "sphere.margin_angle": (sphere.margin_angle, np.float32(0.2)),
    "sphere.margin_from_angle": (sphere.margin_from_angle, np.float32(0.2)),
    "sphere.affinity_error": (
        sphere.affinity_error,
        unit(B, D, D),
        unit(B, K, D),
        np.abs(LOGITS[:, 0]),
    ),
    "losses.margin_loss": (
        lambda x, w, m: losses.margin_loss(x, LABELS, margin=m, weights=w, mask=MASK),
        X,
        WEIGHTS,
        np.array([0.3, 0.4], "f4"),
    ),
    "losses.margin_loss_terms": (
        lambda x: losses.margin_loss_terms(
            x, LABELS, margin=0.3, power=2, normalize="terms", block_size=8
        ),
        X,
    ),
    "losses.trajectory_margin_loss": (
        lambda x, m: losses.trajectory_margin_loss(
            x,
            LABELS,
            margin=m,
            weights=WEIGHTS,
            mask=MASK,
            step_weights=(1.0, 2.0, 3.0),
            negative_weight=np.ones(3, "f4"),
        ),
        PATH,
        np.array([0.3, 0.4, 0.5], "f4"),
    ),
    "losses.cross_entropy": (
        lambda x, w: losses.cross_entropy(x, LABELS, weights=w, mask=MASK),
        LOGITS,
        WEIGHTS,
    ),
    "losses.balanced_logistic_loss": (
        lambda x: losses.balanced_logistic_loss(x, LABELS, mask=MASK),
        LOGITS[..., 0],
    ),
    "losses.prototype_cross_entropy": (
        lambda x: losses.prototype_cross_entropy(
            x, CENTROIDS, LABELS, weights=WEIGHTS[0, :K], mask=MASK
        ),
        X,
    ),
    "losses.spectral_loss": (
        lambda x, w: losses.spectral_loss(
            x, LABELS, weights=w, mask=MASK, normalize="total", num_points=20
        ),
        X,
        WEIGHTS,
    ),
    "losses.cluster_weights": (
        lambda x: losses.cluster_weights(x, balance="inverse"),
        WEIGHTS,
    ),
    "grouping.gbms": (
        lambda x, k, e: grouping.gbms(
            x, concentration=k, step_size=e, num_steps=2, mask=MASK, block_size=8
        ),
        X,
        np.float32(9.0),
        np.float32(0.9),
    ),
    "grouping.gbms_step": (
        lambda x: grouping.gbms_step(x, concentration=9.0, custom_gradient=False),
        X,
    ),
    "grouping.gbms_trajectory": (
        lambda x, k: grouping.gbms_trajectory(x, concentration=k, num_steps=2),
        X,
        np.float32(9.0),
    ),
    "grouping.mean_shift": (
        lambda s, x, k: grouping.mean_shift(
            s, x, concentration=k, num_steps=2, mask=MASK
        ),
        SEEDS,
        X,
        np.float32(9.0),
    ),
    "grouping.append_positions": (
        lambda x, p: (
            grouping.append_positions(
                x, p, concentration=9.0, spatial_bandwidth=2.0
            ).points
        ),
        X,
        unit(B, N, 2),
    ),
    "grouping.position_vectors": (
        lambda p: grouping.position_vectors(p, periods=(4.0, 2.0)),
        unit(B, N, 2),
    ),
    "warps.apply_geometric": (lambda x: warps.apply_geometric(x, BOX), IMAGE),
    "warps.apply_geometric, one for all": (
        lambda x: warps.apply_geometric(x, jax.tree.map(lambda leaf: leaf[0], BOX)),
        IMAGE,
    ),
    "warps.apply_photometric, one for all": (
        lambda x: warps.apply_photometric(
            x, jax.tree.map(lambda leaf: leaf[0], COLOUR)
        ),
        IMAGE,
    ),
    "losses.trajectory_margin_loss, by terms": (
        lambda x: losses.trajectory_margin_loss(
            x, LABELS, margin=0.3, normalize="terms"
        ),
        PATH,
    ),
    "warps.apply_photometric": (lambda x: warps.apply_photometric(x, COLOUR), IMAGE),
    "instances.apply_scores": (instances.apply_scores, LINE, unit(B, 5, 4)),
}
OTHERS = {
    "sphere.oracle_affinity": lambda: sphere.oracle_affinity(LABELS),
    "sphere.oracle_laplacian": lambda: sphere.oracle_laplacian(LABELS),
    "sphere.oracle_spectrum": lambda: sphere.oracle_spectrum(LABELS, num_groups=K),
    "losses.instance_weights": lambda: losses.instance_weights(LABELS, mask=MASK),
    "losses.sample_pixels": lambda: losses.sample_pixels(KEY, LABELS, num_samples=5),
    "grouping.accelerated_gbms": lambda: grouping.accelerated_gbms(
        unit(B, 40, D), concentration=9.0, num_steps=2, max_points=8
    ),
    "grouping.label_modes": lambda: grouping.label_modes(
        X, max_groups=K, min_size=2, mask=MASK
    ),
    "grouping.group_padded": lambda: grouping.group_padded(
        lambda x, mask: grouping.label_modes(x, max_groups=K, mask=mask), X, mask=MASK
    ),
    "grouping.pad_points": lambda: grouping.pad_points(X, mask=MASK),
    "grouping.assign_clusters": lambda: grouping.assign_clusters(
        X, CENTROIDS, metric="spherical"
    ),
    "grouping.k_means": lambda: [
        grouping.k_means(
            X[0],
            CENTROIDS,
            num_steps=2,
            metric=metric,
            empty=empty,
            weights=WEIGHTS[0],
            mask=MASK[0],
        )
        for metric, empty in (("euclidean", "keep"), ("spherical", "farthest"))
    ],
    "grouping.update_k_means": lambda: grouping.update_k_means(
        state(WEIGHTS[0, :K]), X[0], weights=WEIGHTS[0], mask=MASK[0]
    ),
    "grouping.init_centroids": lambda: [
        grouping.init_centroids(
            KEY, X[0], num_clusters=3, method=method, weights=WEIGHTS[0], mask=MASK[0]
        )
        for method in ("k-means++", "random")
    ],
    "grouping.kwik_cluster": lambda: grouping.kwik_cluster(
        KEY, X, max_groups=K, num_orders=2, mask=MASK, unassigned="nearest"
    ),
    "grouping.group_positions": lambda: grouping.group_positions(
        4 + 3 * unit(B, H, W, 2), MAPS > 0, bandwidth=0.5, max_groups=5
    ),
    "grouping.spread_labels": lambda: grouping.spread_labels(MAPS, TRUTH >= 0),
    "grouping.orthogonal_rounding": lambda: grouping.orthogonal_rounding(
        KEY, X, num_starts=2, num_steps=3, mask=MASK
    ),
    "instances.connected_components": lambda: instances.connected_components(
        TRUTH, min_size=2
    ),
    "instances.split_components": lambda: instances.split_components(
        TRUTH, np.array([0, 1]), max_components=5, min_size=2
    ),
    "instances.near_two_instances": lambda: instances.near_two_instances(MAPS, 1),
    "instances.overlap_table": lambda: instances.overlap_table(
        CLUSTERS, LABELS, num_predicted=K, num_true=K, mask=MASK
    ),
    "instances.relabel": lambda: instances.relabel(LABELS, np.array([0, 1])),
    "instances.pool_proposals": pooled,
    "instances.vote_classes": voted,
    "instances.proposal_features": lambda: instances.proposal_features(
        MAPS,
        MAPS,
        instances.vote_classes(
            MAPS.reshape(B, -1), np.abs(unit(B, H * W, K)), max_groups=K
        ),
    ),
    "warps.apply_geometric_labels": lambda: warps.apply_geometric_labels(TRUTH, BOX),
    "warps.sample_geometric": lambda: warps.sample_geometric(KEY),
    "warps.sample_photometric": lambda: warps.sample_photometric(KEY),
    "metrics.AverageRecall": lambda: metrics.AverageRecall.from_batch(
        MAPS, TRUTH, max_predicted=K, max_true=K, valid=VALID
    ),
    "metrics.InstanceCount": lambda: metrics.InstanceCount.from_batch(
        np.array([2, 3]), TRUTH, max_true=K, valid=VALID
    ),
    "metrics.MatchedIoU": lambda: metrics.MatchedIoU.from_batch(
        MAPS, TRUTH, num_clusters=K, num_classes=K, valid=VALID
    ),
    "metrics.MatchedPrecision": lambda: metrics.MatchedPrecision.from_batch(
        MAPS, TRUTH, max_predicted=K, max_true=K, valid=VALID
    ),
    "metrics.MeanIoU": lambda: metrics.MeanIoU.from_batch(
        MAPS, TRUTH, num_classes=K, valid=VALID
    ),
    "metrics.PairScores": lambda: metrics.PairScores.from_batch(
        MAPS, TRUTH, max_predicted=K, max_true=K, valid=VALID
    ),
    "metrics.ProposalRecall": lambda: metrics.ProposalRecall.from_batch(
        MAPS.reshape(B, 1, -1), pooled(), TRUTH.reshape(B, -1), max_true=K, valid=VALID
    ),
    "metrics.ReachedLimit": lambda: metrics.ReachedLimit.from_batch(
        np.array([True, False]), name="a", valid=VALID
    ),
}


def total(tree):
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    squares = [jnp.sum(jnp.square(x)) for x in floats]
    return functools.reduce(lambda a, b: a + b, squares)


def differentiated(function, *arguments):
    """The value of a function, and its gradient in all arguments."""

    def loss(arguments):
        return total(function(*arguments))

    return function(*arguments), jax.grad(loss)(arguments)


CALLS = OTHERS | {
    name: functools.partial(differentiated, *call)
    for name, call in DIFFERENTIABLE.items()
}


def functions_of_arrays():
    """All public functions of layer 0 that JAX traces, and the metrics of batches."""
    for package in (sphere, losses, grouping, instances, warps, metrics):
        for name in package.__all__:
            value = getattr(package, name)
            function = getattr(value, "from_batch", None)
            function = value if inspect.isfunction(value) else function
            if function is None:
                continue
            first = next(iter(inspect.signature(function).parameters.values()), None)
            if first and re.search("jax.Array|ArrayLike|KMeansState", first.annotation):
                yield f"{package.__name__.rpartition('.')[2]}.{name}"


def test_every_function_of_arrays_is_tried():
    missing = set(functions_of_arrays()) - set(CALLS)
    assert not missing


# A trace is enough: shapes and dtypes are all that these settings look at.
@pytest.mark.parametrize("name", CALLS)
def test_no_rank_is_promoted(name):
    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(CALLS[name])
