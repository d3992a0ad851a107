"""From ``--config=NAME`` and ``--config.x=y`` to a configuration."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

import sphemb.configs
from sphemb._checks import InputError

_SHARED = "common"  # what the others build on, no experiment by itself


def shipped_configs() -> dict[str, pathlib.Path]:
    """The experiments that come with the package: name -> file."""
    (folder,) = sphemb.configs.__path__
    return {
        path.stem: path
        for path in sorted(pathlib.Path(folder).glob("*.py"))
        if path.stem != _SHARED and not path.stem.startswith("_")
    }


def read_config(
    config: str, overrides: Sequence[str] = ()
) -> ml_collections.ConfigDict:
    """Reads a configuration file and changes some of its entries.

    Args:
        config: a shipped one by its name, such as ``"digits"``, or a Python file; then
            the variant behind a colon, if it has some. Where no file
            ``configs/NAME.py`` exists, that path means the shipped one: an installed
            package has no such folder, and git on Windows may write the link
            ``configs`` as a text file.
        overrides: flags such as ``--config.train.num_steps=4``.

    Returns:
        The configuration; no key can be added to it.

    Raises:
        InputError: a file that is not there or that refuses its variant, an unknown
            flag or key, a value of the wrong type.

    >>> read_config("digits:sphere", ["--config.seed=7"]).seed
    7
    """
    name, colon, variant = config.partition(":")
    argv = ["sphemb", f"--config={_find(name)}{colon}{variant}", *overrides]
    # Flags of its own: those of absl belong to the program that asks.
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    try:
        left = values(argv)
        # A file that could not be loaded tells so on its first use only.
        holder.value.keys()
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


def _about_key(told: str, overrides: Sequence[str]) -> str:
    """What is wrong with a key, from what ml_collections tells of it."""
    nested = re.search(r"to lookup: ([\w.]+)", told)
    quoted = re.search(r"'(\w+)\\?'", told)
    key = nested[1] if nested else quoted[1] if quoted else told
    flags = [override.split("=")[0].lstrip("-") for override in overrides]
    where = next((flag for flag in flags if f".{key}." in f"{flag}."), key)
    close = re.search(r'mean \\?"(\w+)', told)
    hint = f"did you mean {close[1]}? " if close else ""
    return f"unknown config key {where}: {hint}see configs/"


def _find(name: str) -> pathlib.Path:
    shipped = shipped_configs()
    path = pathlib.Path(name)
    if path.name == name and path.suffix != ".py":
        if name not in shipped:
            raise InputError(
                f"--config must be a Python file or one of {', '.join(shipped)}, got "
                f"{name!r}"
            )
        return shipped[name]
    if not path.is_file():
        if path.parent == pathlib.Path("configs") and path.stem in shipped:
            return shipped[path.stem]
        hint = f"; --config={path.stem} comes along" if path.stem in shipped else ""
        raise InputError(f"--config cannot be loaded: no such file {name}{hint}")
    return path
