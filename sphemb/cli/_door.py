"""What every door does with a mistake: one line, and an exit status that says so."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TextIO

import jax

from sphemb._checks import InputError
from sphemb.cli._names import one_line
from sphemb.training import LostProcessError, NonFiniteLossError, PreemptedError

_TERMINATED = 143  # as a shell has it of a process that SIGTERM ended
_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command may do another time
_CLOSED_PIPE = 141  # as a shell has it of a process that SIGPIPE ended
_PATIENCE = 5.0  # seconds that process 0 leaves to the others to say the same


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """Ends without a traceback where nothing reads the output any more, as ``| head``.

    The exit status is 141 then, that of a program which SIGPIPE ends.
    """
    streams = (sys.stdout, sys.stderr)
    try:
        try:
            yield
        finally:  # what is left to be written
            for stream in streams:
                stream.flush()
    except BrokenPipeError:
        closed = [stream for stream in streams if _lost_its_reader(stream)]
        if not closed:  # it was another pipe
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in closed:  # or Python complains when it flushes them at the end
            os.dup2(nowhere, stream.fileno())
        sys.exit(_CLOSED_PIPE)


def _lost_its_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe that is closed at the other end."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, ValueError, OSError):  # not of this system, or no file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def door(*, interrupted: str = "stopped") -> Iterator[None]:
    """Turns a user's mistake into one line on stderr and exit status 2.

    A training that SIGTERM stopped and that was saved exits with 143; one whose other
    processes are gone, with 75.

    A mistake of ours keeps its traceback.

    Args:
        interrupted: what is said on Ctrl-C; the exit status is 130.
    """
    with pipe_may_close(), _mistakes(interrupted):
        yield


@contextlib.contextmanager
def _mistakes(interrupted: str) -> Iterator[None]:
    status = 0
    try:
        yield
    except (InputError, NonFiniteLossError) as error:
        line = one_line(" ".join(str(error).split()))
        print(f"error: {line}", file=sys.stderr)
        status = 2
    except PreemptedError as stop:
        print(stop, file=sys.stderr)
        status = _TERMINATED
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        if jax.process_index() == 0:  # with it goes JAX's service, and that ends others
            time.sleep(_PATIENCE)
        os._exit(_AGAIN)  # or JAX waits for the lost one, and then aborts
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
    """Ends this process of several, after waiting a little for the others.

    They end, too, where the mistake is everyone's. Where it is of this process alone
    they are in the middle of what is computed together: JAX would wait for them for
    minutes, and they for this process.
    """
    if not jax.distributed.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    farewell = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    farewell.start()
    farewell.join(_PATIENCE)
    if farewell.is_alive():
        os._exit(status)
