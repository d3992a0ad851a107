"""What is printed: one line each, to a reader that may close the pipe."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

_CLOSED_PIPE = 141  # exit status of a shell for a process that SIGPIPE ended


def one_line(text: object) -> str:
    r"""A text whose line breaks and control characters are escaped.

    >>> one_line("two\nlines\x1b[2J")
    'two\\nlines\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )


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
