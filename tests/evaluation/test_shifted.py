"""Pixels on a grid: which are taken, where they go, what pulls at them."""

import numpy as np
import pytest

from sphemb.evaluation import Evaluation, PixelGrid, fullest_first
from sphemb.tasks import Groups
from tests.references.losses import margin_loss_terms


def sampled(height, width, dim=3):
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(2, height, width, dim)).astype(np.float32)
    samples = {
        "image": rng.random((2, height, width, 3)),
        "instances": rng.integers(0, 3, (2, height, width)),
    }
    embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
    found = Groups(samples["instances"], np.array([3, 3]), embedding, {})
    return Evaluation({}, 2, {}, samples, found)


def test_of_a_large_image_every_so_many_rows_and_columns_are_taken():
    evaluation = sampled(130, 70)
    grid = PixelGrid.of_sample(evaluation, 1)
    assert grid.instances.shape == (44, 24)
    np.testing.assert_array_equal(grid.image, evaluation.samples["image"][1][::3, ::3])
    assert PixelGrid.of_sample(sampled(64, 9), 0).instances.shape == (64, 9)


def test_images_with_most_instances_come_first():
    instances = np.zeros((4, 2, 3), int)
    instances[1, 0], instances[2, 0], instances[3, 0] = (1, 2, 3), (1, 1, -1), (0, 4, 5)
    assert fullest_first(instances) == [1, 3, 2, 0]


class TestPixels:
    grid = PixelGrid.of_sample(sampled(4, 5), 0)

    def test_they_start_where_the_embedding_has_them_and_stay_on_the_sphere(self):
        path = self.grid.trajectory(concentration=20.0, num_steps=2)
        assert path.shape == (3, 20, 3)
        np.testing.assert_array_equal(path[0].reshape(4, 5, 3), self.grid.embedding)
        np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=1e-6)

    def test_their_gradient_is_the_loss_s_slope_in_float64(self):
        gradients = self.grid.gradients(concentration=20.0, margin=0.4)
        assert list(gradients) == ["no mean shift", "one step of mean shift"]
        points = self.grid.embedding.reshape(20, 3).astype(np.float64)
        labels = self.grid.instances.reshape(20)
        way = np.random.default_rng(1).normal(size=points.shape)

        def loss(step):
            moved = points + step * way
            return sum(margin_loss_terms(moved, labels, margin=0.4, normalize="pairs"))

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        found = np.sum(gradients["no mean shift"].reshape(20, 3) * way)
        assert found == pytest.approx(slope, rel=1e-3)
