"""Every command in the documentation is one that the programs understand.

Nothing is run but the reading of the flags: each program starts as a person starts it,
and is stopped when its parser is done.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import io
import pathlib
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

import sphemb.models
import sphemb.tasks
from benchmarks import notebooks
from sphemb import InputError
from sphemb.cli import (
    VERBS,
    ScoreBoundaries,
    ScoreClasses,
    ScoreInstances,
    _main,
    read_config,
    shipped_configs,
)
from sphemb.cli._flags import split_overrides
from tests.commands import PAGES, ROOT, Command, code_spans, read_page, split_lines

PLACEHOLDERS = ("VERB", "examples/NAME.py")  # of what a page says of all of them
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


class ParsedError(Exception):
    """The flags were read; carries them and the words that were not."""


@contextlib.contextmanager
def stopped_after_flags(*, whole: bool) -> Iterator[None]:
    """Lets programs read their flags and nothing more, see `ParsedError`."""
    read, read_verb = argparse.ArgumentParser.parse_known_args, _main.read_flags
    depth = 0

    def parse_known_args(self, args=None, namespace=None):
        nonlocal depth
        if not whole:
            for action in self._actions:
                action.required = False
        depth += 1
        try:
            found = read(self, args, namespace)
        finally:
            depth -= 1
        if depth:  # a verb's own parser
            return found
        raise ParsedError(*found)

    def read_flags(arguments):
        _, overrides = split_overrides(arguments)
        told = io.StringIO()
        try:
            with contextlib.redirect_stderr(told):
                verb = read_verb(arguments)
        except SystemExit as stop:
            line = told.getvalue()
            left_out = re.match("error: (Missing from|Expected one of)", line)
            if whole or not stop.code or not left_out or "Unrecognized" in line:
                print(line, file=sys.stderr)
                raise
            verb = None
        raise ParsedError(verb, overrides)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
        patch.setattr(_main, "read_flags", read_flags)
        yield


def start(words: tuple[str, ...]) -> None:
    """Starts a program of ours by its command."""
    arguments = list(words[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        if words[0] == "sphemb":
            from sphemb.cli import main

            main(arguments)
        elif arguments[0] == "-m":
            patch.setattr(sys, "argv", [arguments[1], *arguments[2:]])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            patch.setattr(sys, "argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")


def complaint(command: Command) -> str:
    """What is wrong with a command; empty where nothing is."""
    program, *arguments = command.words
    if program == "pip" or arguments[:2] == ["-m", "pip"]:
        return _complaint_of_pip(command)
    if program == "source":  # of an environment
        return ""
    if program not in ("sphemb", "python", "python3"):
        return "" if (ROOT / program).is_file() else f"there is no {program}"
    if program != "sphemb":
        if arguments[:2] == ["-m", "venv"]:
            return ""
        if arguments[:2] == ["-m", "pytest"]:
            paths = [a for a in arguments[2:] if "/" in a and not a.startswith("-")]
            return "; ".join(
                f"there is no {p}" for p in paths if not (ROOT / p).exists()
            )
        missing = _complaint_of_script(arguments)
        if missing is not None:
            return missing
    told = io.StringIO()
    try:
        with (
            stopped_after_flags(whole=command.whole),
            contextlib.redirect_stderr(told),
            contextlib.redirect_stdout(told),
        ):
            start(command.words)
    except ParsedError as parsed:
        return _complaint_of_overrides(*parsed.args)
    except SystemExit as stop:  # a mistake in the flags, or help that was asked for
        return "" if stop.code == 0 else told.getvalue().strip()
    return "it started without reading flags"


def _complaint_of_pip(command: Command) -> str:
    named = re.findall(r"(?:sphemb|\.)\[([\w,]+)\]", " ".join(command.words))
    unknown = [e for e in ",".join(named).split(",") if e and e not in EXTRAS]
    return f"there are no extras {', '.join(unknown)}" if unknown else ""


def _complaint_of_script(arguments: list[str]) -> str | None:
    """None where the script or module is there and has a parser to ask."""
    if arguments[0] == "-m":
        found = importlib.util.find_spec(arguments[1])
        path = pathlib.Path((found and found.origin) or "nowhere")
        if path.name == "__init__.py":
            path = path.with_name("__main__.py")
        rest = arguments[2:]
    else:
        path, rest = ROOT / arguments[0], arguments[1:]
    if not path.is_file():
        return f"there is no {arguments[0]} {arguments[1:2]}"
    source = path.read_text()
    if "argparse" in source or "sphemb.cli" in source:
        return None
    return f"{path.name} takes no arguments" if rest else ""


def _complaint_of_overrides(flags: Any, left: list[str]) -> str:
    if not hasattr(flags, "config") and (flags is not None or not left):
        return f"unknown arguments {left}" if left else ""
    try:
        read_config(str(getattr(flags, "config", None) or "folder"), left)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_is_understood(page):
    wrong = [
        f"{command}: {told}"
        for command in read_page(page)
        if not set(PLACEHOLDERS) & set(command.words) and (told := complaint(command))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", notebooks.PAGES)
def test_every_command_of_the_notebook_is_understood(name):
    cells = notebooks.read_cells((ROOT / "docs" / f"{name}.md").read_text(), name)
    shell = (
        cell.source.removeprefix("%%bash\n") for cell in cells if "%%bash" in cell[1]
    )
    commands = [Command(words, True) for text in shell for words in split_lines(text)]
    assert len(commands) > 1
    ours = [c for c in commands if c.words[0] in ("sphemb", "python")]
    wrong = [f"{command}: {told}" for command in ours if (told := complaint(command))]
    assert not wrong, "\n".join(wrong)


def test_commands_are_found_in_blocks_text_and_docstrings():
    found = {page: read_page(page) for page in PAGES}
    assert sum(map(len, found.values())) > 150
    readme = [str(command) for command in found["README.md"] if command.whole]
    assert "sphemb evaluate --workdir runs/digits --report" in readme
    assert "python train.py --config=configs/digits.py" in readme  # behind two &&
    assert {"docs/training.md", "configs/voc.py", "examples/toy_1d.py"} <= {
        page for page, commands in found.items() if any(c.whole for c in commands)
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sphemb predikt --workdir RUN", "options: predikt"),
        ("sphemb evaluate --workdir RUN --repot", "--repot"),
        ("sphemb evaluate", "Missing from sphemb evaluate: --workdir"),
        ("sphemb score boundaries --maps M --groundtruth G --nsm", "--nsm"),
        ("sphemb check-data DIR --stride=fine", "--stride: invalid literal"),
        ("sphemb train --config=digit", "must be a Python file or one of"),
        ("python train.py --config=configs/nosuch.py", "no such file"),
        ("python train.py --config=configs/digits.py:nosuch", "must be one of sklearn"),
        ("python train.py --config=configs/digits.py --config.seeds=1", "config.seeds"),
        ("python train.py --config=configs/digits.py --config.seed=x", "config.seed"),
        ("sphemb advise DIR --config.task.margins=.5", "config.task.margins"),
        ("python -m benchmarks.nosuch", "there is no -m"),
        ("python -m benchmarks.edges sobl IMAGES --out MAPS", "'sobl'"),
        ("python -m benchmarks --quickly", "--quickly"),
        ("python -m benchmarks.frozen_features --config=digits --mop=x", "'mop'"),
        ("python examples/nosuch.py", "there is no examples/nosuch.py"),
        ("python examples/compose_plain.py --steps 5", "takes no arguments"),
        ("python -m pytest tests/nosuch", "there is no tests/nosuch"),
        ("pip install -e '.[tests]'", "there are no extras tests"),
        ("sphmeb info", "there is no sphmeb"),
    ],
)
def test_a_command_that_does_not_exist_is_told(line, words):
    (command,) = split_lines(line)
    assert words in complaint(Command(command, whole=True))


def test_what_running_text_leaves_out_is_no_mistake_but_what_it_says_may_be():
    for line, whole, wrong in (
        ("sphemb score boundaries --thresholds 33", False, False),
        ("sphemb score boundaries --thresholds 33", True, True),
        ("sphemb score boundaries --threshold-s 33", False, True),
        ("sphemb evaluate", False, False),
    ):
        (words,) = split_lines(line)
        assert bool(complaint(Command(words, whole))) == wrong, line


def test_every_flag_that_is_named_is_one_of_some_program():
    programs = ("sphemb/cli/*.py", "benchmarks/*.py", "stress/*.py", "examples/*.py")
    sources = (path.read_text() for glob in programs for path in ROOT.glob(glob))
    known = {flag for source in sources for flag in re.findall(r'"(--[\w-]+)"', source)}
    for verb in (*VERBS.values(), ScoreBoundaries, ScoreClasses, ScoreInstances):
        for field in dataclasses.fields(verb):
            name = field.name.replace("_", "-")
            known |= {f"--no-{name}" if field.default is True else f"--{name}"}
    wrong = [
        f"{page}: {flag}"
        for page in PAGES
        for span in code_spans((ROOT / page).read_text())
        for flag in re.findall(r"^--[\w-]+(?=[ =]|$)", span)
        if flag not in known and flag != "--setting"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_configuration_and_setting_that_is_named_exists():
    known, loaded = _settings()
    wrong = []
    for page in PAGES:
        for span in code_spans((ROOT / page).read_text()):
            for name in re.findall(r"^(?:--)?(config\.[\w.]+)", span):
                if name.rstrip("._") not in known:
                    wrong.append(f"{page}: {name}")
            for name, variant in re.findall(r"^configs/(\w+)\.py(?::(\w+))?$", span):
                if (name, variant) not in loaded and name != "NAME":
                    wrong.append(f"{page}: configs/{name}.py:{variant}")
    assert not wrong, "\n".join(wrong)


def _settings() -> tuple[set[str], set[tuple[str, str]]]:
    """Every setting of a configuration or a class, and every (config, variant)."""
    known, loaded = {"config", "config.json"}, {("common", "")}
    for section, classes in {"task": sphemb.tasks, "model": sphemb.models}.items():
        for value in vars(classes).values():
            if dataclasses.is_dataclass(value):
                names = (field.name for field in dataclasses.fields(value))
                known |= {f"config.{section}.{name}" for name in names}
    for name in shipped_configs():
        module = importlib.import_module(f"sphemb.configs.{name}")
        for variant in ("", *getattr(module, "VARIANTS", ())):
            config = read_config(f"{name}:{variant}" if variant else name)
            loaded.add((name, variant))
            for section, entries in config.items():
                known |= {f"config.{section}"}
                if hasattr(entries, "keys"):
                    known |= {f"config.{section}.{key}" for key in dict(entries)}
    return known, loaded
