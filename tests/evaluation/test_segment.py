"""An image in memory gives what its file gives."""

import inspect

import numpy as np
import pytest
import tifffile

import sphemb
from sphemb import InputError
from sphemb.cli import Predict
from sphemb.data import ImageWindows, Reading
from sphemb.evaluation import TiledPrediction
from sphemb.training import Experiment, Trained, save_model
from tests.tiny import tiny_config

H, W = 40, 52
RNG = np.random.default_rng(0)
IMAGES = {
    "gray": RNG.integers(0, 200, (H, W), dtype=np.uint8),
    "channel": RNG.integers(0, 200, (H, W, 1), dtype=np.uint8),
    "color": RNG.integers(0, 200, (H, W, 3), dtype=np.uint8),
    "opacity": RNG.integers(0, 256, (H, W, 4), dtype=np.uint8),
    "deep": RNG.integers(300, 4096, (H, W), dtype=np.uint16),
    "deep color": RNG.integers(300, 4096, (H, W, 3), dtype=np.uint16),
    "bool": RNG.uniform(size=(H, W)) < 0.5,
}


@pytest.mark.parametrize("intensity", ["full", "percentile"])
@pytest.mark.parametrize("name", IMAGES)
def test_the_values_are_those_of_a_file(name, intensity, tmp_path):
    image, reading = IMAGES[name], Reading(intensity=intensity)
    settings = {"photometric": "rgb" if image.shape[2:] > (1,) else "minisblack"}
    if name == "opacity":
        settings["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(tmp_path / "a.tif", image.squeeze(), **settings)
    expected = ImageWindows(tmp_path / "a.tif", reading).whole()
    held = ImageWindows.of_array(image, reading)
    assert held.size == (H, W)
    np.testing.assert_array_equal(held.whole(), expected)
    held.close()  # an array stays
    np.testing.assert_array_equal(held.whole(), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_are_scaled_to_all_bits(dtype):
    fractions = RNG.uniform(size=(H, W)).astype(dtype)
    found = ImageWindows.of_array(fractions).whole()[..., 0]
    wanted = 255 * fractions.astype(np.float64)
    assert np.abs(found - wanted).max() <= 0.5 + 255 / 65535


def test_a_range_of_other_bits_is_refused():
    with pytest.raises(InputError, match="image has values up to 65535, but intensity"):
        ImageWindows.of_array(IMAGES["deep"], Reading(intensity="3..240/255"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"must have shape .* got \(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), r"must have shape .* got \(0, 4\)"),
        (np.full((4, 4), 2.0), "values from 0 to 1, got 2 to 2"),
        (np.full((4, 4), np.nan), "values from 0 to 1, got nan to nan"),
        (np.full((4, 4), 200), "must hold bool, uint8, uint16 .* got int64"),
        (np.full((4, 4), "a"), "must hold bool, uint8, uint16 .* got <U1"),
    ],
)
def test_other_values_are_refused(image, message):
    with pytest.raises(InputError, match=message):
        ImageWindows.of_array(image)


def test_tiles_are_those_of_the_command():
    settings = inspect.signature(sphemb.segment).parameters
    for name in ("tile", "halo"):
        assert settings[name].default == getattr(Predict, name)


def test_labels_are_those_of_a_prediction_of_the_file(drawings_dir, tmp_path):
    experiment = Experiment(tiny_config(drawings_dir))
    trained = Trained.of(experiment, experiment.init_state(), ())
    image = IMAGES["color"]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    tiled = TiledPrediction(trained)
    tiles = tiled.tiles(image.shape[:2], tile=1024, halo=128)
    expected = tiled.predict(ImageWindows(tmp_path / "a.tif"), tiles)["labels"]
    np.testing.assert_array_equal(sphemb.segment(image, trained), expected)

    file = tmp_path / "model.safetensors"
    save_model(trained, file)
    np.testing.assert_array_equal(sphemb.segment(image, file), expected)
    with pytest.raises(InputError, match="diameter 9 must be for a run of Objects"):
        sphemb.segment(image, trained, diameter=9)
    with pytest.raises(InputError, match=r"diameter must be .* 'auto', got '9'"):
        sphemb.segment(image, trained, diameter="9")
