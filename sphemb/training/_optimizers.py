"""Optimisers and learning-rate schedules, by name, from optax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optax

from sphemb._checks import check_choice, check_count, check_number


def poly_schedule(
    learning_rate: float, num_steps: int, *, power: float = 0.9, warmup_steps: int = 0
) -> optax.Schedule:
    r"""The paper's "poly" policy, :math:`\lambda (1 - t/T)^p`, after a linear warm-up.

    Args:
        learning_rate: :math:`\lambda`.
        num_steps: T, where the rate reaches zero.
        power: p.
        warmup_steps: steps in which the rate rises from near zero.

    Returns:
        step -> learning rate.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.1.

    >>> round(float(poly_schedule(1.0, 100, power=1.0)(25)), 6)
    0.75
    """
    check_number("learning_rate", learning_rate, above=0)
    check_count("num_steps", num_steps, at_least=1)
    check_number("power", power, at_least=0)
    check_count("warmup_steps", warmup_steps)
    poly = optax.polynomial_schedule(learning_rate, 0.0, power, num_steps)
    if not warmup_steps:
        return poly
    ramp = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
    return lambda step: poly(step) * ramp(step)


def make_optimizer(
    schedule: optax.Schedule,
    *,
    name: str,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    accumulate: int = 1,
    backbone_rate: float = 1.0,
) -> optax.GradientTransformation:
    """An optimiser by name.

    Args:
        schedule: step -> learning rate.
        name: ``"sgd"`` with momentum, the paper's, or ``"adamw"``.
        momentum: of SGD.
        weight_decay: of the parameters; for SGD added to the gradient, for AdamW
            decoupled from it.
        clip_norm: largest global norm of a gradient, None for no limit.
        accumulate: steps whose mean gradient makes one update; the schedule counts
            updates then.
        backbone_rate: what the learning rate is multiplied by for the sub-tree
            ``backbone`` of the parameters, so that what is pretrained is changed less
            than what is new; 0 leaves it as it is.

    Returns:
        The optax transformation.
    """
    check_choice("config.optimizer.name", name, ("sgd", "adamw"))
    check_number("config.optimizer.weight_decay", weight_decay, at_least=0)
    check_number("config.optimizer.momentum", momentum, at_least=0, below=1)
    if clip_norm is None:
        clip = optax.identity()
    else:
        check_number("config.optimizer.clip_norm", clip_norm, above=0)
        clip = optax.clip_by_global_norm(clip_norm)
    check_count("config.optimizer.accumulate", accumulate, at_least=1)
    if name == "sgd":
        decay = optax.add_decayed_weights(weight_decay)
        update = optax.chain(clip, decay, optax.sgd(schedule, momentum=momentum))
    else:
        update = optax.chain(clip, optax.adamw(schedule, weight_decay=weight_decay))
    check_number("config.optimizer.backbone_rate", backbone_rate, at_least=0)
    if backbone_rate != 1:
        slow = optax.masked(optax.scale(backbone_rate), _is_backbone)
        update = optax.chain(update, slow)
    if accumulate == 1:
        return update
    return optax.MultiSteps(update, accumulate).gradient_transformation()


def _is_backbone(params: Mapping[str, Any]) -> dict[str, bool]:
    return {name: name == "backbone" for name in params}
