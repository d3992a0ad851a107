"""Labels and limits are compared with the task before training."""

import numpy as np
import pytest
from PIL import Image

from sphemb import InputError
from sphemb.configs import common, folder, voc_semantic
from sphemb.training import Experiment, train
from sphemb.training._labels import check_labels
from tests.scenes import write_folder
from tests.tiny import tiny_config

SPLITS = ("train", "validation", "test")


def write(root, masks):
    """A folder with a training, a validation and a test image for each mask."""
    for split in ("train", "val", "test"):
        for i, mask in enumerate(masks):
            for kind, array in (("images", np.zeros((8, 8, 3))), ("masks", mask)):
                path = root / split / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return root


def flat(value, corner=None):
    mask = np.full((8, 8), value)
    mask[:2, :2] = value if corner is None else corner
    return mask


def experiment_of(root, masks, task, **settings):
    config = common.get_config()
    config.data = {"name": "folder", "dir": str(root), "masks": masks, "void": 255}
    config.loader.update(batch_size=8, num_threads=0)
    config.model = {"name": "UNet", "embedding_dim": 4, "features": (8,)}
    config.task = {"name": task, **settings}
    config.evaluation.update(num_validation=4, num_test=4)
    return Experiment(config)


class TestRange:
    def test_a_class_too_high_is_refused_with_data_file_and_setting(self, tmp_path):
        root = write(tmp_path, [flat(0, 1)] * 7 + [flat(0, 2)])
        check_labels(experiment_of(root, "classes", "Semantic", num_classes=3), SPLITS)
        experiment = experiment_of(root, "classes", "Semantic", num_classes=2)
        words = (
            r"semantic of example '7' of config\.data\.name folder must be -1 \(void\) "
            r"or one of the classes 0 to 1 that config\.task\.num_classes gives, got 2"
        )
        with pytest.raises(InputError, match=words):
            check_labels(experiment, SPLITS)
        with pytest.raises(InputError, match=words):
            list(experiment.one_pass("validation", list(range(8)), batch_size=8))
        with pytest.raises(InputError, match=words):
            next(experiment.train_batches())

    def test_void_is_no_class(self, tmp_path):
        root = write(tmp_path, [flat(255, 1), flat(0)])
        check_labels(experiment_of(root, "classes", "Semantic", num_classes=2), SPLITS)

    @pytest.mark.parametrize("number", [2, 22])
    def test_named_classes_must_be_as_many_as_the_tasks(self, number, tmp_path):
        class Named:
            class_names = ("background", "cat", "dog")

        experiment = experiment_of(tmp_path, "classes", "Semantic", num_classes=number)
        experiment._sources["train"] = Named()
        words = rf"num_classes must go with the 3 classes .* end at {number - 1}$"
        with pytest.raises(InputError, match=words):
            check_labels(experiment, ())


class TestNothingToLearn:
    @pytest.mark.parametrize("task", ["Proposals", "Spectral"])
    def test_background_alone_is_refused(self, task, tmp_path):
        root = write(tmp_path, [flat(0), flat(0, 255)])
        words = (
            rf"config\.task\.name {task} finds nothing to learn in the train split of "
            r"config\.data\.name folder: instances is background .* all 2 examples"
        )
        with pytest.raises(InputError, match=words):
            check_labels(experiment_of(root, "instances", task), SPLITS)

    def test_one_object_among_many_images_is_found(self, tmp_path):
        root = write(tmp_path, [flat(0)] * 9 + [flat(0, 1)])
        check_labels(experiment_of(root, "components", "Proposals"), SPLITS)

    def test_void_alone_is_refused_and_a_split_that_is_scored_as_well(self, tmp_path):
        root = write(tmp_path, [flat(0, 1)])
        for split in ("train", "test"):
            Image.fromarray(np.full((8, 8), 255, np.uint8)).save(
                root / split / "masks" / "0.png"
            )
            experiment = experiment_of(root, "components", "Proposals")
            words = rf"no valid pixel in the {split} split .* instances is void every"
            with pytest.raises(InputError, match=words):
                check_labels(experiment, SPLITS)
            save = Image.fromarray(flat(0, 1).astype(np.uint8)).save
            save(root / split / "masks" / "0.png")

    def test_a_run_in_which_no_pixel_ever_counts_stops(
        self, drawings_dir, tmp_path, monkeypatch
    ):
        from sphemb.data import DigitsAugmentation

        plain = DigitsAugmentation.random_map

        def all_void(self, element, rng):
            moved = plain(self, element, rng)
            return {**moved, "instances": np.full_like(moved["instances"], -1)}

        monkeypatch.setattr(DigitsAugmentation, "random_map", all_void)
        config = tiny_config(drawings_dir)
        config.train.num_steps = 2
        words = r"stopped at step 2: valid_share was 0 in the last 2 steps, since inst"
        with pytest.raises(InputError, match=words):
            train(config, tmp_path / "run")
        assert not any((tmp_path / "run" / "checkpoints").glob("2"))


class TestObjectLimit:
    def test_training_does_not_begin(self, drawings_dir, tmp_path):
        config = tiny_config(drawings_dir)
        config.data.size = 64  # for several digits
        config.task.max_objects = 2
        words = r"config\.task\.max_objects must be at least \d+, .* got 2$"
        with pytest.raises(InputError, match=words):
            train(config, tmp_path / "run", evaluate=lambda trained, split: {})
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_the_split_and_the_image_are_named(self, tmp_path, split):
        config = folder.get_config()
        config.data.dir = str(write_folder(tmp_path / "scenes"))
        for limit, skip_bad in ((1, False), (1, True), (2, False)):
            config.task.max_objects = limit
            config.loader.skip_bad = skip_bad
            experiment = Experiment(config)
            if limit == 2:
                check_labels(experiment, ("validation", "test"))
                continue
            words = rf"must be at least 2, .* the {split} split of .*image \d+\), got 1"
            with pytest.raises(InputError, match=words):
                check_labels(experiment, (split,))

    def test_every_scored_example_is_read_once(self, tmp_path):
        config = folder.get_config()
        config.data.dir = str(write_folder(tmp_path / "scenes"))
        experiment = Experiment(config)
        source, read = experiment.source("test"), []

        class Counted:
            def __len__(self):
                return len(source)

            def __getitem__(self, index):
                read.append(index)
                return source[index]

            def instances(self, index):
                read.append(index)
                return source.instances(index)

        experiment._sources["test"] = Counted()
        check_labels(experiment, ("test",))
        assert sorted(read) == list(range(len(source)))

    def test_a_task_that_counts_no_objects_has_no_limit(self):
        assert Experiment(voc_semantic.get_config()).task.object_limit is None
