"""A limit of objects that is too low for the scored images is said before training."""

import pytest

from sphemb import InputError
from sphemb.configs import folder, voc_semantic
from sphemb.training import Experiment, train
from sphemb.training._object_limit import check_object_limit
from tests.scenes import write_folder
from tests.tiny import tiny_config

SCORED = ("validation", "test")


def test_training_does_not_begin(drawings_dir, tmp_path):
    config = tiny_config(drawings_dir)
    config.data.size = 64  # room for several digits
    config.task.max_objects = 2
    words = r"config\.task\.max_objects must be at least \d+, .* got 2$"
    with pytest.raises(InputError, match=words):
        train(config, tmp_path / "run", evaluate=lambda trained, split: {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", SCORED)
def test_the_split_and_the_image_are_named(tmp_path, split):
    config = folder.get_config()
    config.data.dir = str(write_folder(tmp_path / "scenes"))
    for limit, skip_bad in ((1, False), (1, True), (2, False)):
        config.task.max_objects = limit
        config.loader.skip_bad = skip_bad
        experiment = Experiment(config)
        if limit == 2:
            check_object_limit(experiment, SCORED)
            continue
        words = rf"must be at least 2, .* the {split} split of .*image \d+\), got 1"
        with pytest.raises(InputError, match=words):
            check_object_limit(experiment, (split,))


def test_what_no_score_counts_is_not_looked_at():
    config = voc_semantic.get_config()
    assert Experiment(config).task.object_limit is None
    check_object_limit(Experiment(config), SCORED)  # whose data are nowhere
