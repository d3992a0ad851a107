"""Images with thousands of objects: pairs are counted on the host, not in tables."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.instances import _overlap, overlap_pairs, overlap_table, pool_proposals
from sphemb.metrics import AverageRecall, MatchedPrecision, PairScores, ProposalRecall
from sphemb.tasks import Instances, Proposals, Spectral, measures_on_host

B, K, H, W, P, Q = 3, 3, 8, 9, 6, 5


def drawn(seed, lost):
    """Maps that follow a truth with void; some labels are beyond the limits."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, Q + 1, (B, 4, 3)), np.ones((1, 2, 3), int))
    truth = np.where(rng.random(truth.shape) < 0.1, -1, truth)
    noise = rng.integers(-1, P + lost, (B, K, H, W))
    follow = (truth[:, None] >= 0) & (rng.random(noise.shape) < 0.7)
    maps = np.where(follow, truth[:, None], noise)
    return maps, truth + (lost * (truth == Q) if lost else 0)


def measures():
    """Each metric from label maps [B, K, H, W] and truth."""
    sizes = {"max_predicted": P, "max_true": Q}

    def proposals(maps, truth, valid):
        pool = pool_proposals(
            maps.reshape(*maps.shape[:2], -1), max_groups=P, max_iou=0.4, min_size=2
        )
        budgets = {"max_true": Q, "budgets": (1, 3, 50), "areas": (4, 8)}
        return pool, ProposalRecall.from_batch(
            maps, pool, truth, valid=valid, **budgets
        )

    return {
        "proposals": proposals,
        **{
            kind.__name__: lambda maps, truth, valid, kind=kind: kind.from_batch(
                maps[:, 0], truth, valid=valid, **sizes
            )
            for kind in (AverageRecall, MatchedPrecision, PairScores)
        },
    }


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("name", measures())
def test_scores_of_pairs_are_those_of_tables(name, lost, monkeypatch):
    measure = measures()[name]
    for seed in range(3):
        maps, truth = drawn(seed, lost)
        valid = np.array([True, True, seed != 1])
        tables = jax.jit(measure)(maps, truth, valid)
        with monkeypatch.context() as changed:
            changed.setattr(_overlap, "TABLE_BYTES", 0)
            pairs = measure(maps, truth, valid)

        def same(one, other):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            if jnp.issubdtype(one.dtype, jnp.floating):
                np.testing.assert_allclose(one, other, rtol=2e-6)
            else:
                np.testing.assert_array_equal(one, other)

        jax.tree.map(same, pairs, tables)


@pytest.mark.parametrize("masked", [False, True])
def test_pairs_are_the_cells_of_the_table_that_are_not_empty(masked):
    for seed in range(3):
        maps, truth = drawn(seed, 1)
        labels, known = maps[0, 0].ravel(), truth[0].ravel()
        mask = np.random.default_rng(seed).random(len(known)) < 0.7 if masked else None
        sizes = {"num_predicted": P, "num_true": Q}
        table = np.asarray(overlap_table(labels, known, mask=mask, **sizes))
        pairs = overlap_pairs(labels, known, mask=mask, **sizes)
        np.testing.assert_array_equal(np.nonzero(table), [pairs.rows, pairs.columns])
        np.testing.assert_array_equal(table[table > 0], pairs.counts)
        np.testing.assert_array_equal(pairs.table, table)
        np.testing.assert_array_equal(table.sum(axis=1), pairs.row_sizes)
        np.testing.assert_array_equal(table.sum(axis=0), pairs.column_sizes)


def test_a_table_whose_cells_cannot_be_numbered_is_refused():
    labels = jnp.zeros(4, jnp.int32)
    with pytest.raises(InputError, match=r"fewer than 2\^31 cells, got 2,5"):
        overlap_table(labels, labels, num_predicted=50_000, num_true=50_000)


@pytest.mark.parametrize(
    ("task", "images", "on_host"),
    [
        (Proposals(max_components=400, max_objects=400), 8, False),
        (Proposals(max_components=5041, max_objects=5041), 1, False),
        (Proposals(max_components=5041, max_objects=5041), 8, True),
        (Proposals(max_components=20_164, max_objects=20_164), 1, True),
        # What is pooled is compared with itself, but for budgets only.
        (Proposals(max_groups=8000, pooled_concentrations=(9.0,)), 1, False),
        (
            Proposals(max_groups=8000, pooled_concentrations=(9.0,), budgets=(1,)),
            1,
            True,
        ),
        (Spectral(max_groups=9000, max_objects=9000), 1, True),
        (Instances(), 1, True),
    ],
)
def test_the_host_scores_what_would_need_large_tables(task, images, on_host):
    assert measures_on_host(task, images) is on_host


_DENSE = """
import pathlib
import numpy as np
from sphemb.metrics import RegionPrecision
from sphemb.tasks import Groups, Proposals, measures_on_host

side, cell = 142, 4
truth = np.kron(1 + np.arange(side**2).reshape(side, side), np.ones((cell, cell), int))
found = truth.copy()
found[:, 3::4] = 0  # of every object three quarters
batch = {"instances": truth[None], "image": truth[None], "valid": np.array([True])}
maps = np.stack([found, truth, np.roll(found, 1, axis=1)])[None]
predictions = Groups(
    labels=found[None],
    num_groups=np.array([side**2 + 1]),
    embedding=None,
    proposals=maps,
    reached={"max_components": np.array([False])},
)
task = Proposals(
    max_components=side**2,
    max_objects=side**2,
    budgets=(10, 10**6),
    pooled_concentrations=(1.0, 2.0),
)
assert measures_on_host(task, 1)
scores = {}
for metric in task.metrics(predictions, batch).values():
    scores |= metric.compute()
numbers = np.arange(side**2 + 1)
regions = RegionPrecision.from_image(
    found,
    truth,
    scores=np.where(numbers > 0, 1 / (1 + numbers), -np.inf),
    classes=np.minimum(numbers, 1),
    true_classes=np.minimum(numbers, 1),
    num_classes=2,
)
scores |= regions.compute()
# Not getrusage: what it says begins with the memory of the process that started this.
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
for name in ("mean_best_iou", "count_exact", "matched_precision@0.75", "ap_r@0.7",
             "mean_best_iou@10", "mean_best_iou@1000000", "num_objects"):
    print(round(scores[name], 4))
"""


def test_twenty_thousand_objects_of_an_image_are_scored_in_a_gigabyte():
    done = subprocess.run(
        [sys.executable, "-c", _DENSE], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr[-2000:]
    memory, *scores = map(float, done.stdout.split())
    assert memory < 1024
    # At .75 exactly no instance is matched; the second map of proposals is the truth.
    assert scores == [
        0.75,
        1.0,
        0.0,
        1.0,
        pytest.approx(0.0004, abs=1e-4),
        1.0,
        20164.0,
    ]
