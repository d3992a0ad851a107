"""One device and eight show the same images, at rates that follow one rule."""

import importlib

import jax
import pytest

from sphemb import InputError
from sphemb.cli import shipped_configs
from sphemb.training import Experiment
from tests.tiny import tiny_config

IMAGES = 10582  # of VOC with SBD


def recipes():
    for name in shipped_configs():
        module = importlib.import_module(f"sphemb.configs.{name}")
        for variant in getattr(module, "VARIANTS", (None,)):
            yield pytest.param(module, variant, id=f"{name}:{variant or ''}")


def experiment(config, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    found = Experiment(config)
    found._sources["train"] = range(IMAGES)  # only its length is asked for
    return found


def rates(found, shares=(0.25, 0.5, 0.75)):
    updates = found.num_steps // found.config.optimizer.accumulate
    return [float(found.schedule(share * updates)) for share in shares]


@pytest.mark.parametrize(("module", "variant"), list(recipes()))
def test_eight_devices_show_as_many_images_as_one(module, variant, monkeypatch):
    config = module.get_config(variant) if variant else module.get_config()
    if config.loader.batch_size % 8 and not config.loader.images_per_device:
        message = r"divisible by .* devices, 8, got 4: .*images_per_device=1 adapts"
        with pytest.raises(InputError, match=message):
            experiment(config, 8, monkeypatch).train_batches()
        config.loader.images_per_device = 1
    found = []
    for devices in (1, 8):
        one = experiment(config, devices, monkeypatch)
        every = config.train.eval_every
        found.append(
            {
                "batch": one.batch_size,
                "images": one.num_steps * one.batch_size,
                "scored": one.times_due(every, one.num_steps),
                "rates": rates(one),
            }
        )
    one, eight = found
    assert 0 <= eight["images"] - one["images"] < eight["batch"]
    assert eight["scored"] == one["scored"]
    scale = eight["batch"] / one["batch"]
    assert scale == (8 if config.loader.images_per_device else 1)
    expected = [scale * rate for rate in one["rates"]]
    assert eight["rates"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("variant", ["r50", "mean_shift"])
def test_voc_lasts_the_epochs_of_the_authors(variant, monkeypatch):
    module = importlib.import_module("sphemb.configs.voc")
    one = experiment(module.get_config(variant), 1, monkeypatch)
    assert one.num_steps == {"r50": 150, "mean_shift": 50}[variant] * IMAGES


def test_a_warm_up_and_what_is_due_keep_their_images(drawings_dir, monkeypatch):
    config = tiny_config(drawings_dir)
    config.loader.batch_size = 2
    config.train.num_steps = 100
    config.optimizer.update(warmup_steps=20, power=0.0, learning_rate=0.5)
    alone = experiment(config, 1, monkeypatch)
    assert (alone.batch_scale, alone.num_steps) == (1, 100)
    assert float(alone.schedule(20)) == 0.5
    assert float(alone.schedule(10)) < 0.3
    config.loader.images_per_device = 1
    # 12 images are 6 batches of 2: 100 of these are 16 steps and two thirds.
    many = experiment(config, 12, monkeypatch)
    assert (many.batch_scale, many.num_steps) == (6, 17)
    assert float(many.schedule(4)) == 3.0
    assert float(many.schedule(2)) < 2.0
    due = [s for s in range(1, 18) if many.times_due(25, s) > many.times_due(25, s - 1)]
    assert due == [5, 9, 13, 17]  # after 50, 100, 150 and 200 images
    assert many.times_due(0, 17) == 0


@pytest.mark.parametrize(
    ("section", "settings", "words"),
    [
        ("train", {"num_epochs": 2.0}, "exactly one of num_epochs and num_steps above"),
        ("train", {"num_steps": 0}, "above 0, got num_epochs 0 and num_steps 0"),
        ("train", {"num_epochs": -1.0}, "num_epochs must satisfy 0 <="),
        ("loader", {"images_per_device": -1}, "images_per_device must be >= 0"),
    ],
)
def test_lengths_that_say_nothing_or_two_things_are_refused(
    section, settings, words, drawings_dir
):
    config = tiny_config(drawings_dir)
    config[section].update(settings)
    with pytest.raises(InputError, match=words):
        Experiment(config)


def test_a_batch_without_a_size_is_refused(drawings_dir):
    config = tiny_config(drawings_dir).to_dict()
    config["loader"]["batch_size"] = None
    with pytest.raises(InputError, match=r"got None: for one image on each device set"):
        Experiment(type(tiny_config(drawings_dir))(config))
