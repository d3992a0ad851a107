"""The entries of a configuration, and the objects that its sections name."""

from __future__ import annotations

import importlib
import inspect
import numbers
import operator
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from sphemb._checks import InputError, InputTypeError, check_count, check_number


def component(
    package: Any, section: Mapping[str, Any], where: str, *, has: Sequence[str]
) -> Any:
    """An object of the class that a section names, with the rest as settings.

    The class is one of a package, or of a mapping of names.
    """
    settings = entries(section)
    if not isinstance(package, Mapping):
        public = {name: getattr(package, name) for name in package.__all__}
        package = {name: kind for name, kind in public.items() if _is_class(kind, has)}
    return call(named(package, settings.pop("name"), where, has=has), settings, where)


def named(
    known: Mapping[str, Any], name: Any, where: str, *, has: Sequence[str] = ()
) -> Any:
    """The object of a name: one of the known ones, or ``"package.module:Name"``.

    The run of another person may name anything: an object of another module must be a
    class that ``has`` some attributes (one of a group ``"a|b"``) before it is called.
    """
    if isinstance(name, str) and name in known:
        return known[name]
    wanted = f'{where}.name must be one of {", ".join(known)} or "package.module:Name"'
    if not isinstance(name, str) or ":" not in name:
        raise InputError(f"{wanted}, got {name!r}")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{wanted}, got {name!r} ({error})") from error
    if not has or not _is_class(found, has):
        needed = ", ".join(has).replace("|", " or ")
        raise InputError(
            f"{where}.name {name} must be a class with {needed}, got {found!r}"
        )
    return found


def _is_class(found: Any, has: Sequence[str]) -> bool:
    """Whether an object is a class with some attributes."""
    return inspect.isclass(found) and all(
        any(hasattr(found, one) for one in name.split("|")) for name in has
    )


def call(factory: Callable[..., Any], settings: dict[str, Any], where: str) -> Any:
    """The factory's product; `InputError` names a setting that does not fit."""
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
    """Refuses a value that its annotation, if it is known here, does not allow."""
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


_NAMED = ("data", "augmentation", "model", "task")
_KEYS = {
    "loader": "batch_size images_per_device num_threads skip_bad",
    "optimizer": "name learning_rate power warmup_steps momentum weight_decay "
    "clip_norm accumulate backbone_rate",
    "train": "num_epochs num_steps log_every eval_every checkpoint_every weights "
    "init_from",
    "evaluation": "batch_size num_validation num_test size_multiple",
}
_AT_LEAST = {
    0: "loader.images_per_device loader.num_threads train.num_steps train.eval_every",
    1: "loader.batch_size train.log_every train.checkpoint_every optimizer.accumulate "
    "evaluation.batch_size evaluation.num_validation evaluation.num_test "
    "evaluation.size_multiple",
}
_TYPES = {"loader.skip_bad": bool}
_TYPES |= {"train.weights": str | None, "train.init_from": str | None}


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses a configuration with missing, unknown or impossible entries."""
    _check_keys("config", set(config), {"seed", *_NAMED, *_KEYS})
    check_count("config.seed", config.seed)
    for section in (*_NAMED, *_KEYS):
        if not isinstance(config[section], Mapping | ml_collections.ConfigDict):
            got = repr(config[section])
            raise InputTypeError(
                f"config.{section} must be a section of settings, got {got}"
            )
        if section in _NAMED and "name" not in config[section]:
            raise InputError(f"config.{section}.name is missing")
    for section, keys in _KEYS.items():
        _check_keys(f"config.{section}", set(config[section]), set(keys.split()))
    if config.loader.batch_size is None:
        raise InputError(
            "config.loader.batch_size must be the images of a step that the settings "
            "are stated for, got None: for one image on each device set "
            "config.loader.images_per_device=1"
        )
    for least, names in _AT_LEAST.items():
        for name in names.split():
            value = operator.attrgetter(name)(config)
            check_count(f"config.{name}", value, at_least=least)
    for name, hint in _TYPES.items():
        check_type(f"config.{name}", operator.attrgetter(name)(config), hint)
    epochs, steps = config.train.num_epochs, config.train.num_steps
    check_number("config.train.num_epochs", epochs, at_least=0)
    if (epochs > 0) == (steps > 0):
        raise InputError(
            "config.train must have exactly one of num_epochs and num_steps above 0, "
            f"got num_epochs {epochs:g} and num_steps {steps}"
        )


def _check_keys(where: str, found: set[str], wanted: set[str]) -> None:
    for key in sorted(found - wanted):
        raise InputError(
            f"unknown config key {where}.{key}: it must be one of "
            f"{', '.join(sorted(wanted))}"
        )
    for key in sorted(wanted - found):
        raise InputError(f"{where}.{key} is missing")
