"""Clusters of features that nobody trained for it."""

import pytest

from benchmarks.frozen_features import clustered
from sphemb import InputError
from sphemb.configs import picie_digits
from sphemb.evaluation import evaluate


def config_of(drawings_dir):
    config = picie_digits.get_config()
    config.data.update(size=32, train=24, validation=8, test=8)
    config.data.data_dir = str(drawings_dir)
    config.loader.update(batch_size=8, num_threads=0)
    config.model = {
        "name": "FeaturePyramid",
        "backbone": "resnet18",
        "embedding_dim": 4,
    }
    config.task.embedding_dim = 4
    config.task.update(num_clusters=4, cluster_pixels=8, start_images=8)
    config.evaluation.update(num_validation=8, num_test=6)
    return config


@pytest.mark.nightly
@pytest.mark.parametrize("map_name", [None, "stage4"])
def test_the_embedding_or_a_map_of_the_backbone_is_scored(map_name, drawings_dir):
    config = config_of(drawings_dir).lock()  # as it comes from the command line
    trained = clustered(config, map_name=map_name)
    scores = evaluate(trained, "validation", num_samples=1).scores
    assert 0 <= scores["mean_iou"] <= scores["accuracy"] <= 1
    assert config.task.views == 2  # the caller's config is left alone


def test_a_map_that_there_is_not_names_those_that_are(drawings_dir):
    with pytest.raises(InputError, match=r"--map must be one of stem, stage1, .*vgg"):
        clustered(config_of(drawings_dir), map_name="vgg")
