"""Grouping at a size that is known only when the exported function is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from sphemb import InputError
from sphemb.grouping import gbms, group_padded, kwik_cluster, label_modes


def group(points, mask):
    moved = gbms(points[0], concentration=25.0, num_steps=3, mask=mask[0])
    return label_modes(moved[None], max_groups=4, min_size=2, mask=mask)


def cluster(points, mask):
    return kwik_cluster(jax.random.key(0), points, max_groups=4, mask=mask)


def grouped(function, with_mask):
    def call(points, mask):
        return group_padded(
            function, points, mask=mask if with_mask else None
        )._asdict()

    return call


def noisy_points(number):
    rng = np.random.default_rng(number)
    points = np.eye(3)[np.arange(number) % 3] + 0.1 * rng.standard_normal((number, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    mask = np.arange(number)[None] < number - 2
    return jnp.asarray(points[None], jnp.float32), jnp.asarray(mask)


@pytest.mark.parametrize("function", [group, cluster])
def test_a_symbol_gives_what_its_number_gives(function):
    (number,) = export.symbolic_shape("n", constraints=["n >= 9", "n <= 13"])
    arguments = (
        jax.ShapeDtypeStruct((1, number, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, number), bool),
    )
    call = grouped(function, with_mask=function is group)
    exported = export.export(jax.jit(call))(*arguments)
    for size in (9, 13):  # the first is filled up to 10, the other to 14
        points, mask = noisy_points(size)
        wanted, found = call(points, mask), exported.call(points, mask)
        assert found["labels"].shape == (1, size)
        assert int(wanted["num_groups"][0]) == 3
        for name in ("labels", "sizes", "num_groups"):
            np.testing.assert_array_equal(found[name], wanted[name])


def test_the_labels_have_the_length_of_the_points():
    points, mask = noisy_points(9)
    found = group_padded(group, points, mask=mask)
    assert found.labels.shape == (1, 9)
    np.testing.assert_array_equal(found.labels >= 0, mask)


def test_a_symbol_without_a_bound_is_refused():
    (number,) = export.symbolic_shape("n", constraints=["n >= 9"])
    call = grouped(group, with_mask=False)
    points = jax.ShapeDtypeStruct((1, number, 3), jnp.float32)
    with pytest.raises(InputError, match=r"at most 16,777,216, got n without such"):
        export.export(jax.jit(lambda points: call(points, None)))(points)
