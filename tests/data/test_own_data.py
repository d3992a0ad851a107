"""A data set and an augmentation of one's own, named by a configuration."""

from __future__ import annotations

import dataclasses

import grain
import ml_collections
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.data import Dataset, ExampleSource, check_data
from sphemb.training import Experiment
from tests.tiny import tiny_config

MODULE = "tests.data.test_own_data"


class Squares:
    """Images of one square each, as `Dataset` says."""

    def __init__(self, *, number: int = 8, side: int = 8) -> None:
        self._number, self._side = number, side

    def source(self, split: str, /) -> ExampleSource:
        return _Squares(self._number, self._side, split)


@dataclasses.dataclass
class _Squares:
    number: int
    side: int
    split: str

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int, /) -> dict[str, object]:
        instances = np.zeros(self.size(index), np.int32)
        instances[index : index + self.side, : self.side] = 1
        image = np.repeat(np.uint8(200 * instances)[..., None], 3, axis=-1)
        name = f"{self.split}-{index}"
        return {"image": image, "instances": instances, "name": name}

    def size(self, index: int, /) -> tuple[int, int]:
        return 32, 32


class Negative(grain.transforms.Map):
    """Replaces every color by its complement."""

    def map(self, element):
        return {**element, "image": 255 - element["image"]}


@pytest.fixture
def config(tmp_path):
    config = tiny_config(tmp_path)
    config.data = ml_collections.ConfigDict({"name": f"{MODULE}:Squares", "side": 4})
    config.augmentation = ml_collections.ConfigDict({"name": f"{MODULE}:Negative"})
    return config


def test_they_are_trained_on_and_scored(config):
    experiment = Experiment(config)
    batch = next(experiment.train_batches())
    np.testing.assert_array_equal(batch["image"][..., 0] < 128, batch["instances"] == 1)
    assert (batch["instances"] == 1).sum(axis=(1, 2)).tolist() == [16] * 8
    (scored,) = experiment.one_pass("test", [0, 5], batch_size=2)
    np.testing.assert_array_equal(scored["image"][..., 0] > 0, scored["instances"] == 1)
    assert scored["index"].tolist() == [0, 5]


def test_it_can_be_checked():
    data: Dataset = Squares(side=2)
    report = check_data(data, stride=4)
    assert not report.errors
    kinds = {finding.kind for finding in report.warnings}
    assert kinds == {"vanishing", "duplicate"}


def test_a_setting_that_it_does_not_have_is_named(config):
    config.data.sides = 3
    with pytest.raises(InputError, match=r"config\.data\.sides: it must be one of num"):
        Experiment(config).source("train")
