"""Figures: what they show, and how they reach the disk."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sphemb._checks import InputError
from sphemb.viz import (
    draw_gradients,
    draw_grouping,
    draw_shifted_images,
    draw_similarity_histograms,
    draw_sphere,
    embedding_rgb,
    label_rgb,
    save_figure,
)

B, H, W, D = 2, 12, 16, 5


def unit(shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def scene():
    rng = np.random.default_rng(1)
    truth = np.zeros((B, H, W), int)
    truth[:, 2:6, 2:7], truth[:, 7:11, 8:15], truth[0, 0, 0] = 1, 2, -1
    images = rng.integers(0, 256, (B, H, W, 3), np.uint8)
    return images, truth, np.array([0, 2, 1])[np.maximum(truth, 0)], unit((B, H, W, D))


def shrinking(dim, steps=3, points=40):
    """Points that move half of the way to their group's direction at every step."""
    labels = np.repeat([0, 1, 2, 3], points // 4)
    modes = unit((4, dim), 2)[labels]
    path = [unit((points, dim), 3)]
    for _ in range(steps):
        moved = 0.5 * path[-1] + 0.5 * modes
        path.append(moved / np.linalg.norm(moved, axis=-1, keepdims=True))
    return np.stack(path), labels


def scattered(axes):
    """The points of a 3-d axis, [N, 3]."""
    (points,) = [c for c in axes.collections if hasattr(c, "_offsets3d")]
    return np.stack([np.asarray(x) for x in points._offsets3d], axis=-1), points


class TestDrawGrouping:
    def test_a_row_shows_image_truth_instances_and_embedding(self):
        images, truth, predicted, embeddings = scene()
        figure = draw_grouping(images, truth, predicted, embeddings)
        assert isinstance(figure, Figure)
        assert len(figure.axes) == 4 * B
        shown = [axes.images[0].get_array() for axes in figure.axes]
        np.testing.assert_allclose(shown[0], images[0] / 255.0)
        np.testing.assert_array_equal(shown[1], label_rgb(truth[0]))
        # The instances bear other numbers and the same colors.
        np.testing.assert_array_equal(shown[2], label_rgb(np.maximum(truth[0], 0)))
        np.testing.assert_allclose(shown[7], embedding_rgb(embeddings)[1])

    def test_scores_and_numbers_are_written(self):
        figure = draw_grouping(*scene(), scores=[0.875, 1.0])
        axes = np.array(figure.axes).reshape(B, 4)
        assert axes[0, 1].get_xlabel() == "2 instances"
        assert axes[0, 2].get_xlabel() == "2 found, mean best IoU 0.88"
        assert axes[1, 3].get_xlabel() == "random projection of 5 dimensions"

    def test_errors_name_the_argument(self):
        images, truth, predicted, embeddings = scene()
        with pytest.raises(InputError, match="predicted must have shape"):
            draw_grouping(images, truth, predicted[:1], embeddings)
        with pytest.raises(InputError, match="embeddings must have shape"):
            draw_grouping(images, truth, predicted, embeddings[:, 1:])
        with pytest.raises(InputError, match="scores must have one entry per image"):
            draw_grouping(*scene(), scores=[0.5])


class TestDrawSphere:
    def test_every_step_has_an_axis_with_the_points_on_the_sphere(self):
        trajectory, labels = shrinking(3)
        figure = draw_sphere(trajectory, labels, concentration=25.0)
        assert [a.get_title() for a in figure.axes] == [f"t = {t}" for t in range(4)]
        for step, axes in enumerate(figure.axes):
            points, _ = scattered(axes)
            np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-6)
            np.testing.assert_allclose(
                np.sort(points, axis=0), np.sort(trajectory[step], axis=0), atol=1e-12
            )
        assert figure.get_suptitle() == "κ = 25"

    def test_more_dimensions_are_projected_inside_the_sphere_and_it_says_so(self):
        trajectory, labels = shrinking(8)
        figure = draw_sphere(trajectory, labels)
        norms = [np.linalg.norm(scattered(a)[0], axis=1) for a in figure.axes]
        assert np.max(norms) == pytest.approx(1.0)
        assert "three principal directions of 8" in figure.get_suptitle()

    def test_the_projection_keeps_four_groups_apart(self):
        trajectory, labels = shrinking(8, steps=8)
        figure = draw_sphere(trajectory, label_rgb(labels))
        points, _ = scattered(figure.axes[-1])
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        near = distances < 0.1
        np.testing.assert_array_equal(near.sum(axis=1), 10)

    def test_points_bear_the_colors_of_their_labels_and_void_is_left_out(self):
        trajectory, labels = shrinking(3)
        labels = np.where(labels == 3, -1, labels)
        figure = draw_sphere(trajectory, labels)
        points, artist = scattered(figure.axes[0])
        assert len(points) == 30
        colors = artist.get_facecolors()[:, :3]
        expected = label_rgb(np.array([0, 1, 2]))
        assert {tuple(c) for c in colors.round(6)} == {
            tuple(c) for c in expected.round(6)
        }

    def test_a_circle_is_drawn_as_one_and_points_are_sampled(self):
        trajectory, labels = shrinking(2, points=2400)
        figure = draw_sphere(trajectory, labels)
        points, _ = scattered(figure.axes[0])
        assert points.shape == (2000, 3)
        np.testing.assert_array_equal(points[:, 2], 0.0)

    def test_errors_name_the_argument(self):
        trajectory, labels = shrinking(3)
        with pytest.raises(InputError, match="trajectory must have shape"):
            draw_sphere(trajectory[0], labels)
        with pytest.raises(InputError, match="labels must have shape"):
            draw_sphere(trajectory, labels[:-1])
        with pytest.raises(InputError, match="trajectory must be finite"):
            draw_sphere(trajectory * np.nan, labels)
        with pytest.raises(InputError, match="concentration"):
            draw_sphere(trajectory, labels, concentration=-1.0)
        with pytest.raises(InputError, match="labels must name at least one point"):
            draw_sphere(trajectory, labels * 0 - 1)


