"""Configurations: files that flags change."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from sphemb._checks import InputError
from sphemb.cli._flags import shipped_configs


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
