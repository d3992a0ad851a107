"""What the tests of the papers' claims measure, on known cases; nothing is trained."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from benchmarks._claims_boundaries import geometry
from benchmarks._claims_images import (
    components,
    count_found,
    pieces_of,
    read_out,
    touching_border,
)
from benchmarks._claims_picie import SCORED, VARIANTS
from benchmarks._claims_picie import configured as picie_configured
from benchmarks._claims_points import (
    convergence_order,
    doubled_rule,
    log_growth,
    printed_rule,
    random_groups,
    step_gradients,
    widest_spread,
)
from benchmarks._claims_records import (
    Effect,
    draw_effects,
    joint_verdict,
    number,
    over_images,
    over_seeds,
    read_effects,
    to_table,
)
from benchmarks._claims_runs import folder_of, scored_once
from benchmarks._claims_training import CONTINUED, LAST, SHORT, SPHERE, configured
from benchmarks._folders import write_folder
from benchmarks.claims import CLAIMS, PAGE, RECORDS, main
from sphemb.training import Experiment
from tests.references.grouping import sphere_points, step_gradient

KAPPA = 9.0


@pytest.fixture(scope="module")
def points():
    return sphere_points(np.random.default_rng(0), 12, 3)


def pulled_back(rule, x, cotangent):
    with jax.enable_x64(True):
        return np.asarray(rule(jnp.asarray(x), jnp.asarray(cotangent), KAPPA))


def test_doubled_rule_is_the_true_gradient_but_for_the_factor(points):
    x, cotangent = points[0], np.random.default_rng(1).normal(size=(12, 3))
    settings = {"concentration": KAPPA, "step_size": 1.0, "symmetric": False}
    expected = step_gradient(x, cotangent, **settings)
    np.testing.assert_allclose(pulled_back(doubled_rule, x, cotangent), expected)


def test_printed_rule_is_equation_6_line_by_line(points):
    x, cotangent = points[0], np.random.default_rng(1).normal(size=(12, 3))
    X, dY, one = x.T, cotangent.T, np.ones((12, 1))
    S = X.T @ X
    K = np.exp(KAPPA * S)
    d = K.T @ one
    q = 1 / d
    dP = X.T @ dY
    dq = dP.T @ K @ one
    dd = dq * -(d**-2)
    dK = one @ dd.T + dP @ (q @ one.T)
    dS = KAPPA * np.exp(KAPPA * S) * dK
    expected = (2 * X @ dS).T
    np.testing.assert_allclose(pulled_back(printed_rule, x, cotangent), expected)


def test_steps_by_the_derivative_of_the_means_are_those_of_the_library(points):
    def means(x):
        kernel = jnp.exp(KAPPA * (x @ x.T))
        return kernel @ x / kernel.sum(axis=1, keepdims=True)

    settings = {"kappa": KAPPA, "margin": 0.5, "num_steps": 2}
    library = step_gradients(*points, **settings)
    ours = step_gradients(
        *points, **settings, rule=lambda x, g, _: jax.vjp(means, x)[1](g)[0]
    )
    assert library.shape == (3, 12, 3)
    np.testing.assert_allclose(ours, library, atol=1e-12)


def test_growth_and_order_of_known_sequences_are_found():
    gradients = 1.5 ** np.arange(5)[:, None, None] * np.ones((5, 2, 3))
    assert np.isclose(np.exp(log_growth(gradients)), 1.5)
    errors = [0.1]
    while errors[-1] > 1e-40:
        errors.append(4.0 * errors[-1] ** 3)
    assert np.isclose(convergence_order(np.array(errors)), 3.0)
    assert np.isclose(convergence_order(0.5 ** np.arange(60.0)), 1.0)


def test_widest_spread_is_the_largest_deviation_of_any_group():
    x, labels = random_groups(0, np.eye(3)[:2], spread=0.2, size=9)
    spread = widest_spread(x, 2, concentration=KAPPA, num_steps=1)
    covariances = [np.cov(x[labels == group].T, bias=True) for group in (0, 1)]
    largest = max(np.linalg.eigvalsh(c)[-1] for c in covariances)
    assert np.isclose(spread[0], np.sqrt(largest))
    assert spread[1] < spread[0]


def test_borders_touch_where_instances_meet_not_at_the_background():
    labels = np.array([[1, 1, 2, 0, 0], [1, 0, 0, 0, 3], [0, 0, 0, 0, 3]])
    expected = [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(touching_border(labels), expected)


def test_a_read_out_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    rows = [(rng.normal(size=(n, 4)), rng.normal(size=(n, 2))) for n in (5, 4, 3, 2)]
    x, y = (np.concatenate(part) for part in zip(*rows[:2], strict=True))
    fitted = LinearRegression().fit(x, y)
    residual, total = read_out(rows[:2], rows[2:])
    for image, (e, t) in enumerate(rows[2:]):
        errors = ((t - fitted.predict(e)) ** 2).sum(axis=0)
        np.testing.assert_allclose(residual[image], errors)
        np.testing.assert_allclose(total[image], ((t - y.mean(axis=0)) ** 2).sum(0))


class TestPieces:
    truth = np.array([[1, 1, 0, 1, -1], [0, 0, 0, 0, 2], [2, 2, 2, 2, 2]])

    def test_an_object_has_the_pieces_that_are_not_tiny(self):
        assert [p.sum() for p in pieces_of(self.truth == 1)] == [2, 1]
        assert len(pieces_of(self.truth == 2)) == 1
        speck = np.pad(np.ones((5, 6), bool), ((0, 0), (0, 2)))
        speck[0, 7] = True  # one pixel of 31
        assert len(pieces_of(speck)) == 1

    def test_components_are_of_one_class(self):
        classes = np.array([[5, 5, 0, 5], [7, 0, 0, 0], [0, 7, 0, 0]])
        expected = [[1, 1, 0, 2], [3, 0, 0, 0], [0, 3, 0, 0]]
        np.testing.assert_array_equal(components(classes), expected)

    def test_whole_needs_half_the_union_and_joined_most_of_each_piece(self):
        held = np.where(self.truth == 1, 4, 0)
        apart = components((self.truth == 1).astype(int))
        everything = np.ones_like(self.truth)  # holds all pieces, and too much
        counts = count_found(self.truth, [held, apart, everything])
        several, single = counts
        # The larger piece alone is two thirds of the first object.
        np.testing.assert_array_equal(several, [1, 1, 1, 1, 0, 0, 0])
        # Of 14 pixels that are not void six are of the second one.
        np.testing.assert_array_equal(single, [1, 0, 0, 0, 0, 0, 0])


class TestTraining:
    def test_runs_differ_in_what_is_named(self, tmp_path):
        usual, sphere = configured(3, SHORT), configured(3, SPHERE)
        assert usual.seed == sphere.seed == 3
        assert sphere.model.embedding_dim == 3
        folders = {
            folder_of(tmp_path, configured(s, a))
            for s in (0, 1)
            for a in (SHORT, SPHERE)
        }
        assert len(folders) == 4
        for name in SPHERE:
            section, key = name.split(".")
            sphere[section][key] = usual[section][key]
        assert sphere == usual

    def test_a_folder_depends_on_neither_threads_nor_place(self, tmp_path):
        configs = [configured(0, SHORT) for _ in range(2)]
        configs[1].loader.num_threads += 3
        places = [tmp_path / "a", tmp_path / "b"]
        for place, config in zip(places, configs, strict=True):
            config.train.init_from = str(place / "start")
        first, second = map(folder_of, places, configs)
        assert first.name == second.name

    @pytest.mark.parametrize("changes", [{"task.num_steps": 10}, LAST])
    def test_what_is_changed_are_settings_of_the_task(self, changes):
        task = Experiment(configured(0, {**SPHERE, **CONTINUED, **changes})).task
        for name, value in changes.items():
            assert getattr(task, name.removeprefix("task.")) == value

    def test_a_run_is_scored_once(self, tmp_path):
        seen = []

        def score(workdir):
            seen.append(workdir)
            return 0.5

        for _ in range(2):
            assert scored_once(tmp_path, configured(0, SHORT), score) == 0.5
        assert seen == [folder_of(tmp_path, configured(0, SHORT))]


@pytest.mark.parametrize("name", VARIANTS)
def test_photographs_have_classes_for_scores_alone(tmp_path, name):
    image = np.full((48, 64, 3), 9, np.uint8)
    classes = np.tile([-1, 0, 1, 20], (48, 16))
    void = np.full((48, 64), 255, np.uint8)
    write_folder([(image, void)] * 2, tmp_path / "voc" / "train")
    mask = (classes % 256).astype(np.uint8)  # -1 is 255
    write_folder([(image, mask)], tmp_path / "voc" / "val")
    config = picie_configured(tmp_path, "voc", 0, **VARIANTS[name])
    experiment = Experiment(config)
    assert (experiment.source("train")[1]["semantic"] == -1).all()
    np.testing.assert_array_equal(experiment.source("test")[0]["semantic"], classes)
    task = experiment.task
    assert task.num_classes == SCORED["voc"][1]
    boxes = (task.crop_side, task.flip) == ((1.0, 1.0), 0.0)
    colors = task.hue == task.gray == task.blur == task.brightness == 0.0
    assert task.views == (1 if name == "one view" else 2)
    assert boxes == (name == "invariance")
    assert colors == (name == "equivariance")


def test_places_beside_a_straight_boundary_are_known():
    for direction in ([0, 1], [1, 0], [1, 1], [1, -1]):
        normal = np.array(direction) / np.linalg.norm(direction)
        place = np.indices((41, 41)) - 20
        along = np.tensordot(normal, place, 1)
        near, targets = geometry(np.abs(along) < 0.5)
        inner = (np.abs(place).max(axis=0) < 8)[near]
        angle = np.arctan2(*normal)
        cos, sin, distance, signed = targets[inner].T
        np.testing.assert_allclose(cos, np.cos(2 * angle), atol=1e-6)
        np.testing.assert_allclose(sin, np.sin(2 * angle), atol=1e-6)
        # The nearest pixel of a slanted line can lie beside its foot.
        beyond = distance - np.abs(signed)
        assert beyond.min() > -1e-6
        assert beyond.max() < (1e-6 if 0 in direction else 0.5)
        expected = along[near][inner] * np.sign(normal[0] or normal[1])
        np.testing.assert_allclose(signed, expected, atol=1e-6)


class TestEffects:
    def test_seeds_have_the_interval_of_student(self):
        values = [0.1, 0.4, 0.3]
        effect = over_seeds("", values)
        interval = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        np.testing.assert_allclose(effect[1:4], [np.mean(values), *interval])
        grown = over_seeds("", values, scale=np.exp)
        np.testing.assert_allclose(grown[1:4], np.exp(effect[1:4]))

    def test_images_have_the_percentiles_of_resampled_sums(self):
        rng = np.random.default_rng(0)
        parts, wholes = rng.normal(1, 1, 40), rng.uniform(1, 3, 40)
        effect = over_images("", parts, wholes)
        expected = stats.bootstrap(
            (parts, wholes),
            lambda p, w, axis=-1: p.sum(axis) / w.sum(axis),
            paired=True,
            method="percentile",
            rng=1,
        )
        ends = expected.confidence_interval
        np.testing.assert_allclose(effect[2:4], ends, atol=0.02)
        assert np.isclose(effect.value, parts.sum() / wholes.sum())

    @pytest.mark.parametrize(
        ("low", "high", "claimed", "verdict"),
        [
            (0.1, 0.2, (0.0, None), "reproduced"),
            (0.0, 0.2, (0.0, None), "no effect seen here"),
            (-0.1, 0.0, (0.0, None), "refuted"),
            (2.95, 3.05, (2.9, 3.1), "reproduced"),
            (3.2, 3.3, (2.9, 3.1), "refuted"),
            (2.8, 3.0, (2.9, 3.1), "undecided"),
            (-0.3, 0.3, (-0.05, 0.05), "undecided"),
            (-0.04, 0.03, (-0.05, 0.05), "reproduced"),
            (-0.1, 0.2, None, ""),
        ],
    )
    def test_the_verdict_is_that_of_the_interval(self, low, high, claimed, verdict):
        assert Effect("", (low + high) / 2, low, high, claimed).verdict == verdict

    def test_effects_that_differ_support_a_claim_in_part(self):
        good, context = Effect("", 2, 1, 3, (0, None)), Effect("", 0, 0, 0)
        assert joint_verdict([good, context]) == "reproduced"
        nothing, against = (
            Effect("", 0, -1, 1, (0, None)),
            Effect("", -2, -3, -1, (0, 1)),
        )
        assert joint_verdict([good, nothing]) == "in part"
        assert joint_verdict([against, nothing]) == "refuted"
        assert joint_verdict([nothing, Effect("", 0, -9, 9, (-1, 1))]) == "undecided"
        with pytest.raises(ValueError, match="one at least"):
            joint_verdict([context])


class TestPage:
    records = json.loads(RECORDS.read_text())

    def test_every_claim_has_a_record_whose_verdict_follows_from_its_effects(self):
        assert sorted(self.records) == sorted(CLAIMS)
        for name, record in self.records.items():
            effects = read_effects(record)
            assert record["verdict"] == joint_verdict(effects), name
            assert all(e.low <= e.value <= e.high for e in effects), name
            assert record["claim"] == CLAIMS[name].claim

    def test_the_table_of_the_page_is_that_of_the_records(self):
        rows = [self.records[name] for name in CLAIMS]
        assert to_table(rows) in PAGE.read_text()

    def test_the_figure_has_a_chart_for_each_claim(self):
        figure = draw_effects(list(self.records.values()))
        labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        first = read_effects(next(iter(self.records.values())))
        assert len(figure.axes) == len(self.records)
        assert labels == [effect.name for effect in first]
        assert (PAGE.parent / "images" / "claims.png").stat().st_size < 300_000


def test_numbers_are_short():
    assert [number(v) for v in (0.0, -0.0314, 2.9961, 234.6)] == [
        ".000",
        "-.031",
        "2.996",
        "235",
    ]


def test_a_mistake_is_one_line(capsys):
    for arguments, words in {
        ("fast",): "invalid choice: 'fast'",
        ("pieces",): "required: --workdir",
        ("places", "--number=1"): "--number must be at least 2, got 1",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
