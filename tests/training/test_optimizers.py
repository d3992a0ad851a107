"""Schedules and optimisers by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sphemb import InputError
from sphemb.configs.common import get_config
from sphemb.training import Experiment, make_optimizer, poly_schedule


def test_the_poly_policy_is_the_papers():
    schedule = poly_schedule(2.5e-4, 1000)
    for step in (0, 1, 500, 999):
        expected = 2.5e-4 * (1 - step / 1000) ** 0.9
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-4)
    assert float(schedule(1000)) == 0.0


def test_the_warm_up_rises_to_the_policy_and_stays_on_it():
    schedule, bare = poly_schedule(1.0, 100, warmup_steps=10), poly_schedule(1.0, 100)
    rates = [float(schedule(step)) for step in range(12)]
    assert rates[0] < 0.1
    assert rates[:10] == sorted(rates[:10])
    np.testing.assert_allclose(rates[10:], [bare(10), bare(11)], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_gradient_is_clipped_before_the_optimiser_sees_it(name):
    optimizer = make_optimizer(poly_schedule(1.0, 10), name=name, clip_norm=1.0)
    params = {"w": jnp.zeros(4)}
    state = optimizer.init(params)
    huge, _ = optimizer.update({"w": jnp.full(4, 1e6)}, state, params)
    unit, _ = optimizer.update({"w": jnp.full(4, 0.5)}, state, params)
    np.testing.assert_allclose(huge["w"], unit["w"], rtol=1e-5)
    assert float(optax.tree.norm(huge)) > 0


def test_an_unknown_optimiser_names_the_known_ones():
    with pytest.raises(InputError, match="must be one of 'sgd', 'adamw', got 'lion'"):
        make_optimizer(poly_schedule(1.0, 10), name="lion")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_backbone_may_learn_more_slowly(name):
    settings = {"name": name, "weight_decay": 0.1, "clip_norm": 1.0}
    params = {"backbone": {"w": jnp.array([1.0, -2.0])}, "head": jnp.array([3.0])}
    gradients = {"backbone": {"w": jnp.array([0.3, 0.1])}, "head": jnp.array([0.2])}
    even = make_optimizer(poly_schedule(0.1, 10), **settings)
    slow = make_optimizer(poly_schedule(0.1, 10), backbone_rate=0.25, **settings)
    expected, _ = even.update(gradients, even.init(params), params)
    found, _ = slow.update(gradients, slow.init(params), params)
    np.testing.assert_allclose(found["head"], expected["head"], rtol=1e-6)
    np.testing.assert_allclose(
        found["backbone"]["w"], 0.25 * expected["backbone"]["w"], rtol=1e-6
    )


def test_accumulated_steps_make_one_update_of_their_mean_gradient():
    settings = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}
    once = make_optimizer(poly_schedule(0.1, 10), **settings)
    twice = make_optimizer(poly_schedule(0.1, 10), accumulate=2, **settings)
    params = accumulated = {"w": jnp.array([1.0, -2.0, 3.0])}
    state, accumulating = once.init(params), twice.init(params)
    gradients = [jnp.array([1.0, 2.0, 3.0]), jnp.array([3.0, -2.0, 5.0])]
    for _ in range(3):
        mean = {"w": 0.5 * (gradients[0] + gradients[1])}
        updates, state = once.update(mean, state, params)
        params = optax.apply_updates(params, updates)
        for i, gradient in enumerate(gradients):
            before = accumulated
            updates, accumulating = twice.update(
                {"w": gradient}, accumulating, accumulated
            )
            accumulated = optax.apply_updates(accumulated, updates)
            if i == 0:
                np.testing.assert_array_equal(accumulated["w"], before["w"])
        np.testing.assert_allclose(accumulated["w"], params["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("adamw", "learning_rate", 1e-2),
        ("adamw", "power", 0.1),
        ("adamw", "warmup_steps", 2),
        ("adamw", "weight_decay", 0.1),
        ("adamw", "accumulate", 2),
        ("adamw", "backbone_rate", 0.5),
        ("sgd", "momentum", 0.1),
        ("sgd", "clip_norm", 0.1),
    ],
)
def test_every_setting_of_a_configuration_changes_what_is_learned(name, setting, value):
    params = {"backbone": jnp.array([1.0, -2.0]), "head": jnp.array([3.0])}
    gradients = {"backbone": jnp.array([0.3, 0.1]), "head": jnp.array([-0.2])}

    def learned(**changed):
        config = get_config()
        config.update(data={"name": "d"}, model={"name": "m"}, task={"name": "t"})
        config.optimizer.update(
            name=name, warmup_steps=0, clip_norm=10.0, weight_decay=0.0
        )
        config.optimizer.update(changed)
        config.train.num_steps = 8
        optimizer = Experiment(config).optimizer
        state, found = optimizer.init(params), params
        for _ in range(3):
            updates, state = optimizer.update(gradients, state, found)
            found = optax.apply_updates(found, updates)
        return np.concatenate(jax.tree.leaves(found))

    assert np.abs(learned(**{setting: value}) - learned()).max() > 1e-6


class TwoParts(nn.Module):
    """A backbone and a head of one number each."""

    stride = 1
    feature_maps = ()

    @nn.compact
    def __call__(self, image, *, train=False, mask=None):
        pixels = nn.Dense(1, name="backbone")(image)
        return {"embedding": nn.Dense(1, name="head")(jnp.square(pixels))}


def test_a_fixed_backbone_has_no_gradient_and_leaves_the_others_theirs():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 2, 2, 3)))

    def gradient(rate):
        config = get_config()
        config.update(data={"name": "d"}, task={"name": "t"})
        config.model.name = f"{__name__}:TwoParts"
        config.optimizer.backbone_rate = rate
        experiment = Experiment(config)
        params = experiment.model.init(jax.random.key(0), image)["params"]

        def loss(params):
            maps, _ = experiment.training_network(params, {}, image)
            return jnp.sum(jnp.square(maps["embedding"]))

        return jax.grad(loss)(params)

    fixed, free = gradient(0.0), gradient(1.0)
    assert jnp.abs(free["backbone"]["kernel"]).max() > 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(fixed["backbone"]))
    jax.tree.map(np.testing.assert_array_equal, fixed["head"], free["head"])
