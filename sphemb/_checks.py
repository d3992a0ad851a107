"""Checks of arguments, with one wording for all errors.

Only static properties are checked (rank, shape, dtype, Python numbers), so that every
check also works on traced values. ``hint`` names the likely cause.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._errors import InputError, InputTypeError

_HOLDS = operator.gt, operator.ge, operator.lt, operator.le
VOID = -1
"""The label of pixels that are excluded from every loss and score."""


def _hint(text: str) -> str:
    return f": {text}" if text else ""


def check_array(name: str, value: Any) -> None:
    """Refuses values without a dtype, such as lists; Python numbers pass."""
    if not hasattr(value, "dtype") and not isinstance(value, numbers.Number):
        raise InputTypeError(
            f"{name} must be a JAX or NumPy array, got a {type(value).__name__}: "
            "jax.numpy.asarray makes one"
        )


def _shape_of(name: str, array: Any) -> tuple[int, ...]:
    try:
        return tuple(np.shape(array))
    except (TypeError, ValueError):  # a list of unequal rows, or of traced values
        check_array(name, array)
        raise


def check_shape(
    name: str,
    array: Any,
    spec: str,
    *,
    dims: Mapping[str, Any] | None = None,
    beside: str = "",
    hint: str = "",
) -> dict[str, Any]:
    """Checks an array's shape against letters, and returns the sizes of the letters.

    The ``spec`` has axes separated by blanks, such as ``"... N D"``; a leading ``...``
    stands for any number of batch axes, a number for itself. ``dims`` has the sizes of
    known letters, ``"..."`` among them; ``beside`` is the argument they come from.
    """
    shape = _shape_of(name, array)
    letters = spec.split()
    tail = [letter for letter in letters if letter != "..."]
    split, leading = len(shape) - len(tail), letters[0] == "..."
    known: dict[str, Any] = dict(dims or {})
    found: dict[str, Any] = {"...": shape[:split]} if leading else {}
    fits = split >= 0 if leading else split == 0
    if fits:
        fits = known.get("...", shape[:split]) == shape[:split] or not leading
        for letter, size in zip(tail, shape[split:], strict=True):
            wanted = known.get(letter, size)
            digit = letter.isdigit()
            wanted = int(letter) if digit else found.setdefault(letter, wanted)
            fits = fits and wanted == size
    if not fits:
        wanted = f"[{', '.join(letters)}]"
        if known and all(letter in known or letter.isdigit() for letter in letters):
            sizes = (int(x) if x.isdigit() else known[x] for x in tail)
            wanted += f" = {(*known.get('...', ()), *sizes)}"
        if beside:
            wanted += f" to go with {beside}"
        raise InputError(f"{name} must have shape {wanted}, got {shape}{_hint(hint)}")
    return found


def _check_dtype(name: str, array: Any, kind: Any, wanted: str, hint: str) -> None:
    check_array(name, array)
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, kind):
        raise InputTypeError(f"{name} must be {wanted}, got {dtype}{_hint(hint)}")


def check_floating(name: str, array: Any, *, hint: str = "") -> None:
    """Refuses dtypes that are not real floating point."""
    _check_dtype(name, array, jnp.floating, "floating point", hint)


def check_boolean(name: str, array: Any, *, hint: str = "") -> None:
    """Refuses dtypes other than bool."""
    _check_dtype(name, array, jnp.bool_, "bool (True = valid)", hint)


def check_integer(name: str, array: Any, *, hint: str = "") -> None:
    """Refuses dtypes that are not integer, and values that JAX would wrap to int32."""
    _check_dtype(name, array, jnp.integer, "integers", hint)
    known = not isinstance(array, jax.core.Tracer)
    known = known and getattr(array, "is_fully_addressable", True)
    bounds = jnp.iinfo(jax.dtypes.canonicalize_dtype(np.int64))
    own = getattr(array, "dtype", np.dtype(np.int64))
    if known and np.size(array) and jnp.iinfo(own).max > bounds.max:
        values = np.asarray(array)
        low, high = int(values.min()), int(values.max())
        if low < bounds.min or high > bounds.max:
            raise InputError(
                f"{name} must lie in {bounds.min} .. {bounds.max}, got values from "
                f"{low} to {high}, which JAX would wrap: "
                "numpy.unique(..., return_inverse=True) numbers them anew"
            )


def check_mask(name: str, mask: Any, spec: str, *, dims: Any, beside: str) -> None:
    """Checks an optional validity mask; None passes."""
    if mask is not None:
        check_shape(name, mask, spec, dims=dims, beside=beside)
        check_boolean(name, mask)


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    hint: str = "",
) -> None:
    """Checks the range of a Python number; arrays, traced or not, pass unread."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.number):
            return
        raise InputTypeError(
            f"{name} must be a number, got {value!r} of type {type(value).__name__}"
        )
    lows = {"<": above, "<=": at_least}
    highs = {"<": below, "<=": at_most}
    low = "".join(f"{v} {sign} " for sign, v in lows.items() if v is not None)
    high = "".join(f" {sign} {v}" for sign, v in highs.items() if v is not None)
    fits = not math.isnan(value) and all(
        bound is None or holds(value, bound)
        for holds, bound in zip(_HOLDS, (above, at_least, below, at_most), strict=True)
    )
    if not fits:
        raise InputError(
            f"{name} must satisfy {low}{name}{high}, got {value!r}{_hint(hint)}"
        )


