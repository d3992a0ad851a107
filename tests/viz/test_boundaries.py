"""Pictures of boundaries."""

import numpy as np
import pytest

from sphemb import InputError
from sphemb.viz import draw_boundaries, draw_orientations, overlay_boundaries

B, H, W, K, D = 2, 24, 32, 3, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(B, H, W, 3))
MAPS = RNG.uniform(size=(B, H, W))


def vectors():
    drawn = RNG.normal(size=(B, K, H, W, D))
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


class TestDrawBoundaries:
    def test_each_entry_has_a_row_and_each_branch_a_column(self):
        figure = draw_boundaries(
            IMAGES, MAPS, MAPS, {"before": vectors(), "after": vectors()}
        )
        assert len(figure.axes) == 2 * B * (3 + K)
        assert figure.axes[3].get_ylabel() == "before"

    def test_found_boundaries_are_black_on_white(self):
        figure = draw_boundaries(IMAGES, MAPS, np.ones_like(MAPS), {"": vectors()})
        assert not figure.axes[2].images[0].get_array().any()

    def test_shapes_that_do_not_go_together_are_refused(self):
        with pytest.raises(InputError, match="predicted must have shape"):
            draw_boundaries(IMAGES, MAPS, MAPS[:, 1:], {"": vectors()})
        with pytest.raises(InputError, match="branches must have one entry at least"):
            draw_boundaries(IMAGES, MAPS, MAPS, {})


class TestDrawOrientations:
    def test_a_color_by_direction_and_signed_distance_is_read_back(self):
        # Of a ring, the normal at an angle is that angle; outside is where it points.
        size, radius = 128, 40
        down, along = np.indices((size, size)) - (size - 1) / 2
        distance = np.hypot(down, along) - radius
        boundary = np.abs(distance) < 0.5
        angle = np.arctan2(down, along)
        outward = np.where(np.mod(angle, 2 * np.pi) < np.pi, 1.0, -1.0)
        signed = distance * outward
        embedding = np.stack(
            [np.cos(2 * angle), np.sin(2 * angle), signed / 20], axis=-1
        )
        figure = draw_orientations(embedding, boundary, max_distance=6, sectors=12)
        chart = np.asarray(figure.axes[1].images[0].get_array())
        centres = (np.arange(12) + 0.5) * np.pi / 12
        wanted = (np.cos(2 * centres) + 1) / 2
        np.testing.assert_allclose(chart[3, :, 0], wanted, atol=0.1)
        middle = chart[:, 1:-1, 2].mean(axis=1)  # the seam mixes both signs
        heights = (np.arange(-6, 7) / 20 + 1) / 2
        np.testing.assert_allclose(middle, heights, atol=0.03)

    def test_no_boundary_is_refused(self):
        with pytest.raises(InputError, match="boundary must have pixels that are True"):
            draw_orientations(np.ones((4, 4, 3)), np.zeros((4, 4), bool))


def test_boundaries_are_as_red_as_they_are_probable():
    painted = overlay_boundaries(np.ones((1, 3, 3)), np.array([[0.0, 0.5, 1.0]]))
    np.testing.assert_allclose(painted[0, 0], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(painted[0, 1], [1.0, 0.55, 0.5])
    np.testing.assert_allclose(painted[0, 2], [1.0, 0.1, 0.0])
