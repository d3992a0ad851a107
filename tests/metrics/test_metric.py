"""The base of metrics: a metric of one's own, empty states, errors of merging."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.metrics import MeanIoU, Metric, PairScores
from sphemb.tasks import compute_scores


class Accuracy(Metric):
    """The share of right pixels of every class."""

    per_class = True
    right: jax.Array
    number: jax.Array
    prefix: str = dataclasses.field(default="", metadata={"static": True})

    @classmethod
    def from_batch(cls, predicted, truth, *, num_classes, prefix=""):
        one_hot = truth[..., None] == jnp.arange(num_classes)
        right = one_hot & (predicted == truth)[..., None]
        return cls(right.sum(axis=(0, 1)), one_hot.sum(axis=(0, 1)), prefix)

    def compute(self, names=()):
        shares = np.asarray(self.right) / np.asarray(self.number)
        scores = {f"{self.prefix}accuracy": float(shares.mean())}
        for name, share in zip(names, shares, strict=False):
            scores[f"{self.prefix}accuracy/{name}"] = float(share)
        return scores


TRUTH = jnp.array([[0, 1, 1, 2], [2, 2, 0, 1]])
FOUND = jnp.array([[0, 1, 0, 2], [2, 0, 0, 1]])


class TestAMetricOfOnesOwn:
    def test_it_adds_up_and_reports_like_the_others(self):
        total = Accuracy.empty(FOUND, TRUTH, num_classes=3)
        score = jax.jit(Accuracy.from_batch, static_argnames=("num_classes", "prefix"))
        for i in range(2):
            one = score(FOUND[i : i + 1], TRUTH[i : i + 1], num_classes=3)
            total = total.merge(one)
        assert total.right.dtype == np.int64
        scores = compute_scores({"own": total}, ("a", "b", "c"), split="test")
        assert scores == pytest.approx(
            {
                "accuracy": 7 / 9,
                "accuracy/a": 1,
                "accuracy/b": 2 / 3,
                "accuracy/c": 2 / 3,
            }
        )
        assert total.report() == {"accuracy": pytest.approx(7 / 9)}

    def test_summing_over_devices_is_merging(self):
        summed = jax.pmap(
            lambda f, t: jax.lax.psum(Accuracy.from_batch(f, t, num_classes=3), "b"),
            axis_name="b",
            out_axes=None,
            devices=jax.local_devices()[:2],
        )(FOUND[:, None], TRUTH[:, None])
        whole = Accuracy.from_batch(FOUND, TRUTH, num_classes=3)
        assert summed.compute() == whole.compute()

    def test_what_cannot_be_merged_is_named(self):
        one = Accuracy.from_batch(FOUND, TRUTH, num_classes=3)
        other = Accuracy.from_batch(FOUND, TRUTH, num_classes=3, prefix="val/")
        with pytest.raises(InputError, match="same prefix, , got val/"):
            one.merge(other)
        fewer = Accuracy.from_batch(FOUND, TRUTH, num_classes=2)
        with pytest.raises(
            InputError, match=r"same shape of right, \(3,\), got \(2,\)"
        ):
            one.merge(fewer)
        with pytest.raises(InputError, match="other must be Accuracy, got MeanIoU"):
            one.merge(MeanIoU.from_batch(FOUND, TRUTH, num_classes=3))

    def test_what_is_not_defined_is_named(self):
        with pytest.raises(NotImplementedError, match="Metric has no from_batch"):
            Metric.from_batch()
        with pytest.raises(NotImplementedError, match="Metric has no compute"):
            Metric().report()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (MeanIoU, {"num_classes": 3}),
        (PairScores, {"max_predicted": 3, "max_true": 2, "prefix": "val/"}),
    ],
)
def test_the_empty_state_changes_nothing_and_scores_nan(kind, settings):
    empty = kind.empty(jax.ShapeDtypeStruct((2, 4), jnp.int32), TRUTH, **settings)
    one = kind.from_batch(FOUND, TRUTH, **settings)
    assert empty.merge(one).compute() == one.compute()
    assert all(np.isnan(value) for value in empty.compute().values())
