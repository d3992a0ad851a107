"""Flags: their types, how they are read, and the one line that an error becomes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TextIO

import jax
import ml_collections
import tyro
from absl import flags
from ml_collections import config_flags

import sphemb.configs
from sphemb._checks import InputError
from sphemb.cli._names import one_line
from sphemb.training import LostProcessError, NonFiniteLossError, PreemptedError

_SHARED = "common"  # the basis of the other configurations, not an experiment
_MARKERS = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.PositionalMetavarFromFieldName,
)
_UNSAID = ("For full helptext", "Argument helptext", "Got errors", "Arguments are")
_OVERRIDE = re.compile(r"--(no)?config\.")
_WIDE = "100000"  # columns: no line of an error is wrapped
_TERMINATED = 143  # exit status of a shell for a process that SIGTERM ended
_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later
_CLOSED_PIPE = 141  # exit status of a shell for a process that SIGPIPE ended
_PATIENCE = 5.0  # seconds that process 0 waits for the others to report

# Flags without a default show none in the help, in place of "None".
optional = functools.partial(tyro.conf.arg, help_behavior_hint="")
OptionalPath = Annotated[pathlib.Path | None, optional(metavar="PATH")]
OptionalInt = Annotated[int | None, optional(metavar="INT")]
OptionalText = Annotated[str | None, optional(metavar="TEXT")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderFlags:
    """How a folder of images and masks is read, see `sphemb.data.open_folder`.

    Attributes:
        masks: what a value is: instances, components, single or classes.
        void: the value that is ignored.
        validation_fraction: share of the images that validates.
        test_fraction: share of the images that tests.
        seed: of the split.
        page: of images with several pages, from 0 on, or max.
        intensity: full, range, percentile or LOW..HIGH/WHITE.
    """

    masks: str = "instances"
    void: OptionalInt = None
    validation_fraction: float = 0.15
    test_fraction: float = 0.15
    seed: int = 0
    page: str = "0"
    intensity: str = "full"

    @property
    def folder(self) -> dict[str, Any]:
        """The settings of `sphemb.data.open_folder`."""
        names = (field.name for field in dataclasses.fields(FolderFlags))
        return {name: getattr(self, name) for name in names}


def parse_flags(kind: Any, prog: str, arguments: Sequence[str]) -> Any:
    """Reads flags of a command ``prog`` by tyro; an error is one line, and status 2.

    ``kind`` is a dataclass, or a union of annotated ones, one for each verb.
    """
    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(arguments):
        os.environ["COLUMNS"] = _WIDE
    try:
        with contextlib.redirect_stderr(text):
            return tyro.cli(kind, prog=prog, args=arguments, config=_MARKERS)
    except SystemExit as stop:
        if not stop.code:  # help was asked for
            raise
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before
    print(f"error: {one_line(_plain(text.getvalue()))}: see {prog} -h", file=sys.stderr)
    raise SystemExit(2)


def _plain(box: str) -> str:
    """The text in a box that tyro draws, without frame, title and notes on help."""
    rows = [row.strip("│╰╯─ ") for row in box.splitlines()[1:]]
    rows = ["" if set(row) <= {"-"} else row for row in rows]
    sections = (" ".join(part.split()) for part in "\n".join(rows).split("\n\n"))
    kept = (s.rstrip(".") for s in sections if s and not s.startswith(_UNSAID))
    return "; ".join(kept)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits words into flags of a verb and changes of a configuration.

    >>> split_overrides(["DIR", "--config.seed", "3", "--images=2"])
    (['DIR', '--images=2'], ['--config.seed', '3'])
    """
    own, overrides, value_follows = [], [], False
    for word in arguments:
        override = bool(_OVERRIDE.match(word))
        value = value_follows and not word.startswith("--")
        (overrides if override or value else own).append(word)
        value_follows = override and "=" not in word
    return own, overrides


def shipped_configs() -> dict[str, pathlib.Path]:
    """The experiments of the package: name -> file."""
    (folder,) = sphemb.configs.__path__
    files = {path.stem: path for path in sorted(pathlib.Path(folder).glob("[!_]*.py"))}
    del files[_SHARED]
    return files


