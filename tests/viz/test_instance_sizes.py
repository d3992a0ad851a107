"""The picture of how many instances there are, how large, and what vanishes."""

import numpy as np
import pytest

from sphemb import InputError
from sphemb.viz import draw_instance_sizes

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 90, 50)
AREAS = RNG.integers(1, 9000, 400)
VANISHING = {8: AREAS < 64, 1: AREAS < 1}


def test_every_image_and_instance_is_in_a_bar():
    images, instances, strides = draw_instance_sizes(COUNTS, AREAS, VANISHING).axes
    assert sum(bar.get_height() for bar in images.patches) == len(COUNTS)
    assert sum(bar.get_height() for bar in instances.patches) == len(AREAS)
    heights = [bar.get_height() for bar in strides.patches]
    assert heights == [100 * np.mean(AREAS < 64), 0]


def test_one_image_with_one_pixel_is_drawn():
    figure = draw_instance_sizes(np.array([1]), np.array([1]), {1: np.array([False])})
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 1


@pytest.mark.parametrize(
    ("counts", "areas", "vanishing", "words"),
    [
        (COUNTS[:0], AREAS, VANISHING, "counts must not be empty"),
        (COUNTS, AREAS[:0], {}, "areas must not be empty"),
        (COUNTS, AREAS, {8: VANISHING[8][:-1]}, "vanishing must have shape"),
        (COUNTS, AREAS / 2, VANISHING, "areas must be integers"),
    ],
)
def test_a_mistake_names_the_argument(counts, areas, vanishing, words):
    with pytest.raises(InputError, match=words):
        draw_instance_sizes(counts, areas, vanishing)
