"""The flags of ``train.py``: a mistake in them is the user's, and one line long."""

from __future__ import annotations

from absl import flags

from sphemb._checks import InputError


def parse_flags(argv: list[str]) -> list[str]:
    """Parses absl's flags; give it to ``absl.app.run`` as ``flags_parser``.

    Args:
        argv: the program's name and its arguments.

    Returns:
        What is left over.

    Raises:
        InputError: an unknown flag or configuration key, a value of the wrong type, a
            configuration file that is not there or that refuses its variant.
    """
    try:
        left = flags.FLAGS(argv)
        # A file that could not be loaded tells so on its first use only.
        flags.FLAGS.config.keys()
        return left
    except AttributeError as error:
        key = str(error).strip("\"'")
        named = [a for a in argv if a.split("=")[0].endswith(f".{key}")]
        where = named[0].split("=")[0].lstrip("-") if named else key
        raise InputError(f"unknown config key {where}: see configs/") from error
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"--config cannot be loaded: {reason}") from error
    except flags.Error as error:
        # What a configuration file raises arrives as the text of its traceback.
        reason = str(error).rpartition(f"{InputError.__name__}: ")[2]
        raise InputError(reason) from error
