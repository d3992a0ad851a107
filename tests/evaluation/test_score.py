"""Streaming a split: every image counts once, however it is batched."""

import dataclasses

import numpy as np
import pytest

from sphemb.evaluation import draw_pictures, evaluate
from sphemb.instances import _overlap
from sphemb.training import Experiment, Trained
from tests.references.metrics import best_ious
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def trained(drawings_dir):
    experiment = Experiment(tiny_config(drawings_dir))
    state = experiment.init_state()
    return Trained(experiment, state.params, state.task_state, 0)


class TestEvaluate:
    def test_images_are_counted_once_whatever_the_batch(self, trained):
        evaluation = evaluate(trained, "test", num_samples=3)
        config = trained.experiment.config.copy_and_resolve_references()
        config.evaluation.update(num_test=20, batch_size=8)
        config.data.test = 20
        several = evaluate(
            Trained(Experiment(config), trained.params, (), 0), "test", num_samples=18
        )
        config.evaluation.batch_size = 24
        at_once = evaluate(
            Trained(Experiment(config), trained.params, (), 0), "test", num_samples=18
        )
        assert several.num_images == at_once.num_images == 20
        assert several.scores == pytest.approx(at_once.scores, rel=1e-6)
        for name in ("image", "instances"):
            np.testing.assert_array_equal(several.samples[name], at_once.samples[name])
        np.testing.assert_allclose(
            several.predictions.embedding, at_once.predictions.embedding, atol=1e-3
        )
        source = trained.experiment.source("test")
        truth = np.stack([source[i]["instances"] for i in range(6)])
        assert evaluation.num_images == 6
        assert evaluation.scores["num_objects"] == sum(
            len(np.unique(t[t > 0])) for t in truth
        )
        np.testing.assert_array_equal(evaluation.samples["instances"], truth[:3])

    def test_the_samples_carry_what_the_task_predicts(self, trained):
        evaluation = evaluate(trained, "test", num_samples=3)
        assert evaluation.samples["image"].shape == (3, 32, 32, 3)
        assert evaluation.predictions.embedding.shape == (3, 32, 32, 4)
        assert evaluation.predictions.labels.shape == (3, 32, 32)

    def test_the_host_scores_what_tables_would_be_too_large_for(
        self, trained, monkeypatch
    ):
        expected = evaluate(trained, "test", num_extremes=1)
        monkeypatch.setattr(_overlap, "TABLE_BYTES", 0)
        again = Experiment(trained.experiment.config)
        found = evaluate(Trained(again, trained.params, (), 0), "test", num_extremes=1)
        assert found.scores == pytest.approx(expected.scores, rel=1e-5, nan_ok=True)
        assert [image.index for image in found.ranked] == [
            image.index for image in expected.ranked
        ]

    def test_asking_for_more_images_than_there_are_takes_all(self, trained):
        config = trained.experiment.config.copy_and_resolve_references()
        config.evaluation.num_validation = 1000
        more = Trained(Experiment(config), trained.params, (), 0)
        assert evaluate(more, "validation").num_images == 8


class TestPictures:
    @pytest.mark.parametrize("annotated", [0, 1, 5])
    def test_what_can_be_drawn_is_and_the_rest_is_named(
        self, trained, tmp_path, annotated
    ):
        evaluation = evaluate(trained, "test", num_samples=1)
        void = np.full_like(evaluation.samples["instances"], -1)
        void[0, 0, :annotated] = np.arange(annotated) % 2
        samples = {**evaluation.samples, "instances": void}
        scarce = dataclasses.replace(evaluation, samples=samples)
        records = [{"step": 1, "loss": 0.5, "learning_rate": 0.1, "seconds": 1.0}]
        lines = []
        files = draw_pictures(trained, scarce, records, tmp_path, say=lines.append)
        drawn = {path.name for path in files}
        assert drawn == {path.name for path in tmp_path.iterdir()}
        every = {"grouping", "sphere", "similarities", "gradients", "curves"}
        missing = {f"{name}.png" for name in every} - drawn
        assert "curves.png" in drawn
        assert ("grouping.png" in drawn) == (annotated > 0)
        assert ("similarities.png" in drawn) == (annotated > 1)
        assert len(lines) == bool(missing)
        for name in missing:
            assert f"{name} (" in lines[0]


class TestRanking:
    """Of twenty drawings, some of which show no object and so have no score."""

    @pytest.fixture(scope="class")
    @classmethod
    def more(cls, trained):
        config = trained.experiment.config.copy_and_resolve_references()
        config.evaluation.update(num_test=20, batch_size=8)
        config.data.test = 20
        return Trained(Experiment(config), trained.params, (), 0)

    @pytest.fixture(scope="class")
    @classmethod
    def evaluation(cls, more):
        return evaluate(more, "test", num_samples=1, num_extremes=2)

    def test_images_are_ranked_by_what_each_scores_alone(self, more, evaluation):
        source = more.experiment.source("test")
        objects = [len(np.unique(source[i]["instances"])) - 1 for i in range(20)]
        assert evaluation.ranked_by == "mean_best_iou"
        indices = [image.index for image in evaluation.ranked]
        assert sorted(indices) == np.flatnonzero(objects).tolist()
        scores = [image.scores["mean_best_iou"] for image in evaluation.ranked]
        assert scores == sorted(scores)
        weighed = np.dot(scores, [objects[i] for i in indices]) / sum(objects)
        assert weighed == pytest.approx(evaluation.scores["mean_best_iou"], rel=1e-5)

    def test_the_worst_and_the_best_are_kept_whole(self, more, evaluation):
        kept = [bool(image.maps) for image in evaluation.ranked]
        assert len(kept) > 4
        assert kept == [True, True, *[False] * (len(kept) - 4), True, True]
        source = more.experiment.source("test")
        for image in evaluation.ranked:
            if image.maps:
                truth = source[image.index]["instances"]
                np.testing.assert_array_equal(image.maps["instances"], truth)
                alone = np.mean(best_ious(image.prediction.labels, truth))
                assert image.scores["mean_best_iou"] == pytest.approx(alone, rel=1e-5)

    def test_every_image_is_given_out_whole(self, more, evaluation):
        given = []
        ranked = evaluate(more, "test", num_samples=1, on_image=given.append).ranked
        assert [image.index for image in given] == list(range(20))
        assert [image.index for image in ranked] == [
            image.index for image in evaluation.ranked
        ]
        assert not any(image.maps for image in ranked)
        labels = [image.prediction.labels.shape for image in given]
        assert labels == [image.maps["instances"].shape for image in given]

    def test_the_scores_of_all_images_are_those_without_a_ranking(
        self, more, evaluation
    ):
        plain = evaluate(more, "test", num_samples=1)
        assert plain.scores == evaluation.scores
        assert plain.ranked == ()
