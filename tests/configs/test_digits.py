"""The real configurations, shrunk, train."""

import pytest

from sphemb import InputError, sphere
from sphemb.configs import digits
from sphemb.training import train
from tests.tiny import tiny_config


def test_the_sphere_variant_takes_its_first_step(drawings_dir, tmp_path):
    config = tiny_config(drawings_dir, "sphere")
    config.train.num_steps = 1
    assert train(config, tmp_path / "run").step == 1


@pytest.mark.needs_data
def test_the_mnist_variant_takes_its_first_step(data_dir, tmp_path):
    config = tiny_config(tmp_path / "drawings", "mnist")
    config.data.mnist_path = str(data_dir / "mnist" / "mnist.npz")
    config.train.num_steps = 1
    assert train(config, tmp_path / "run").step == 1


@pytest.mark.parametrize("variant", digits.VARIANTS)
def test_nine_digits_and_the_background_can_reach_zero_loss(variant):
    config = digits.get_config(variant)
    needed = sphere.margin_for(10, config.model.embedding_dim).margin
    # In 3-d the best ten directions are a hair closer than the margin (.7022).
    assert config.task.margin >= needed - 0.0025


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(
        InputError, match=r"one of sklearn, finetune, sphere, mnist, got"
    ):
        digits.get_config("emnist")
