"""Proposals of several label maps, pooled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.instances import pool_proposals
from tests.references import proposals as reference

B, K, N, G = 3, 4, 60, 5
pool_of = jax.jit(
    functools.partial(pool_proposals, max_groups=G, min_size=3),
    static_argnames=("max_iou",),
)


def drawn(seed=0, change=0.15):
    """Maps that are noisy copies of one another under other names."""
    rng = np.random.default_rng(seed)
    first = np.sort(rng.integers(0, G, (B, 1, N)), axis=-1)
    labels = np.stack([rng.permutation(G)[first[:, 0]] for _ in range(K)], axis=1)
    noise = rng.integers(-1, G + 1, labels.shape)
    return np.where(rng.random(labels.shape) < change, noise, labels)


def chosen(pool, n=1000):
    """The (map, group) of the first n proposals of every image."""
    found = []
    for source, group, rank in zip(pool.source, pool.group, pool.rank, strict=True):
        order = np.argsort(rank)[: int(np.sum(np.asarray(rank) < n))]
        found.append([(int(source[i]), int(group[i])) for i in order])
    return found


class TestPoolProposals:
    @pytest.mark.parametrize("max_iou", [0.5, 0.9])
    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_explicit_masks(self, seed, max_iou):
        maps = drawn(seed, change=0.05 * (seed + 1))
        pool = pool_of(maps, max_iou=max_iou)
        expected = [reference.pool(x, G, max_iou, 3) for x in maps]
        assert chosen(pool) == expected
        assert any(len(x) < K * G for x in expected)
        assert len({len(x) for x in expected}) > 1 or max_iou == 0.5

    def test_fields_describe_the_candidates(self):
        maps = drawn(1)
        pool = pool_of(maps)
        assert all(leaf.shape == (B, K * G) for leaf in pool)
        assert pool.keep.dtype == bool
        assert {leaf.dtype for leaf in pool} - {jnp.dtype(bool)} == {jnp.dtype("int32")}
        for image, *fields in zip(maps, *pool, strict=True):
            for source, group, size, keep, rank in zip(*fields, strict=True):
                assert size == np.sum(image[source] == group)
                assert keep == (rank < 1000)
        by_map = np.asarray(pool.size).reshape(B, K, G)
        assert (np.diff(by_map, axis=-1) <= 0).all()
        np.testing.assert_array_equal(pool.source[0], np.repeat(np.arange(K), G))

    def test_ranks_count_what_is_kept(self):
        pool = pool_of(drawn(2))
        for keep, rank in zip(pool.keep, pool.rank, strict=True):
            np.testing.assert_array_equal(rank[keep], np.arange(keep.sum()))

    def test_a_repeated_map_adds_nothing(self):
        maps = drawn(3)
        maps[:, 1:] = maps[:, :1]
        pool = pool_of(maps)
        assert not np.asarray(pool.keep)[:, G:].any()
        whole = pool_of(maps, max_iou=1.0)
        expected = [K * sum(np.sum(x[0] == g) >= 3 for g in range(G)) for x in maps]
        np.testing.assert_array_equal(whole.keep.sum(axis=1), expected)

    def test_an_overlap_of_exactly_the_limit_is_kept(self):
        first, second = np.full((2, N), -1)
        first[:9], second[:10] = 0, 0  # IoU 9/10
        maps = np.broadcast_to(np.stack([first, second, second, second]), (B, K, N))
        assert chosen(pool_of(maps, max_iou=0.9))[0] == [(0, 0), (1, 0)]
        assert chosen(pool_of(maps, max_iou=0.89))[0] == [(0, 0)]

    def test_a_candidate_is_compared_with_what_is_kept_alone(self):
        """The middle one is like both others, which are not like each other."""
        maps = np.full((B, K, N), -1)
        maps[:, 0, 0:20], maps[:, 1, 2:22], maps[:, 2, 4:24] = 0, 0, 0
        assert chosen(pool_of(maps, max_iou=0.8))[0] == [(0, 0), (2, 0)]

    def test_one_map_and_no_batch_axis_will_do(self):
        maps = drawn(5)
        alone = pool_proposals(maps[0, :1], max_groups=G)
        assert alone.rank.shape == (G,)
        assert bool(alone.keep.all())
        mapped = jax.vmap(functools.partial(pool_proposals, max_groups=G, min_size=3))
        for one, other in zip(mapped(jnp.asarray(maps)), pool_of(maps), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_complaints_name_the_argument(self):
        maps = jnp.zeros((B, K, N), jnp.int32)
        with pytest.raises(InputError, match="label_maps must have shape"):
            pool_proposals(maps[0, 0], max_groups=G)
        with pytest.raises(InputError, match="label_maps must hold at least one map"):
            pool_proposals(maps[:, :0], max_groups=G)
        with pytest.raises(InputError, match="max_iou must satisfy"):
            pool_proposals(maps, max_groups=G, max_iou=1.5)
        with pytest.raises(InputError, match="max_groups must be >= 1"):
            pool_proposals(maps, max_groups=0)
