"""MATLAB files, read by SciPy in a process of its own.

`scipy.io.loadmat` crashes on some damaged files; a crash is then one line. That process
runs this file as a program, which imports SciPy alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

_HEADER = 128  # bytes
_SECONDS = 60.0  # for one file
_MEMORY = 2**32  # bytes that the reading process may address


def load_variable(data: bytes, name: str) -> Any:
    """Reads one variable of a MATLAB file, as `scipy.io.loadmat` does.

    A damaged file, one of version 7.3 and one without it raise a ValueError.
    """
    if data[:10] == b"MATLAB 7.3":
        raise ValueError("it is of version 7.3: save it with -v7 in MATLAB")
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("it does not begin as a MATLAB file of version 5")
    place = _HEADER
    while place + 8 <= len(data):
        place += 8 + struct.unpack_from(f"{order}II", data, place)[1]
    if place != len(data):  # which SciPy accepts
        raise ValueError("it is cut short")
    found, value = _READER.ask(data, name)
    if not found:
        raise ValueError(value)
    return value


@contextlib.contextmanager
def reading_matlab(who: str, what: str) -> Iterator[None]:
    """Raises FileError for errors inside: ``who`` cannot be read as ``what``."""
    from sphemb.data.files._images import FileError  # not in the reading process

    try:
        yield
    except FileError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{who} cannot be read as {what}: {reason}") from error


class _Reader:
    """The reading process, started when it is needed and after each crash."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, data: bytes, name: str) -> tuple[bool, Any]:
        """Returns whether the variable was read, and its value or the reason."""
        with self._lock:
            process = self._process
            # After a fork the process belongs to the parent.
            if process is None or self._owner != os.getpid():
                process = self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )
                self._owner = os.getpid()
            assert process.stdin is not None
            assert process.stdout is not None
            limit = threading.Timer(_SECONDS, process.kill)
            limit.start()
            try:
                pickle.dump((data, name), process.stdin)
                process.stdin.flush()
                return pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError):
                process.kill()
                process.wait()
                self._process = None
                return False, f"SciPy crashed, or took more than {_SECONDS:.0f} s"
            finally:
                limit.cancel()


_READER = _Reader()


def _answer(data: bytes, name: str) -> tuple[bool, Any]:
    import scipy.io

    try:
        held = scipy.io.loadmat(io.BytesIO(data), variable_names=[name])
        if name in held:
            return True, held[name]
        names = [entry[0] for entry in scipy.io.whosmat(io.BytesIO(data))]
        return False, f"it has no {name}, but {', '.join(names) or 'nothing'}"
    except Exception as error:
        return False, " ".join(str(error).split()) or type(error).__name__


def _serve() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    with contextlib.suppress(EOFError):
        while True:
            answers.write(pickle.dumps(_answer(*pickle.load(requests))))
            answers.flush()


if __name__ == "__main__":
    _serve()