def check_count(name: str, value: Any, *, at_least: int = 0, hint: str = "") -> None:
    """Checks a static Python integer, such as a number of steps or a block size."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InputTypeError(
            f"{name} must be a Python int (it is static), got {value!r} of type "
            f"{type(value).__name__}"
        )
    if value < at_least:
        raise InputError(f"{name} must be >= {at_least}, got {value}{_hint(hint)}")


def check_block_size(value: Any) -> None:
    """Checks the side of the blocks of a computation; None passes."""
    if value is not None:
        check_count("block_size", value, at_least=1)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Checks a named option."""
    if value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        raise InputError(f"{name} must be one of {listed}, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Checks a static switch."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputTypeError(f"{name} must be True or False, got {value!r}")


def check_scalar(name: str, value: Any, **bounds: Any) -> None:
    """Checks a setting that may be traced: a number's range, an array's shape."""
    check_number(name, value, **bounds)
    shape = _shape_of(name, value)
    if shape != ():
        raise InputError(
            f"{name} must be one number, got shape {shape}: use jax.vmap for several"
        )


def check_broadcasts(name: str, value: Any, batch: tuple[int, ...]) -> None:
    """Checks that a setting broadcasts to the batch shape of the embeddings."""
    shape = _shape_of(name, value)
    sizes = zip(reversed(shape), reversed(batch), strict=False)
    if len(shape) > len(batch) or any(n not in (1, size) for n, size in sizes):
        raise InputError(
            f"{name} must broadcast to the batch shape {batch} of embeddings, got "
            f"{shape}"
        )


def check_callable(name: str, value: Any) -> None:
    """Refuses values that cannot be called; None passes."""
    if value is not None and not callable(value):
        raise InputTypeError(f"{name} must be a function, got {value!r}")


def check_key(name: str, value: Any) -> jax.Array:
    """Returns a random key, typed or legacy, as the typed key of the same numbers."""
    dtype, key = getattr(value, "dtype", None), value
    if dtype == jnp.uint32:
        with contextlib.suppress(TypeError, ValueError):  # words of another number
            key = jax.random.wrap_key_data(jnp.asarray(value))
    if dtype is None or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        came = type(value).__name__ if dtype is None else f"{dtype} {np.shape(value)}"
        raise InputTypeError(
            f"{name} must be a random key, got {came}: jax.random.key(seed) makes one"
        )
    if key.shape != ():
        raise InputError(
            f"{name} must be one random key, got {key.shape}: use jax.vmap for several"
        )
    return key


def check_axis_name(name: str, value: Any) -> None:
    """Checks the name of a mapped axis, or a tuple of names; None passes."""
    if value is None:
        return
    names = value if isinstance(value, tuple) else (value,)
    if not names or not all(isinstance(axis, str) for axis in names):
        raise InputTypeError(
            f"{name} must be the name of a mesh axis or a tuple of names, got {value!r}"
        )
    for axis in names:
        try:
            jax.lax.axis_size(axis)
        except NameError:
            raise InputError(
                f"{name} {axis!r} is not bound: call inside jax.shard_map or jax.pmap "
                "over that axis"
            ) from None
