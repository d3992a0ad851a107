"""RGB arrays: embeddings, labels and overlays."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.viz import embedding_rgb, label_rgb, match_labels, overlay
from sphemb.viz._arrays import outlines


def unit(shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


@pytest.mark.parametrize("module", ["matplotlib", "scipy.ndimage"])
def test_importing_the_package_loads_no_heavy_library(module):
    code = f"import sphemb.viz, sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestEmbeddingRgb:
    def test_three_dimensions_are_shown_as_they_are(self):
        embeddings = unit((2, 5, 6, 3))
        np.testing.assert_allclose(embedding_rgb(embeddings), (embeddings + 1) / 2)

    def test_missing_dimensions_are_half_gray(self):
        embeddings = unit((5, 6, 2))
        shown = embedding_rgb(embeddings)
        np.testing.assert_allclose(shown[..., :2], (embeddings + 1) / 2)
        np.testing.assert_array_equal(shown[..., 2], 0.5)

    def test_more_dimensions_fill_the_range_of_every_channel(self):
        shown = embedding_rgb(unit((2, 16, 16, 9)))
        assert shown.shape == (2, 16, 16, 3)
        assert shown.min() == 0.0
        assert shown.max() == 1.0
        # One percent is cut off at each end.
        for channel in range(3):
            assert np.mean(shown[..., channel] == 0.0) < 0.015
            assert 0.3 < np.median(shown[..., channel]) < 0.7

    def test_colors_are_a_linear_map_of_the_embedding(self):
        embeddings = unit((12, 12, 8))
        shown = embedding_rgb(embeddings).reshape(-1, 3)
        inside = np.all((shown > 0) & (shown < 1), axis=1)
        inputs = np.pad(embeddings.reshape(-1, 8), ((0, 0), (0, 1)), constant_values=1)
        fitted, *_ = np.linalg.lstsq(inputs[inside], shown[inside], rcond=None)
        np.testing.assert_allclose(inputs[inside] @ fitted, shown[inside], atol=1e-9)

    def test_the_seed_fixes_the_projection(self):
        embeddings = unit((6, 6, 8))
        np.testing.assert_array_equal(
            embedding_rgb(embeddings, seed=3), embedding_rgb(embeddings, seed=3)
        )
        assert not np.allclose(
            embedding_rgb(embeddings, seed=3), embedding_rgb(embeddings, seed=4)
        )

    def test_a_constant_embedding_is_gray(self):
        embeddings = np.broadcast_to(unit(8), (4, 5, 8))
        np.testing.assert_array_equal(embedding_rgb(embeddings), 0.5)

    def test_errors_name_the_argument(self):
        bad = unit((4, 4, 3))
        bad[0, 0, 0] = np.nan
        with pytest.raises(InputError, match="embeddings must be finite, got 1 value"):
            embedding_rgb(bad)
        with pytest.raises(InputError, match="embeddings must have shape"):
            embedding_rgb(np.ones((4, 3)))
        with pytest.raises(InputError, match="embeddings must be floating point"):
            embedding_rgb(np.ones((4, 4, 3), int))


class TestLabelRgb:
    def test_forty_labels_have_forty_colors(self):
        colors = label_rgb(np.arange(1, 41))
        assert colors.min() >= 0.0
        assert colors.max() <= 1.0
        for one, other in itertools.combinations(colors, 2):
            assert np.abs(one - other).max() > 0.02
        for one, other in itertools.combinations(colors[:17], 2):
            assert np.abs(one - other).max() > 0.15

    def test_no_instance_looks_like_background_or_void(self):
        colors = label_rgb(np.arange(1, 41))
        assert colors.max(axis=1).min() > 0.5
        assert np.abs(colors - 0.5).max(axis=1).min() > 0.15

    def test_background_is_black_and_void_is_gray(self):
        shown = label_rgb(np.array([[0, 1], [-1, -7]]))
        np.testing.assert_array_equal(shown[0, 0], 0.0)
        np.testing.assert_array_equal(shown[1], 0.5)
        assert shown[0, 1].max() > 0.5

    def test_a_label_keeps_its_color_whatever_else_is_there(self):
        np.testing.assert_array_equal(
            label_rgb(np.array([[3, 1]]))[0, 0], label_rgb(np.array([0, 5, 3]))[2]
        )

    def test_another_or_no_background(self):
        shown = label_rgb(np.array([0, 1, 2]), background=2)
        np.testing.assert_array_equal(shown[2], 0.0)
        assert shown[:2].max(axis=1).min() > 0.5
        assert label_rgb(np.array([0, 1]), background=None).max(axis=1).min() > 0.5

    def test_large_ids_need_no_large_table(self):
        shown = label_rgb(np.array([0, 2_000_000_000, 1_000_000]))
        assert np.abs(shown[1] - shown[2]).max() > 0.1
        np.testing.assert_array_equal(shown[0], 0.0)

    def test_colors_are_no_labels(self):
        with pytest.raises(InputError, match="labels must be integers"):
            label_rgb(np.ones(3))


class TestMatchLabels:
    def test_renamed_instances_get_their_names_back(self):
        truth = np.kron(np.arange(6).reshape(2, 3), np.ones((3, 3), int))
        names = np.array([0, 4, 2, 5, 1, 3])
        np.testing.assert_array_equal(match_labels(names[truth], truth), truth)

    def test_what_has_no_partner_takes_a_new_number(self):
        truth = np.array([[0, 0, 2, 2, 2, -1]])
        predicted = np.array([[1, 0, 3, 3, 2, 4]])
        np.testing.assert_array_equal(
            match_labels(predicted, truth), [[3, 0, 2, 2, 4, 5]]
        )

    def test_no_instances_at_all(self):
        empty = np.zeros((3, 4), int)
        np.testing.assert_array_equal(match_labels(empty, empty), empty)
        np.testing.assert_array_equal(match_labels(empty + 4, empty), empty + 1)


class TestOverlay:
    labels = np.pad(np.full((4, 5), 2), 2)

    def test_outlines_are_the_rim_of_the_instance(self):
        rim = self.labels == 2
        rim[3:5, 3:6] = False
        np.testing.assert_array_equal(outlines(self.labels), rim)

    def test_the_inside_is_mixed_the_rim_is_full_and_the_rest_is_kept(self):
        image = np.random.default_rng(0).random((8, 9, 3))
        color = label_rgb(self.labels)
        shown = overlay(image, self.labels, alpha=0.25)
        rim, inside = outlines(self.labels), self.labels > 0
        np.testing.assert_array_equal(shown[rim], color[rim])
        np.testing.assert_array_equal(shown[~inside], image[~inside])
        mixed = inside & ~rim
        np.testing.assert_allclose(
            shown[mixed], 0.75 * image[mixed] + 0.25 * color[mixed]
        )

    def test_bytes_and_floats_show_the_same(self):
        image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
        np.testing.assert_allclose(
            overlay(image, self.labels), overlay(image / 255.0, self.labels)
        )

    def test_errors_name_the_argument(self):
        with pytest.raises(InputError, match="labels must have shape"):
            overlay(np.ones((8, 8, 3)), self.labels)
        with pytest.raises(InputError, match="image must have shape"):
            overlay(np.ones((8, 9)), self.labels)
        with pytest.raises(InputError, match="0 <= alpha <= 1"):
            overlay(np.ones((8, 9, 3)), self.labels, alpha=2)
