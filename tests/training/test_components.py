"""What a configuration says becomes an object, or one line that names the entry."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import sphemb.data
import sphemb.models
import sphemb.tasks
from sphemb import InputError
from sphemb.cli import read_config, shipped_configs
from sphemb.training import Experiment
from sphemb.training._components import call, check_type, entries, named

_WRONG = (None, True, -1.5, 3, "text", (1,), (0.5, "x"), {"a": 1}, object())


def _factories(config):
    """The section, its factory and its settings."""
    rooms = {
        "data": sphemb.data.DATASETS,
        "augmentation": sphemb.data.AUGMENTATIONS,
        "model": vars(sphemb.models),
        "task": vars(sphemb.tasks),
    }
    for section, room in rooms.items():
        settings = entries(config[section])
        name = settings.pop("name")
        if name is not None:
            yield f"config.{section}", room[name], settings


@pytest.mark.parametrize("name", shipped_configs())
def test_every_entry_of_a_wrong_type_is_named_in_one_line(name):
    config = read_config(name)
    lines = []
    for where, factory, settings in _factories(config):
        # Data sets would look for their files.
        made = factory if where in ("config.task", "config.augmentation") else None
        for key in settings:
            for value in _WRONG:
                changed = {**settings, key: value}
                try:
                    if made is not None:
                        call(made, changed, where)
                    else:
                        call(_annotated_as(factory), changed, where)
                except InputError as error:
                    lines.append((f"{where}.{key}", str(error)))
    assert len(lines) > 30
    for entry, line in lines:
        assert "\n" not in line
        assert entry in line or f"{entry.rpartition('.')[2]} must" in line


def _annotated_as(factory):
    """Something that takes what a factory takes, and makes nothing."""

    def make(**settings):
        return settings

    make.__wrapped__ = factory
    return make


@pytest.mark.parametrize("name", shipped_configs())
def test_what_the_shipped_configs_say_is_of_the_right_type(name):
    for where, factory, settings in _factories(read_config(name)):
        assert call(_annotated_as(factory), settings, where) == settings


@pytest.mark.parametrize(
    ("hint", "right", "wrong", "words"),
    [
        (int, 3, 3.0, "a whole number"),
        (int, 3, True, "a whole number"),
        (float, 3, "3", "a number"),
        (str, "a", 3, "text"),
        (bool, False, 0, "True or False"),
        (int | None, None, "x", "a whole number or None"),
        (tuple[int, int], (64, 32), 64, r"\(a whole number, a whole number\)"),
        (tuple[int, int] | None, None, (64,), r"\(a whole number, a .*\) or None"),
        (tuple[float, ...], (), (1.0, None), "a tuple, each of it a number"),
        (Sequence[int], (8, 16), "8", "a tuple, each of it a whole number"),
    ],
)
def test_annotations_are_read(hint, right, wrong, words):
    check_type("config.x.y", right, hint)
    with pytest.raises(InputError, match=f"config.x.y must be .*{words}"):
        check_type("config.x.y", wrong, hint)


def test_a_setting_that_is_missing_and_a_name_that_is_none_are_named():
    with pytest.raises(InputError, match=r"config\.x lacks a setting: .*'needed'"):
        call(lambda *, needed: needed, {}, "config.x")
    for name in (None, 3, ["a"], "b"):
        with pytest.raises(
            InputError, match=r"config\.x\.name must be one of a or .*, got"
        ):
            named({"a": 1}, name, "config.x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": None}, r"config\.task must be a section of settings, got None"),
        ({"loader.skip_bad": "no"}, r"config\.loader\.skip_bad must be True or False"),
        ({"train.weights": 5}, r"config\.train\.weights must be text or None, got 5"),
        ({"train.init_from": 5}, r"config\.train\.init_from must be text or None"),
    ],
)
def test_entries_of_the_run_itself_are_named(change, words):
    config = read_config("folder")
    with config.ignore_type():
        for entry, value in change.items():
            section, _, name = entry.rpartition(".")
            (config[section] if section else config)[name] = value
    with pytest.raises(InputError, match=words):
        Experiment(config)
