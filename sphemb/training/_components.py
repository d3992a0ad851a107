"""From a section of a configuration to the object that it names."""

from __future__ import annotations

import importlib
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sphemb._checks import InputError, InputTypeError


def component(known: Mapping[str, Any], section: Mapping[str, Any], where: str) -> Any:
    """An object of the class that a section names, with the rest as settings."""
    settings = entries(section)
    return call(named(known, settings.pop("name"), where), settings, where)


def named(known: Mapping[str, Any], name: Any, where: str) -> Any:
    """The object of a name: one of the known ones, or ``"package.module:Name"``.

    Args:
        known: objects by their names.
        name: of a section of the configuration.
        where: the section.

    Raises:
        InputError: names the setting and the known names.
    """
    if isinstance(name, str) and name in known:
        return known[name]
    wanted = f'{where}.name must be one of {", ".join(known)} or "package.module:Name"'
    if not isinstance(name, str) or ":" not in name:
        raise InputError(f"{wanted}, got {name!r}")
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{wanted}, got {name!r} ({error})") from error


def call(factory: Callable[..., Any], settings: dict[str, Any], where: str) -> Any:
    """The factory's product.

    Raises:
        InputError: a setting that the factory does not know, one that it needs and
            lacks, or a value of another type than its annotation has.
    """
    known = inspect.signature(factory).parameters
    for key in settings:
        if key not in known:
            raise InputError(
                f"unknown config key {where}.{key}: it must be one of "
                f"{', '.join(k for k in known if k not in ('parent', 'kwargs'))}"
            )
    hints = _hints(factory)
    for key, value in settings.items():
        if key in hints:
            check_type(f"{where}.{key}", value, hints[key])
    try:
        inspect.signature(factory).bind(**settings)
    except TypeError as error:
        raise InputError(f"{where} lacks a setting: {error}") from error
    return factory(**settings)


def entries(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section's entries; JSON knows no tuples, settings must be hashable."""
    return {k: _hashable(v) for k, v in section.items()}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def check_type(name: str, value: Any, hint: Any) -> None:
    """Refuses a value that its annotation does not allow.

    Args:
        name: of the entry.
        value: of it.
        hint: such as ``tuple[int, int] | None``; what is not known here allows all.

    Raises:
        InputTypeError: names the entry.

    >>> check_type("config.augmentation.size", 64, tuple[int, int])
    Traceback (most recent call last):
    ...
    sphemb._checks.InputTypeError: config.augmentation.size must be (a whole number, a \
whole number), got 64
    """
    if not _allows(hint, value):
        raise InputTypeError(f"{name} must be {_in_words(hint)}, got {value!r}")


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a factory's parameters; none where they are not known."""
    made = inspect.unwrap(factory)
    try:
        return typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (NameError, TypeError, AttributeError):
        return {}


_NUMBERS = {int: numbers.Integral, float: numbers.Real}


def _allows(hint: Any, value: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_allows(part, value) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is ...:
            return all(_allows(parts[0], one) for one in value)
        return len(value) == len(parts) and all(map(_allows, parts, value))
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        fits = isinstance(value, Sequence) and not isinstance(value, str)
        return fits and all(_allows(part, one) for part in parts for one in value)
    if hint in _NUMBERS:
        return isinstance(value, _NUMBERS[hint]) and not isinstance(value, bool)
    kind = origin or hint
    return isinstance(value, kind) if inspect.isclass(kind) else True


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    os.PathLike: "a path",
    type(None): "None",
}


def _in_words(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_in_words, parts)))
    if origin is tuple and ... not in parts:
        return f"({', '.join(map(_in_words, parts))})"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"a tuple, each of it {_in_words(parts[0])}"
    kind = origin or hint
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
