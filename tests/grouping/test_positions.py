"""Groups of pixels by positions, against a climb on the exact density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.grouping import group_positions

H, W = 20, 24
CENTERS = np.array([[4.0, 5.0], [5.0, 12.0], [14.0, 4.0], [13.0, 18.0], [16.0, 12.0]])


def drawn(seed):
    """Pixels that point at the nearest of five centers, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.stack(np.mgrid[:H, :W], axis=-1).astype(float)
    apart = np.linalg.norm(pixels[..., None, :] - CENTERS, axis=-1)
    true = np.where(apart.min(axis=-1) < 4, apart.argmin(axis=-1) + 1, 0)
    positions = CENTERS[true - 1] + rng.normal(0, 1.0, (H, W, 2))
    return positions.astype(np.float32), true


def climbed(positions, mask, bandwidth):
    """The mode of every pixel in float64, one step at a time."""
    cells = np.clip(np.rint(positions), 0, [H - 1, W - 1]).astype(int)
    grid = np.stack(np.mgrid[:H, :W], axis=-1)
    square = ((grid[:, :, None] - cells[mask]) ** 2).sum(axis=-1)
    near = np.abs(grid[:, :, None] - cells[mask]).max(axis=-1) <= np.ceil(3 * bandwidth)
    density = (np.exp(-square / (2 * bandwidth**2)) * near).sum(axis=-1)

    def mode(cell):
        while True:
            rows, columns = (slice(max(c - 1, 0), c + 2) for c in cell)
            part = density[rows, columns]
            highest = np.unravel_index(part.argmax(), part.shape)
            found = tuple(
                int(h + s.start) for h, s in zip(highest, (rows, columns), strict=True)
            )
            if found == cell:
                return cell
            cell = found

    return {
        pixel: mode(tuple(cells[pixel]))
        for pixel in zip(*np.nonzero(mask), strict=True)
    }


def partition(labels, mask):
    groups = {}
    for pixel in zip(*np.nonzero(mask), strict=True):
        groups.setdefault(labels[pixel], set()).add(pixel)
    return {frozenset(pixels) for pixels in groups.values()}


@pytest.mark.parametrize("bandwidth", [1.0, 2.0])
def test_each_pixel_has_the_mode_that_its_position_climbs_to(bandwidth):
    drawings = [drawn(seed) for seed in (0, 1)]
    positions = np.stack([d[0] for d in drawings])
    mask = np.stack([d[1] > 0 for d in drawings])
    found = group_positions(positions, mask, bandwidth=bandwidth, max_groups=300)
    for i in range(2):
        labels = np.asarray(found.labels[i])
        expected = climbed(positions[i], mask[i], bandwidth)
        assert partition(labels, mask[i]) == partition(expected, mask[i])
        sizes = np.bincount(labels[mask[i]])
        assert len(sizes) - 1 == found.num_groups[i] >= len(CENTERS)
        assert (np.diff(sizes[1:]) <= 0).all()
        assert (labels[~mask[i]] == 0).all()


def test_close_positions_are_one_group_each():
    _, true = drawn(2)
    exact = CENTERS[true - 1].astype(np.float32)
    found = group_positions(exact, true > 0, bandwidth=2.0, max_groups=8)
    assert found.num_groups == len(CENTERS)
    assert partition(np.asarray(found.labels), true > 0) == partition(true, true > 0)


def test_small_groups_and_those_beyond_the_limit_go_to_their_neighbors():
    # Two halves, and one pixel inside the first and one far away that point elsewhere.
    positions = np.zeros((8, 20, 2), np.float32)
    positions[:, :10], positions[:, 10:] = (4, 4), (4, 15)
    positions[2, 3] = (0, 10)
    mask = np.ones((8, 20), bool)
    mask[:, 17:] = False
    mask[7, 19], positions[7, 19] = True, (7, 19)
    labels = np.repeat([1, 2, 0], [10, 7, 3])[None].repeat(8, axis=0)
    found = group_positions(positions, mask, bandwidth=1.0, max_groups=9, min_size=2)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.num_groups == 2
    few = group_positions(positions, mask, bandwidth=1.0, max_groups=1, min_size=2)
    assert few.num_groups == 2
    np.testing.assert_array_equal(few.labels, labels > 0)


def test_groups_with_low_scores_are_left_out():
    """Not even the group beside it takes the pixels of one that is left out."""
    positions, true = drawn(3)
    positions, mask = CENTERS[true - 1].astype(np.float32), true > 0
    scores = np.where(true == 2, 0.5, 0.9).astype(np.float32)
    scores[4, 5] = 0.0  # of one pixel; the mean decides
    args = {"bandwidth": 2.0, "max_groups": 9, "min_size": 2}
    every = group_positions(positions, mask, **args)
    found = group_positions(positions, mask, scores=scores, min_score=0.6, **args)
    assert (every.num_groups, found.num_groups) == (len(CENTERS), len(CENTERS) - 1)
    labels, left = np.asarray(found.labels), mask & (true != 2)
    assert (labels[~left] == 0).all()
    assert partition(labels, left) == partition(true, left)
    assert set(np.unique(labels[left])) == {1, 2, 3, 4}


def test_positions_outside_and_nan_do_no_harm():
    positions = np.full((4, 4, 2), 1e9, np.float32)
    positions[0, 0] = np.nan
    found = group_positions(positions, np.ones((4, 4), bool), bandwidth=1, max_groups=4)
    assert found.labels[1, 1] == found.labels[3, 3] == 1
    assert found.num_groups == 2


def test_memory_is_linear_in_the_pixels():
    shapes = [jax.ShapeDtypeStruct((512, 512, *tail), t) for tail, t in (
        ((2,), jnp.float32), ((), bool))]  # fmt: skip
    group = jax.jit(lambda p, m: group_positions(p, m, bandwidth=2.0, max_groups=1000))
    used = group.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert used < 100 * 512**2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((4, 4))}, "positions must"),
        ({"positions": np.zeros((4, 4, 2), int)}, "positions must be"),
        ({"mask": np.ones((4, 5), bool)}, "mask must have shape"),
        ({"bandwidth": 0.0}, "0 < bandwidth, got 0.0"),
        ({"max_groups": 0}, "max_groups must be >= 1"),
        ({"min_size": 0}, "min_size must be >= 1"),
        ({"scores": np.zeros((4, 5))}, "scores must have shape"),
        ({"scores": np.zeros((4, 4), int)}, "scores must be"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    given = {"positions": np.zeros((4, 4, 2)), "mask": np.ones((4, 4), bool)}
    given |= {"bandwidth": 1.0, "max_groups": 2, **change}
    with pytest.raises(InputError, match=message):
        group_positions(given.pop("positions"), given.pop("mask"), **given)