class TestDrawGradients:
    def gradients(self):
        gradient = np.random.default_rng(5).normal(size=(H, W, D))
        return {"no mean shift": gradient, "one step of mean shift": 0.1 * gradient}

    def test_maps_show_lengths_and_arrows_point_down_the_gradient(self):
        images, truth, _, embeddings = scene()
        gradients = self.gradients()
        figure = draw_gradients(images[0], truth[0], embeddings[0], gradients)
        by_title = {axes.get_title(): axes for axes in figure.axes}
        for name, gradient in gradients.items():
            (shown,) = by_title[name].images[-1:]
            np.testing.assert_allclose(
                shown.get_array(), np.linalg.norm(gradient, axis=-1)
            )
        arrows = [c for a in figure.axes for c in a.collections if hasattr(c, "U")]
        assert len(arrows) == 2
        lengths = [np.hypot(a.U, a.V) for a in arrows]
        assert lengths[0].max() == pytest.approx(0.5)
        # Each row has a scale of its own, so that ten times less looks the same.
        np.testing.assert_allclose(lengths[0], lengths[1])

    def test_arrows_point_where_descent_goes(self):
        images, truth, _, _ = scene()
        angle = np.linspace(0.0, 6.0, H * W).reshape(H, W)
        embeddings = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        figure = draw_gradients(
            images[1], truth[1], embeddings, {"outward": embeddings}
        )
        (arrows,) = [c for a in figure.axes for c in a.collections if hasattr(c, "U")]
        inward = np.stack([arrows.U, arrows.V], axis=-1)
        np.testing.assert_allclose(inward, -0.5 * arrows.XY, atol=1e-12)

    def test_a_gradient_of_zeros_draws_no_arrows(self):
        images, truth, _, embeddings = scene()
        figure = draw_gradients(
            images[0], truth[0], embeddings[0], {"none": np.zeros((H, W, D))}
        )
        assert not [c for a in figure.axes for c in a.collections if hasattr(c, "U")]

    def test_errors_name_the_argument(self):
        images, truth, _, embeddings = scene()
        with pytest.raises(InputError, match="gradients must hold at least one"):
            draw_gradients(images[0], truth[0], embeddings[0], {})
        with pytest.raises(InputError, match=r"gradients\['a'\] must have shape"):
            draw_gradients(
                images[0], truth[0], embeddings[0], {"a": np.ones((H, W, D + 1))}
            )