def read_config(
    config: str, overrides: Sequence[str] = ()
) -> ml_collections.ConfigDict:
    """Reads a configuration file and changes some of its entries; none can be added.

    Args:
        config: a configuration of the package by its name, such as ``"digits"``, or a
            Python file; then a colon and the variant, if any.
        overrides: flags such as ``--config.train.num_steps=4``.

    Raises:
        InputError: a missing file, an unknown variant, flag or key, a value of the
            wrong type.
    >>> read_config("digits:sphere", ["--config.seed=7"]).seed
    7
    """
    name, colon, variant = config.partition(":")
    argv = ["sphemb", f"--config={_find(name)}{colon}{variant}", *overrides]
    values = flags.FlagValues()  # absl's global flags belong to the calling program
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    try:
        left = values(argv)
        holder.value.keys()  # the first use raises what loading the file raised
    except (AttributeError, KeyError) as error:
        raise InputError(_about_key(str(error), overrides)) from error
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"--config cannot be loaded: {reason}") from error
    except (IndexError, TypeError) as error:  # such as --config.augmentation.size[0]=64
        raise InputError(f"{' '.join(overrides)} cannot be applied: {error}") from error
    except flags.Error as error:
        # What a configuration file raises arrives as the text of its traceback.
        reason = str(error).rpartition(f"{InputError.__name__}: ")[2]
        raise InputError(reason) from error
    if len(left) > 1:
        raise InputError(f"unknown argument {left[1]!r}")
    return holder.value


def _about_key(text: str, overrides: Sequence[str]) -> str:
    """Words the error of ml_collections about an unknown key."""
    found = re.search(r"to lookup: ([\w.]+)", text) or re.search(r"'(\w+)\\?'", text)
    key = found[1] if found else text
    names = [override.split("=")[0].lstrip("-") for override in overrides]
    where = next((name for name in names if f".{key}." in f"{name}."), key)
    close = re.search(r'mean \\?"(\w+)', text)
    hint = f"did you mean {close[1]}? " if close else ""
    return f"unknown config key {where}: {hint}see configs/"


def _find(name: str) -> pathlib.Path:
    shipped, path = shipped_configs(), pathlib.Path(name)
    known = path.stem in shipped
    if path.name == name and path.suffix != ".py":
        if name not in shipped:
            listed = ", ".join(shipped)
            raise InputError(
                f"--config must be a Python file or one of {listed}, got {name!r}"
            )
        return shipped[name]
    if not path.is_file():
        if known and path.parent == pathlib.Path("configs"):
            return shipped[path.stem]  # an installed package has no link "configs"
        hint = f"; --config={path.stem} comes along" * known
        raise InputError(f"--config cannot be loaded: no such file {name}{hint}")
    return path


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """Exits with 141 and no traceback where nothing reads the output, as ``| head``."""
    streams = (sys.stdout, sys.stderr)
    try:
        try:
            yield
        finally:  # what is left to be written
            for stream in streams:
                stream.flush()
    except BrokenPipeError:
        closed = [stream for stream in streams if _lost_its_reader(stream)]
        if not closed:  # another pipe broke
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in closed:  # or Python's last flush raises again
            os.dup2(nowhere, stream.fileno())
        sys.exit(_CLOSED_PIPE)


def _lost_its_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, ValueError, OSError):  # other systems; not a file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def one_line_errors(*, interrupted: str = "stopped") -> Iterator[None]:
    """Turns a user's error into one line on stderr and exit status 2.

    The status is 130 after Ctrl-C, with the line ``interrupted``; 143 after SIGTERM and
    a checkpoint; 75 if other processes of a training ended. A bug keeps its traceback.
    """
    status = 0
    with pipe_may_close():
        try:
            yield
        except (InputError, NonFiniteLossError) as error:
            print("error:", one_line(" ".join(str(error).split())), file=sys.stderr)
            status = 2
        except PreemptedError as stop:
            print(stop, file=sys.stderr)
            status = _TERMINATED
        except LostProcessError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            if jax.process_index() == 0:  # JAX's service ends with it, then the others
                time.sleep(_PATIENCE)
            os._exit(_AGAIN)  # or JAX waits for the lost process, and then aborts
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            status = 130
        except Exception:
            if not jax.distributed.is_initialized():
                raise
            traceback.print_exc()
            status = 1
        if status:
            _leave_others(status)
            sys.exit(status)


def _leave_others(status: int) -> None:
    """Ends this process of several, after a short wait for the others."""
    if not jax.distributed.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    shutdown.start()
    shutdown.join(_PATIENCE)
    if shutdown.is_alive():
        os._exit(status)
