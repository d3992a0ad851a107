"""From proposals to instances with class and score: votes, shape, line, choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import InputError
from sphemb.instances import (
    PROPOSAL_FEATURES,
    apply_scores,
    fit_scores,
    proposal_features,
    select_detections,
    vote_classes,
)

H, W, G, C = 12, 16, 6, 4
RNG = np.random.default_rng(0)


def some_labels():
    """Groups of odd shapes, one in two parts, one empty, and stray pixels."""
    labels = np.full((2, H, W), -1)
    labels[:, 1:5, 2:9] = 0
    labels[:, 3:5, 7:9] = -1  # a corner is missing
    labels[:, 6:12, 0:4] = 1
    labels[:, 6:9, 6:9] = labels[:, 10:12, 12:16] = 2  # two parts
    labels[1] = labels[1, ::-1, ::-1]
    labels[:, 5, 5] = 4
    labels[:, 0, 0] = G + 3
    return labels


LABELS = some_labels()
LOGITS = RNG.normal(size=(2, H, W, C))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)


def voted():
    return jax.jit(vote_classes, static_argnames="max_groups")(
        LABELS.reshape(2, -1), PROBABILITIES.reshape(2, -1, C), max_groups=G
    )


class TestVoteClasses:
    def test_is_the_best_mean_of_the_groups_pixels(self):
        votes = voted()
        for i in range(2):
            for g in range(G):
                inside = LABELS[i] == g
                if not inside.any():
                    assert votes.classes[i, g] == 0
                    assert votes.probability[i, g] == 0
                    continue
                means = PROBABILITIES[i][inside].mean(axis=0)
                assert votes.classes[i, g] == 1 + means[1:].argmax()
                np.testing.assert_allclose(
                    votes.probability[i, g], means[1:].max(), rtol=1e-5
                )
                np.testing.assert_allclose(votes.background[i, g], means[0], rtol=1e-5)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="probabilities must have shape"):
            vote_classes(jnp.zeros(5, int), jnp.zeros((4, 3)), max_groups=2)
        with pytest.raises(InputError, match="number of classes must be"):
            vote_classes(jnp.zeros(5, int), jnp.zeros((5, 1)), max_groups=2)


class TestProposalFeatures:
    def test_are_what_their_names_say(self):
        classes = PROBABILITIES.argmax(axis=-1)
        votes = jax.tree.map(np.asarray, voted())
        table = np.asarray(proposal_features(LABELS, classes, votes))
        for i in range(2):
            for g in range(G):
                found = dict(zip(PROPOSAL_FEATURES, table[i, g], strict=True))
                inside = LABELS[i] == g
                if not inside.any():
                    assert not table[i, g].any()
                    continue
                rows, columns = np.nonzero(inside)
                high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
                parts = ndimage.label(inside, np.ones((3, 3)))[0]
                same = classes[i] == votes.classes[i, g]
                expected = {
                    "size": np.sqrt(inside.mean()),
                    "connectedness": np.bincount(parts[inside]).max() / inside.sum(),
                    "fill": inside.sum() / (high * wide),
                    "aspect": min(high, wide) / max(high, wide),
                    "height": high / H,
                    "border": float(
                        rows.min() == 0
                        or columns.min() == 0
                        or rows.max() == H - 1
                        or columns.max() == W - 1
                    ),
                    "probability": votes.probability[i, g] - votes.background[i, g],
                    "agreement": same[inside].mean(),
                    "class_iou": (same & inside).sum() / (same | inside).sum(),
                }
                assert found == pytest.approx(
                    {name: float(value) for name, value in expected.items()}, abs=1e-5
                )

    def test_padding_changes_nothing(self):
        classes = PROBABILITIES.argmax(axis=-1)
        border = ((0, 0), (0, 4), (0, 3))
        padded = proposal_features(
            np.pad(LABELS, border, constant_values=2),
            np.pad(classes, border, constant_values=1),
            voted(),
            mask=np.pad(np.ones(LABELS.shape, bool), border),
        )
        plain = proposal_features(LABELS, classes, voted())
        np.testing.assert_allclose(padded, plain, atol=1e-6)


class TestScores:
    def test_the_line_is_that_of_ridge_regression(self):
        x = RNG.normal(3, 2, (40, 3)) * [1, 10, 0.1]
        x = np.concatenate([x, np.full((40, 1), 5.0)], axis=1)  # says nothing
        t = x[:, 0] - 0.2 * x[:, 1] + RNG.normal(size=40)
        line = fit_scores(x, t, ridge=2.0)
        z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
        gram = z.T @ z + 2.0 * np.eye(4)
        slope = np.linalg.solve(gram, z.T @ (t - t.mean()))
        np.testing.assert_allclose(line.slope, slope, atol=1e-5)
        expected = t.mean() + z @ slope
        np.testing.assert_allclose(apply_scores(line, x), expected, atol=1e-4)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="one proposal at least"):
            fit_scores(np.zeros((0, 2)), np.zeros(0))
        with pytest.raises(InputError, match="must be finite"):
            fit_scores(np.full((2, 2), np.nan), np.zeros(2))
        line = fit_scores(np.eye(3), np.arange(3.0))
        with pytest.raises(InputError, match="features must have shape"):
            apply_scores(line, jnp.zeros((2, 4)))


class TestSelectDetections:
    def select(self, **settings):
        maps = np.array([[[0, 0, 0, 1, 1, 1]], [[0, 0, 1, 1, 2, 2]]])
        scores = np.array([[0.9, 0.4, -np.inf], [0.8, 0.7, 0.6]])
        classes = np.array([[1, 2, 3], [4, 5, 6]])
        return select_detections(maps, scores=scores, classes=classes, **settings)

    def test_better_ones_lie_on_top_and_cover_what_is_worse(self):
        found = self.select()
        # The second's first group is covered by the best one; half of its next is.
        assert found.classes.tolist() == [1, 5, 6]
        assert found.labels.tolist() == [[1, 1, 1, 2, 3, 3]]
        assert found.masks[1].tolist() == [[False, False, True, True, False, False]]

    def test_a_least_score_ends_it(self):
        assert self.select(min_score=0.75, max_overlap=1.0).scores.tolist() == [
            0.9,
            0.8,
        ]

    def test_nothing_found_is_an_empty_map(self):
        found = self.select(min_score=2.0)
        assert not found.labels.any()
        assert found.masks.shape == (0, 1, 6)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="classes must have shape"):
            select_detections(
                np.zeros((2, 3), int), scores=np.zeros(2), classes=np.zeros(3, int)
            )
