"""What all metrics share: they are sums, and merging adds them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_boolean,
    check_integer,
    check_shape,
)


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return a + b
    # float32 sums of batches would drift over a data set of many of them.
    wide = np.float64 if jnp.issubdtype(jnp.result_type(a), jnp.floating) else np.int64
    return np.asarray(a, wide) + np.asarray(b, wide)


class Metric:
    """Base of all metrics.

    Attributes:
        per_class: whether ``compute`` takes the names of classes.
    """

    per_class: ClassVar[bool] = False

    def report(self, *class_names: tuple[str, ...]) -> dict[str, float]:
        """The scores by the names that a run reports them under.

        These are the names of ``compute``, as long as its settings are those that
        the names stand for in publications.
        """
        return self.compute(*class_names)  # type: ignore  # of the subclasses


class Sums(Metric):
    """Base of the metric dataclasses, whose fields are sums.

    Fields that are marked static say what was summed up, and are equal in all of a
    kind.
    """

    def merge(self, other: Self) -> Self:
        """Adds another metric of the same kind, in any order.

        Args:
            other: the same class, from other batches.

        Returns:
            The metric over the batches of both.

        Raises:
            InputError: another class of metric, or one with other settings.
        """
        if type(other) is not type(self):
            raise InputTypeError(
                f"other must be {type(self).__name__}, got {type(other).__name__}"
            )
        # This class alone is no dataclass, but all that inherit from it are.
        merged = {}
        for field in dataclasses.fields(self):  # type: ignore
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if not field.metadata.get("static"):
                merged[field.name] = _add(mine, theirs)
            elif mine == theirs:
                merged[field.name] = mine
            else:
                raise InputError(
                    f"other must have the same {field.name}, {mine}, got {theirs}"
                )
        return type(self)(**merged)


def ratio(total: Any, number: Any) -> float:
    """``total / number`` on the host; NaN where there is nothing to average."""
    return float(total) / float(number) if float(number) != 0.0 else float("nan")


def flatten_images(name: str, labels: jax.Array) -> jax.Array:
    """Brings label maps [B, H, W] or [B, N] to [B, N]."""
    check_integer(name, labels)
    labels = jnp.asarray(labels)
    check_shape(name, labels, "... B N", hint="the first axis counts images")
    points = int(np.prod(labels.shape[1:]))
    return labels.reshape(labels.shape[0], points)


def valid_images(valid: jax.Array | None, num_images: int, beside: str) -> jax.Array:
    """The bool [B] of images that count; all of them where nothing is said."""
    if valid is None:
        return jnp.ones(num_images, bool)
    check_boolean("valid", valid)
    check_shape("valid", valid, "B", dims={"B": num_images}, beside=beside)
    return jnp.asarray(valid)
