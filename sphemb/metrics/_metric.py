"""The base of all metrics, and helpers that several of them use."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self, dataclass_transform

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
from sphemb.instances import OverlapPairs, overlap_pairs, overlap_table

# The IoU levels .5, .55, ..., 1 are 10/20 ... 20/20: as integers they compare without
# rounding, which decides at an IoU of exactly .6 or .7.
LEVEL_UNIT = 20
LEVELS = np.arange(10, 21)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Metric:
    """Base class of scores that add up over batches, devices and hosts.

    A subclass becomes a frozen dataclass and a pytree. Its fields are sums, except
    those with ``metadata={"static": True}``, which are settings. It defines two
    methods: ``from_batch``, a classmethod that sums up a batch under ``jax.jit``, and
    ``compute``, which turns the sums into scores on the host. Limits such as
    ``max_true`` are static; ``valid`` bool [B] is False for images that fill up the
    batch. Across devices, ``jax.lax.psum`` adds metrics of equal settings.

    ``per_class`` says that ``compute`` takes the names of the classes, for one entry
    each.

    >>> class PixelAccuracy(Metric):
    ...     right: jax.Array
    ...     number: jax.Array
    ...
    ...     @classmethod
    ...     def from_batch(cls, predicted, truth):
    ...         valid = truth >= 0
    ...         return cls(jnp.sum(valid & (predicted == truth)), jnp.sum(valid))
    ...
    ...     def compute(self):
    ...         return {"pixel_accuracy": float(self.right) / float(self.number)}
    >>> truth = jnp.array([[0, 1, 1, -1]])
    >>> total = PixelAccuracy.empty(truth, truth)
    >>> for predicted in (truth, truth * 0):
    ...     total = total.merge(jax.jit(PixelAccuracy.from_batch)(predicted, truth))
    >>> round(total.compute()["pixel_accuracy"], 3)
    0.667
    """

    per_class: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))

    @classmethod
    def from_batch(cls, *args: Any, **kwargs: Any) -> Any:
        """Sums up a batch."""
        raise NotImplementedError(f"{cls.__name__} has no from_batch")

    @classmethod
    def empty(cls, *batch: Any, **settings: Any) -> Any:
        """The metric of no batch; only the shapes and dtypes of ``batch`` are read."""
        state = jax.eval_shape(functools.partial(cls.from_batch, **settings), *batch)
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)

    def merge(self, other: Self) -> Self:
        """Adds the sums of the same metric, in 64 bits outside of ``jax.jit``."""
        if type(other) is not type(self):
            raise InputTypeError(
                f"other must be {type(self).__name__}, got {type(other).__name__}"
            )
        fields: Any = dataclasses.fields(self)  # type: ignore  # of the subclass
        merged = {}
        for field in sorted(fields, key=lambda f: "static" not in f.metadata):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if not field.metadata.get("static"):
                merged[field.name] = self._merge_sums(field.name, mine, theirs)
            elif mine == theirs:
                merged[field.name] = mine
            else:
                raise InputError(
                    f"other must have the same {field.name}, {mine}, got {theirs}"
                )
        return type(self)(**merged)

    def _merge_sums(self, name: str, mine: Any, theirs: Any) -> Any:
        if isinstance(mine, jax.core.Tracer) or isinstance(theirs, jax.core.Tracer):
            return mine + theirs
        if np.shape(mine) != np.shape(theirs):
            raise InputError(
                f"other must have the same shape of {name}, {np.shape(mine)}, got "
                f"{np.shape(theirs)}"
            )
        # float32 sums of batches would drift over a data set of many of them.
        floating = jnp.issubdtype(jnp.result_type(mine), jnp.floating)
        dtype = np.float64 if floating else np.int64
        return np.asarray(mine, dtype) + np.asarray(theirs, dtype)

    def compute(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The scores by name, on the host."""
        raise NotImplementedError(f"{type(self).__name__} has no compute")

    def report(self, class_names: Sequence[str] = ()) -> dict[str, float]:
        """The scores of ``compute`` by the names that a run reports them under."""
        return self.compute(class_names) if self.per_class else self.compute()


def ratio(total: Any, number: Any) -> float:
    """``total / number`` on the host; NaN for 0 / 0."""
    return float(total) / float(number) if float(number) != 0.0 else float("nan")


def mean_of(values: np.ndarray) -> float:
    """The mean of the finite values; NaN if none is finite."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def check_names(names: Sequence[str], number: int) -> None:
    """Refuses another number of names than there are classes."""
    if names and len(names) != number:
        raise InputError(f"names must be those of {number} classes, got {len(names)}")


def refuse_lost(**lost: Any) -> None:
    """Refuses labels beyond a limit, by the number of their pixels."""
    for name, pixels in lost.items():
        if int(pixels):
            raise InputError(
                f"{name} must be as large as the labels need, got {int(pixels)} "
                f"pixels with larger ones: raise {name}"
            )


def flatten_images(name: str, labels: jax.Array) -> jax.Array:
    """Brings label maps [B, H, W] or [B, N] to [B, N]."""
    check_integer(name, labels)
    labels = jnp.asarray(labels)
    check_shape(name, labels, "... B N", hint="the first axis counts images")
    points = int(np.prod(labels.shape[1:]))
    return labels.reshape(labels.shape[0], points)


def valid_images(valid: jax.Array | None, num_images: int, beside: str) -> jax.Array:
    """The bool [B] of valid images; by default all."""
    if valid is None:
        return jnp.ones(num_images, bool)
    check_boolean("valid", valid)
    check_shape("valid", valid, "B", dims={"B": num_images}, beside=beside)
    return jnp.asarray(valid)


def flatten_pair(
    predicted: Any, truth: Any, valid: Any, name: str = "predicted"
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checks two label maps of one shape; returns both [B, N], and valid images [B]."""
    dims = check_shape(name, predicted, "... N")
    check_shape("truth", truth, "... N", dims=dims, beside=name)
    predicted = flatten_images(name, predicted)
    truth = flatten_images("truth", truth)
    return predicted, truth, valid_images(valid, len(truth), name)


def pooled_table(
    predicted: jax.Array,
    truth: jax.Array,
    valid: jax.Array | None,
    num_predicted: int,
    num_true: int,
    name: str = "predicted",
) -> jax.Array:
    """The sum of the images' overlap tables, [P + 1, Q + 1]."""
    predicted, truth, valid = flatten_pair(predicted, truth, valid, name)
    mask = jnp.broadcast_to(valid[:, None], truth.shape)
    sizes = {"num_predicted": num_predicted, "num_true": num_true}
    return overlap_table(predicted, truth, **sizes, mask=mask).sum(axis=0)


def images_pairs(
    predicted: Any, truth: Any, mask: Any, *, num_predicted: int, num_true: int
) -> Iterator[OverlapPairs]:
    """The overlaps of images [B, N] one by one, see `overlap_pairs`."""
    arrays = (np.asarray(x) for x in (predicted, truth, mask))
    for labels, known, inside in zip(*arrays, strict=True):
        yield overlap_pairs(
            labels, known, num_predicted=num_predicted, num_true=num_true, mask=inside
        )
