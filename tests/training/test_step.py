"""One step on several devices is one step."""

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from sphemb import InputError
from sphemb.data import make_loader
from sphemb.training import (
    Experiment,
    data_parallel,
    make_train_step,
    replicate,
    split_batch,
    spread_batch,
)
from tests.tiny import small_resnet, tiny_config
from tests.training import test_resume


@pytest.fixture(scope="module")
def parts(drawings_dir):
    experiment = Experiment(tiny_config(drawings_dir))
    step = make_train_step(
        experiment.task,
        experiment.training_network,
        experiment.optimizer,
        experiment.keys["step"],
    )
    # Whole, and cut by the tests that need it.
    return (
        experiment,
        step,
        jax.device_get(spread_batch(next(experiment.train_batches()))),
    )


def typed(step):
    """The step by `shard_map`, which refuses results that may differ by device."""
    mesh = Mesh(np.asarray(jax.devices()), ("batch",))
    whole, cut = PartitionSpec(), PartitionSpec("batch")
    settings = {"in_specs": (whole, cut), "out_specs": whole, "check_vma": True}
    return jax.shard_map(step, mesh=mesh, **settings)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "make",
    [
        test_resume.spectral,
        test_resume.picie,
        test_resume.semantic,
        test_resume.instances,
        test_resume.boundaries,
    ],
)
def test_the_results_of_every_task_are_replicated_by_type(make, drawings_dir, tmp_path):
    with small_resnet():
        experiment = Experiment(make(tmp_path, drawings_dir))
        batch = spread_batch(next(experiment.train_batches()))
        step = typed(experiment.train_step)
        state, _ = jax.eval_shape(step, experiment.abstract_state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, experiment.abstract_state)


class TestStep:
    def test_eight_devices_take_the_step_that_one_takes(self, parts):
        experiment, step, batch = parts
        state = experiment.init_state()
        parallel = data_parallel(step, replicated_output=True)
        many, many_scalars = parallel(replicate(state), split_batch(batch))
        alone = jax.jit(
            jax.vmap(step, axis_name="batch", in_axes=(None, 0), out_axes=None)
        )
        one, one_scalars = alone(state, jax.tree.map(lambda x: x[None], batch))
        assert jax.device_count() == 8
        assert int(many.step) == int(one.step) == 1
        for name, value in one_scalars.items():
            np.testing.assert_allclose(many_scalars[name], value, rtol=2e-4)
        # Their results are replicated by type, not by promise.
        found = jax.jit(typed(step))(replicate(state), spread_batch(batch))
        chex.assert_trees_all_close(found, (many, many_scalars), rtol=1e-5, atol=1e-6)
        # Adam divides by the gradient's size, so where that is rounding noise the two
        # may part by as much as a step is long.
        moved = 0.0
        for a, b, start in zip(
            jax.tree.leaves(many.params),
            jax.tree.leaves(one.params),
            jax.tree.leaves(state.params),
            strict=True,
        ):
            assert np.mean(np.abs(np.asarray(a) - b) > 1e-4) < 0.02
            moved = max(moved, float(np.abs(np.asarray(b) - start).max()))
        assert moved > 1e-3

    def test_the_loss_is_the_sum_of_the_steps_of_the_trajectory(self, parts):
        experiment, step, batch = parts
        parallel = data_parallel(step, replicated_output=True)
        _, scalars = parallel(replicate(experiment.init_state()), split_batch(batch))
        norms = {"gradient_norm", "parameter_max"}
        assert set(scalars) == {
            "loss",
            "loss/step0",
            "loss/step1",
            "valid_share",
            *norms,
        }
        total = scalars["loss/step0"] + scalars["loss/step1"]
        np.testing.assert_allclose(scalars["loss"], total, rtol=1e-6)

    def test_what_void_pixels_hold_does_not_change_the_loss(self, parts):
        experiment, _, batch = parts
        embedding = jax.random.normal(jax.random.key(0), (8, 32, 32, 4))
        labels = np.array(batch["instances"])
        labels[:, :, 16:] = -1

        @jax.jit
        def loss(embedding, labels):
            maps = {"embedding": embedding}
            void = {**batch, "instances": labels}
            key = jax.random.key(0)
            return experiment.task.loss(lambda *_: maps, (), void, key)[0]

        half = loss(embedding, labels)
        other = embedding.at[:, :, 16:].multiply(-3.0)
        np.testing.assert_allclose(loss(other, labels), half, rtol=1e-6)
        assert abs(float(loss(embedding, batch["instances"])) - float(half)) > 1e-3
        assert float(loss(embedding, np.full_like(labels, -1))) == 0.0


@pytest.mark.parametrize("most", [-1, 100, 1000, 100_000])
def test_a_compact_batch_becomes_the_same_numbers_on_the_devices(most):
    labels = np.linspace(-1, most, 256).astype(np.int32).reshape(16, 16)
    image = np.arange(256).repeat(3).reshape(16, 16, 3).astype(np.uint8)
    example = {
        "image": image,
        "instances": labels,
        "semantic": labels % 128,
        "name": "a",
    }
    full, compact = (
        next(iter(make_loader([example] * 8, batch_size=8, compact=compact)))
        for compact in (False, True)
    )
    assert compact["image"].dtype == np.uint8
    assert compact["semantic"].dtype == np.int8
    assert compact["instances"].nbytes < full["instances"].nbytes or most > 2**15
    sent = jax.device_get(spread_batch(compact))
    chex.assert_trees_all_equal(sent, jax.device_get(spread_batch(full)))
    for name in ("image", "instances", "semantic"):
        np.testing.assert_array_equal(sent[name], full[name], strict=True)


def test_a_step_refuses_images_of_8_bits(parts):
    experiment, step, batch = parts
    raw = {**batch, "image": np.zeros((8, 32, 32, 3), np.uint8)}
    with pytest.raises(InputError, match=r"floating point, got uint8: .*split_batch"):
        jax.eval_shape(step, experiment.abstract_state, raw)


def test_a_batch_that_does_not_divide_names_the_setting():
    with pytest.raises(InputError, match="divisible by its 8 devices, got 12"):
        split_batch({"image": np.zeros((12, 4, 4, 3))})
