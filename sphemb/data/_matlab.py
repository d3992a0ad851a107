"""MATLAB files, read so that whatever is wrong with one is said in a line."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import scipy.io

from sphemb.data._findings import FileError

# What scipy raises for files that are no MATLAB files, damaged or cut short, and what
# looking for a field raises in a file of something else.
_BROKEN = (
    OSError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
    NotImplementedError,  # MATLAB's format 7.3
    scipy.io.matlab.MatReadError,
    struct.error,
    zlib.error,
)


@contextlib.contextmanager
def reading_matlab(who: str, what: str) -> Iterator[None]:
    """Turns what goes wrong inside into a complaint.

    Args:
        who: what to call the file.
        what: what it should be.

    Raises:
        FileError: something went wrong; a `FileError` stays as it is.
    """
    try:
        yield
    except FileError:
        raise
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{who} cannot be read as {what}: {reason}") from error


def load_variable(data: bytes, name: str) -> Any:
    """Reads one variable of a MATLAB file; see `scipy.io.loadmat`.

    Args:
        data: the file's bytes.
        name: of the variable.

    Returns:
        What scipy makes of it.

    Raises:
        ValueError: there is no such variable; and what scipy raises, for
            `reading_matlab` to word.
    """
    content = scipy.io.loadmat(io.BytesIO(data))
    if name not in content:
        held = [key for key in content if not key.startswith("__")]
        raise ValueError(f"it has no {name}, but {', '.join(held) or 'nothing'}")
    return content[name]