class TestDrawSimilarityHistograms:
    def test_shares_sum_to_one_and_pairs_move_apart(self):
        trajectory, labels = shrinking(3, steps=6)
        figure = draw_similarity_histograms(trajectory, labels, margin=0.5)
        panels = [axes for axes in figure.axes if axes.get_title()]
        assert [a.get_title() for a in panels] == [f"t = {t}" for t in range(7)]
        for axes in panels:
            for artist in axes.patches:
                assert artist.get_data().values.sum() == pytest.approx(1.0)
            assert list(axes.lines[0].get_xdata()) == [0.5, 0.5]
        within = panels[-1].patches[0].get_data().values
        assert within[-5:].sum() == pytest.approx(1.0)

    def test_pairs_weigh_as_in_the_loss(self):
        # Two instances of unequal size along two axes, one point apart from its own.
        points = np.eye(3)[[0] * 8 + [1, 1, 2]]
        labels = np.array([0] * 8 + [1, 1, 1])
        figure = draw_similarity_histograms(points[None], labels)
        within = figure.axes[0].patches[0].get_data().values
        same, apart = 28 / 64 + 1 / 9, 2 / 9
        assert within[-1] == pytest.approx(same / (same + apart))
        assert within[25] == pytest.approx(apart / (same + apart))

    def test_void_points_count_in_no_pair(self):
        trajectory, labels = shrinking(3)
        void = np.where(labels == 2, -1, labels)
        shown = draw_similarity_histograms(trajectory, void)
        rest = draw_similarity_histograms(
            trajectory[:, labels != 2], labels[labels != 2]
        )
        for one, other in zip(shown.axes, rest.axes, strict=True):
            for a, b in zip(one.patches, other.patches, strict=True):
                np.testing.assert_allclose(a.get_data().values, b.get_data().values)

    def test_pairs_of_several_images_are_counted_together(self):
        # One image is all alike; in the other, one of three pairs is at a right angle.
        points = np.stack([np.eye(3)[[0, 0, 0]], np.eye(3)[[0, 0, 1]]])
        labels = np.zeros((2, 3), int)
        figure = draw_similarity_histograms(points[:, None], labels)
        within = figure.axes[0].patches[0].get_data().values
        assert within[-1] == pytest.approx(4 / 6)
        assert within[25] == pytest.approx(2 / 6)

    def test_errors_name_the_argument(self):
        trajectory, labels = shrinking(3)
        with pytest.raises(InputError, match=r"labels must have shape .*\(1, 40\)"):
            draw_similarity_histograms(trajectory[None], labels)
        with pytest.raises(InputError, match="labels must name at least two points"):
            draw_similarity_histograms(trajectory, labels * 0 - 1)
        with pytest.raises(InputError, match="labels must have shape"):
            draw_similarity_histograms(trajectory, labels[1:])


class TestDrawShiftedImages:
    def test_a_row_shows_image_instances_and_the_sphere_before_and_after(self):
        images, truth, _, _ = scene()
        trajectories = unit((B, 3, H * W, 3))
        figure = draw_shifted_images(images, truth, trajectories)
        assert len(figure.axes) == 4 * B
        titles = [axes.get_title() for axes in figure.axes[:4]]
        assert titles == ["image", "true instances", "t = 0", "t = 2"]
        np.testing.assert_array_equal(
            figure.axes[5].images[0].get_array(), label_rgb(truth[1])
        )
        for axes, step in ((figure.axes[2], 0), (figure.axes[3], 2)):
            points, _ = scattered(axes)
            kept = trajectories[0, step][truth[0].reshape(-1) >= 0]
            order = np.lexsort(points.T), np.lexsort(kept.T)
            np.testing.assert_allclose(points[order[0]], kept[order[1]])

    def test_more_dimensions_are_projected_and_said_to_be(self):
        images, truth, _, _ = scene()
        figure = draw_shifted_images(images, truth, unit((B, 2, H * W, D)))
        assert "principal directions of 5 dimensions" in figure.get_suptitle()

    def test_errors_name_the_argument(self):
        images, truth, _, _ = scene()
        with pytest.raises(InputError, match="trajectories must have shape"):
            draw_shifted_images(images, truth, unit((B, 2, H * W - 1, 3)))
        with pytest.raises(InputError, match=r"instances\[0\] must name at least"):
            draw_shifted_images(images, 0 * truth - 1, unit((B, 2, H * W, 3)))


class TestSaveFigure:
    def noisy(self):
        figure = Figure(figsize=(4, 4))
        noise = np.random.default_rng(0).random((900, 900, 3))
        figure.add_axes((0, 0, 1, 1)).imshow(noise, interpolation="nearest")
        return figure

    def test_the_file_is_a_png_of_the_resolution_asked_for(self, tmp_path):
        path = save_figure(draw_grouping(*scene()), tmp_path / "a" / "b.png", dpi=50)
        assert path == tmp_path / "a" / "b.png"
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width == 400
        assert [p.name for p in path.parent.iterdir()] == ["b.png"]

    def test_a_photograph_can_be_a_jpeg(self, tmp_path):
        path = save_figure(self.noisy(), tmp_path / "noise.jpg", dpi=50)
        with Image.open(path) as image:
            assert (image.format, image.width) == ("JPEG", 200)

    def test_a_large_picture_is_drawn_smaller_until_it_fits(self, tmp_path):
        path = save_figure(self.noisy(), tmp_path / "noise.png", dpi=200)
        assert path.stat().st_size <= 1_000_000
        with Image.open(path) as image:
            assert 200 < image.width < 800

    def test_the_same_figure_gives_the_same_bytes(self, tmp_path):
        one, other = (
            save_figure(draw_grouping(*scene()), tmp_path / f"{i}.png", dpi=50)
            for i in range(2)
        )
        assert one.read_bytes() == other.read_bytes()

    def test_what_cannot_be_written_leaves_the_old_file_alone(self, tmp_path):
        path = tmp_path / "old.png"
        path.write_bytes(b"old")
        with pytest.raises(InputError, match="max_bytes must leave room"):
            save_figure(self.noisy(), path, max_bytes=1000)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_other_formats_are_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"path must end in \.png or \.jpg, got"):
            save_figure(Figure(), tmp_path / "a.svg")
