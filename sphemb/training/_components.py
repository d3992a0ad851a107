"""From a section of a configuration to the object that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sphemb._checks import InputError


def component(room: Any, section: Mapping[str, Any], where: str) -> Any:
    """An object of the class that a section names, with the rest as settings."""
    settings = entries(section)
    classes = {n: getattr(room, n) for n in room.__all__}
    classes = {n: found for n, found in classes.items() if inspect.isclass(found)}
    return call(named(classes, settings.pop("name"), where), settings, where)


def named(known: Mapping[str, Any], name: str, where: str) -> Any:
    """What is known by a name; ``where`` is the section, for complaints."""
    if name not in known:
        raise InputError(
            f"{where}.name must be one of {', '.join(known)}, got {name!r}"
        )
    return known[name]


def call(factory: Callable[..., Any], settings: dict[str, Any], where: str) -> Any:
    """The factory's product; settings that it does not know are complained about."""
    known = inspect.signature(factory).parameters
    for key in settings:
        if key not in known:
            raise InputError(
                f"unknown config key {where}.{key}: it must be one of "
                f"{', '.join(k for k in known if k not in ('parent', 'kwargs'))}"
            )
    return factory(**settings)


def entries(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section's entries; JSON knows no tuples, settings must be hashable."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
