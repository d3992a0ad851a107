"""Pictures of classes and of instances with classes."""

import numpy as np
import pytest

from sphemb import InputError
from sphemb.instances import select_detections
from sphemb.viz import draw_classes, draw_detections

B, H, W, D = 2, 16, 20, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(B, H, W, 3))
EMBEDDINGS = RNG.normal(size=(B, H, W, D))
CLASSES = np.zeros((B, H, W), int)
CLASSES[:, 2:8, 2:8] = 1
CLASSES[:, 8:14, 8:18] = 2
NAMES = ("background", "cat", "dog")


def found(image):
    return select_detections(
        CLASSES[image],
        scores=np.array([-np.inf, 0.8, 0.6]),
        classes=np.array([0, 1, 2]),
    )


class TestDrawClasses:
    def test_a_row_has_every_column_and_names_what_it_shows(self):
        figure = draw_classes(
            IMAGES,
            CLASSES,
            np.zeros_like(CLASSES),
            EMBEDDINGS,
            class_names=NAMES,
            detections=[found(0), found(1)],
        )
        assert len(figure.axes) == 7 * B
        assert figure.axes[1].get_xlabel() == "dog, cat"  # the larger one first
        assert figure.axes[2].get_xlabel() == ""
        assert [t.get_text() for t in figure.axes[3].texts] == ["cat 0.80", "dog 0.60"]
        projections = [figure.axes[k].images[0].get_array() for k in (4, 5, 6)]
        assert not np.allclose(projections[0], projections[1])

    def test_three_dimensions_need_no_projection(self):
        figure = draw_classes(IMAGES, CLASSES, CLASSES, EMBEDDINGS[..., :3])
        assert len(figure.axes) == 4 * B
        assert figure.axes[1].get_xlabel() == "class 2, class 1"

    def test_what_does_not_go_together_is_refused(self):
        with pytest.raises(InputError, match="predicted must have shape"):
            draw_classes(IMAGES, CLASSES, CLASSES[:, 1:], EMBEDDINGS)
        with pytest.raises(
            InputError, match="detections must have one entry per image"
        ):
            draw_classes(IMAGES, CLASSES, CLASSES, EMBEDDINGS, detections=[found(0)])


class TestDrawDetections:
    def test_names_and_scores_stand_in_the_middle_of_each(self):
        figure = draw_detections(IMAGES[0], found(0), class_names=NAMES)
        texts = figure.axes[0].texts
        assert [t.get_text() for t in texts] == ["cat 0.80", "dog 0.60"]
        assert texts[0].get_position() == (4.5, 4.5)
