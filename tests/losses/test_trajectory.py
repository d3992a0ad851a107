"""The loss on every step of a mean shift."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError, margin_loss, trajectory_margin_loss
from tests.references import losses as reference
from tests.references import sphere as sphere_reference

T, B, N, D = 2, 2, 24, 4
_rng = np.random.default_rng(7)
TRAJECTORY = sphere_reference.unit_rows(_rng, T + 1, B, N, D).astype(np.float32)
LABELS = _rng.choice([VOID, 0, 1, 6], size=(B, N)).astype(np.int32)
MASK = _rng.uniform(size=(B, N)) < 0.8
SETTINGS = {"mask": MASK, "negative_weight": 3.0}


def expected(step_weights, margins, **settings):
    losses = np.zeros(B)
    for weight, margin, step in zip(step_weights, margins, TRAJECTORY, strict=True):
        for b in range(B):
            positive, negative = reference.margin_loss_terms(
                step[b], LABELS[b], margin=margin, mask=MASK[b], **settings
            )
            losses[b] += weight * (positive + 3.0 * negative)
    return losses


class TestTrajectory:
    def test_is_the_sum_of_the_losses_of_all_steps(self):
        found = trajectory_margin_loss(TRAJECTORY, LABELS, margin=0.4, **SETTINGS)
        sums = expected([1.0] * 3, [0.4] * 3)
        np.testing.assert_allclose(found, sums, rtol=2e-5)

    def test_weighs_the_steps_and_gives_each_its_margin(self):
        found = trajectory_margin_loss(
            TRAJECTORY,
            LABELS,
            margin=jnp.array([0.1, 0.3, 0.5]),
            step_weights=(0.0, 1.0, 2.5),
            normalize="pairs",
            **SETTINGS,
        )
        sums = expected([0.0, 1.0, 2.5], [0.1, 0.3, 0.5], normalize="pairs")
        np.testing.assert_allclose(found, sums, rtol=2e-5)

    def test_has_the_gradient_of_the_single_losses(self):
        def by_step(x):
            steps = [margin_loss(s, LABELS, margin=0.4, **SETTINGS) for s in x]
            return sum(v * step for v, step in zip((1, 0, 2), steps, strict=True)).sum()

        def at_once(x):
            settings = {"margin": 0.4, "step_weights": (1.0, 0.0, 2.0)}
            settings |= SETTINGS
            return trajectory_margin_loss(x, LABELS, **settings).sum()

        np.testing.assert_allclose(
            jax.grad(at_once)(TRAJECTORY), jax.grad(by_step)(TRAJECTORY), atol=1e-7
        )

    def test_works_out_the_instances_once(self):
        def sorts(function):
            return str(jax.make_jaxpr(function)(TRAJECTORY)).count(" sort[")

        whole = sorts(lambda x: trajectory_margin_loss(x, LABELS, margin=0.4))
        assert whole == sorts(lambda x: margin_loss(x[0], LABELS, margin=0.4)) == 1

    def test_takes_a_single_image(self):
        settings = {"margin": 0.4, "mask": MASK[0], "negative_weight": 3.0}
        found = trajectory_margin_loss(TRAJECTORY[:, 0], LABELS[0], **settings)
        assert found.shape == ()
        assert float(found) == pytest.approx(
            expected([1.0] * 3, [0.4] * 3)[0], rel=2e-5
        )

    @pytest.mark.parametrize("name", ["margin", "negative_weight", "step_weights"])
    def test_a_number_for_each_step_is_none_for_each_image(self, name):
        # As many images as steps, so that either would fit.
        shape = TRAJECTORY[:, :1].shape
        square = np.broadcast_to(TRAJECTORY[:, :1], (T + 1, T + 1, *shape[2:]))
        square = np.roll(square, 1, axis=-2) * np.array([1, -1, 1, 1], np.float32)
        labels = np.stack([LABELS[0], LABELS[1], LABELS[0]])
        each = np.array([0.1, 0.4, 0.9], np.float32)
        settings = {"margin": 0.3, "negative_weight": 2.0} | {name: each}
        found = trajectory_margin_loss(square, labels, **settings)

        def one_step(step, value):
            settings = {"margin": 0.3, "negative_weight": 2.0} | {name: value}
            weight = settings.pop("step_weights", 1.0)
            return weight * margin_loss(step, labels, **settings)

        steps = [one_step(*pair) for pair in zip(square, each, strict=True)]
        np.testing.assert_allclose(found, sum(steps), rtol=2e-5)

    def test_refuses_steps_that_do_not_fit(self):
        with pytest.raises(InputError, match=r"\[T\+1, \.\.\., N, D\].*single step"):
            trajectory_margin_loss(TRAJECTORY[0, 0], LABELS[0], margin=0.4)
        settings = {"margin": 0.4, "step_weights": (1.0, 1.0)}
        with pytest.raises(InputError, match=r"step_weights must have shape \[3\]"):
            trajectory_margin_loss(TRAJECTORY, LABELS, **settings)
        with pytest.raises(InputError, match=r"margin must have shape \[3\]"):
            trajectory_margin_loss(TRAJECTORY, LABELS, margin=jnp.zeros(2))
        each_image = {"margin": 0.4, "negative_weight": jnp.ones(B)}
        with pytest.raises(InputError, match=r"negative_weight must have shape \[3\]"):
            trajectory_margin_loss(TRAJECTORY, LABELS, **each_image)
        with pytest.raises(InputError, match="negative_weight must broadcast to"):
            margin_loss(
                TRAJECTORY[0], LABELS, margin=0.4, negative_weight=jnp.ones((3, 1))
            )
        with pytest.raises(InputError, match="labels must have shape"):
            trajectory_margin_loss(TRAJECTORY, LABELS[0], margin=0.4)
