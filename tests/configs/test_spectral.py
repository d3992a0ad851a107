"""The spectral configs, shrunk, train and are scored; their roundings are compared."""

import pytest

from benchmarks.instances_or_classes import VARIANTS, format_table
from benchmarks.roundings import format_table as format_roundings
from benchmarks.roundings import score_rounding, score_roundings
from sphemb import InputError
from sphemb.cli import run_training
from sphemb.configs import digits, digits_spectral, voc_spectral
from sphemb.models import FCN8
from sphemb.training import Experiment, load_run
from tests.tiny import tiny_config


def shrink(config):
    config.augmentation.size = (32, 32)
    config.loader.update(batch_size=8, images_per_device=0, num_threads=0)
    config.model.update(backbone="resnet18", embedding_dim=5)
    config.task.update(max_objects=8)
    config.train.update(num_epochs=0, num_steps=1)
    config.train.update(log_every=1, checkpoint_every=1, eval_every=0)
    config.train.update(weights=None)
    config.optimizer.warmup_steps = 0
    config.evaluation.update(batch_size=1, num_validation=2, num_test=4)
    return config


def tiny_spectral(drawings_dir):
    config = tiny_config(drawings_dir)
    config.task = digits_spectral.get_config().task
    config.task.max_groups = 8
    return config


def test_the_digits_differ_from_those_of_the_margin_loss_in_their_task_alone():
    found, other = digits_spectral.get_config(), digits.get_config()
    assert found.task.name == "Spectral"
    assert {k: v for k, v in found.items() if k != "task"} == {
        k: v for k, v in other.items() if k != "task"
    }


@pytest.mark.nightly
def test_digits_are_trained_on_scored_and_their_roundings_compared(
    drawings_dir, tmp_path
):
    summary = run_training(tiny_spectral(drawings_dir), tmp_path / "run")
    assert summary["step"] == 4
    for name in ("pair_accuracy", "pair_precision", "pair_recall", "mean_best_iou"):
        assert 0 <= summary[name] <= 1
    assert (tmp_path / "run" / "pictures" / "grouping.png").is_file()
    rows = score_roundings(
        load_run(tmp_path / "run"),
        "test",
        names=["KwikCluster, best of {}", "orthogonal, best of {}"],
        images=3,
        tries=2,
    )
    first, second = rows.values()
    assert first["num_objects"] == second["num_objects"] > 0
    *_, last = format_roundings(rows).splitlines()
    accuracy = second["pair_accuracy"]
    assert last.startswith(f"| orthogonal, best of 2 | {accuracy:.3f} |")


@pytest.mark.nightly
def test_a_run_of_the_margin_loss_is_rounded_as_it_rounds_itself(
    drawings_dir, tmp_path
):
    config = tiny_config(drawings_dir)
    config.train.num_steps = 1
    own = run_training(config, tmp_path / "run")
    again = score_rounding(
        load_run(tmp_path / "run"), "test", {"rounding": "mean_shift"}
    )
    assert 0 <= again["pair_accuracy"] <= 1
    for name in ("mean_best_iou", "count_found", "num_objects"):
        assert again[name] == pytest.approx(own[name], abs=1e-6)


@pytest.mark.parametrize("coco", ["", "coco_"])
def test_both_halves_of_the_table_are_of_the_same_network_and_images(coco):
    halves = [voc_spectral.get_config(f"{coco}{n}") for n in ("spectral", "softmax")]
    one, other = ({k: v for k, v in config.items() if k != "task"} for config in halves)
    assert one == other
    model = Experiment(halves[0]).model
    assert isinstance(model, FCN8)
    assert model.embedding_dim == halves[1].task.num_classes == 21


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(InputError, match=r"one of spectral, softmax, coco_sp.*, got"):
        voc_spectral.get_config("coco")


def test_the_table_has_a_row_for_each_partition_and_what_is_published():
    scores = ("pair_accuracy", "pair_precision", "pair_recall", "adjusted_rand_index")
    summaries = {
        variant: {
            f"{prefix}{score}": 0.125 * i + 0.5 * (prefix == "parts/")
            for prefix in ("", "classes/", "regions/", "parts/")
            for i, score in enumerate(scores)
        }
        for variant in VARIANTS
    }
    lines = format_table(summaries).splitlines()
    assert lines[4].endswith("instances | 0.500 | 0.625 | 0.750 | 0.875 |")
    assert lines[5].endswith("instances | 0.000 | 0.125 | 0.250 | 0.375 |")
    assert lines[6] == "| published, FCN-8 on VOC, classes | 0.859 | 0.864 | 0.915 | |"
