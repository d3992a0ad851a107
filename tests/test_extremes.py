"""Every pure function at the ends of float32: finite, and what float64 says.

Points are drawn from a few awkward ones (zeros, duplicates, opposites, very large and
very small ones), labels from few, masks often of nobody, so that bad luck meets often.
Tolerances are relative to the largest entry of the float64 result, or to 1.
"""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import sphemb
from sphemb import VOID, grouping, losses, sphere

SHAPES = [
    (8, 3),
    pytest.param((8, 1), marks=pytest.mark.nightly),
    pytest.param((1, 3), marks=pytest.mark.nightly),
    (1, 1),
]
KEY = 7
FEW = hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None
)
# Rows are unit vectors but where a case says that it takes any.
POOL = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [1e-4, 1, 0], [3, 4, 12]])
WILD = np.array([0.0, 1e-38, -1e-30, 1e-19, 1.0, -2.0, 1e15, -3e18])


def unit(x):
    return sphere.l2_normalize(x)


def total(tree):
    """A number that every entry of a result has a part in."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(
        jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape))
        for leaf in leaves
    )


# Name -> function of points [N, D], labels [N], mask [N] and kappa, differentiable.
CASES = {
    "l2_normalize": lambda x, y, m, k: unit(x),
    "calibrated_similarity": lambda x, y, m, k: sphere.calibrated_similarity(
        unit(x), unit(x)
    ),
    "cosine_similarity": lambda x, y, m, k: sphere.cosine_similarity(x, x),
    "margin_loss": lambda x, y, m, k: losses.margin_loss(
        unit(x), y, margin=0.5, mask=m, weights=losses.instance_weights(y, mask=m)
    ),
    "margin_loss, terms, squared": lambda x, y, m, k: losses.margin_loss(
        unit(x), y, margin=0.2, mask=m, normalize="terms", power=2
    ),
    "spectral_loss": lambda x, y, m, k: losses.spectral_loss(unit(x), y, mask=m),
    "cross_entropy": lambda x, y, m, k: losses.cross_entropy(
        k * x, jnp.clip(y, VOID, x.shape[-1] - 1), mask=m
    ),
    "balanced_logistic_loss": lambda x, y, m, k: losses.balanced_logistic_loss(
        k * x[:, 0], jnp.clip(y, VOID, 1), mask=m
    ),
    "prototype_cross_entropy": lambda x, y, m, k: losses.prototype_cross_entropy(
        unit(x), jnp.eye(x.shape[-1]) * 2, jnp.clip(y, 0, x.shape[-1] - 1), mask=m
    ),
    "gbms_step": lambda x, y, m, k: grouping.gbms_step(
        unit(x), concentration=k, mask=m
    ),
    "gbms": lambda x, y, m, k: grouping.gbms(
        unit(x), concentration=k, num_steps=3, step_size=0.5, mask=m
    ),
    "mean_shift": lambda x, y, m, k: grouping.mean_shift(
        unit(x), unit(x), concentration=k, num_steps=2, mask=m
    ),
    "trajectory_margin_loss": lambda x, y, m, k: losses.trajectory_margin_loss(
        grouping.gbms_trajectory(unit(x), concentration=k, num_steps=2, mask=m),
        y,
        margin=0.4,  # at .5 right angles are on the hinge, where rounding decides
        mask=m,
    ),
}


@functools.cache
def compiled(name, shape, wide):
    del shape, wide  # one program for each; the arguments' types say which
    function = CASES[name]

    def both(x, y, m, k):
        def scalar(x):
            return total(function(x, y, m, k))

        return function(x, y, m, k), jax.grad(scalar)(x)

    return jax.jit(both)


def call(name, points, labels, mask, kappa, dtype):
    with jax.enable_x64(dtype == np.float64):
        found = compiled(name, points.shape, dtype == np.float64)(
            jnp.asarray(points, dtype),
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(mask),
            jnp.asarray(kappa, dtype),
        )
        return jax.tree.map(np.asarray, found)


@st.composite
def scenes(draw, shape, *, wild=False):
    number, dim = shape
    rows = st.integers(0, len(POOL) - 1)
    points = POOL[draw(st.lists(rows, min_size=number, max_size=number)), :dim]
    if wild:
        entry = st.sampled_from(WILD.tolist())
        flat = draw(st.lists(entry, min_size=number * dim, max_size=number * dim))
        points = np.array(flat).reshape(shape)
    label = st.integers(-1, 2)
    labels = draw(st.lists(label, min_size=number, max_size=number))
    mask = draw(st.lists(st.booleans(), min_size=number, max_size=number))
    if draw(st.booleans()):
        mask = [draw(st.booleans())] * number
    kappa = draw(st.sampled_from([1e-3, 1.0, 36.0, 1e3, 1e4]))
    return np.float32(points), np.array(labels), np.array(mask), np.float32(kappa)


def assert_near(found, expected, *, relative, name):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(a).all(), name
        assert np.isfinite(b).all(), name
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * scale, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_finite_and_those_of_float64(name, shape):
    @FEW
    @hypothesis.given(scenes(shape))
    def check(scene):
        value, gradient = call(name, *scene, np.float32)
        value64, gradient64 = call(name, *scene, np.float64)
        assert_near(value, value64, relative=2e-5, name=name)
        assert_near(gradient, gradient64, relative=1e-3, name=f"{name}, gradient")

    check()


@pytest.mark.parametrize("name", ["l2_normalize", "cosine_similarity", "margin_loss"])
def test_vectors_of_any_length_have_a_direction(name):
    @FEW
    @hypothesis.given(scenes((8, 3), wild=True))
    def check(scene):
        value, gradient = call(name, *scene, np.float32)
        for leaf in jax.tree.leaves((value, gradient)):
            assert np.isfinite(leaf).all()

    check()


class TestGroupings:
    """What has no gradient: every point that counts has a group, and no other."""

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_labels_are_in_range_and_duplicates_share_theirs(self, shape):
        methods = {
            "label_modes": jax.jit(
                lambda x, m: sphemb.label_modes(x, max_groups=8, mask=m).labels
            ),
            "kwik_cluster": jax.jit(
                lambda x, m: (
                    grouping.kwik_cluster(
                        jax.random.key(KEY), x, max_groups=8, mask=m
                    ).labels
                )
            ),
            "orthogonal_rounding": jax.jit(
                lambda x, m: (
                    grouping.orthogonal_rounding(
                        jax.random.key(KEY), x, num_steps=5, mask=m
                    ).labels
                )
            ),
            "k_means": jax.jit(
                lambda x, m: (
                    grouping.k_means(
                        x,
                        grouping.init_centroids(
                            jax.random.key(KEY), x, num_clusters=min(3, len(x)), mask=m
                        ),
                        mask=m,
                        num_steps=3,
                    ).labels
                )
            ),
        }

        @FEW
        @hypothesis.given(scenes(shape))
        def check(scene):
            points, _, mask, _ = scene
            points = unit(jnp.asarray(points))
            for name, method in methods.items():
                labels = np.asarray(method(points, jnp.asarray(mask)))
                assert (labels[~mask] == VOID).all(), name
                assert (labels[mask] >= VOID).all(), name
                assert (labels < 8).all(), name
                rows = np.asarray(points)
                for i, j in np.argwhere((rows[:, None] == rows).all(axis=-1)):
                    # A zero has no direction, and nothing in common with another.
                    if mask[i] and mask[j] and rows[i].any():
                        assert labels[i] == labels[j], name

        check()

    def test_the_accelerated_mean_shift_stays_finite(self):
        shift = jax.jit(
            lambda x, m, k: sphemb.accelerated_gbms(
                x, concentration=k, num_steps=3, mask=m
            )
        )

        @FEW
        @hypothesis.given(scenes((8, 3)))
        def check(scene):
            points, _, mask, kappa = scene
            found = shift(unit(jnp.asarray(points)), jnp.asarray(mask), kappa)
            lengths = np.linalg.norm(np.asarray(found), axis=-1)
            assert np.isfinite(lengths).all()
            counts = mask & points.any(axis=-1)
            np.testing.assert_allclose(lengths[counts], 1, atol=1e-5)

        check()
