"""What every door does with a mistake: one line, and an exit status that says so."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from sphemb._checks import InputError
from sphemb.training import NonFiniteLossError, PreemptedError

_TERMINATED = 143  # as a shell has it of a process that SIGTERM ended


@contextlib.contextmanager
def door(*, interrupted: str = "stopped") -> Iterator[None]:
    """Turns a user's mistake into one line on stderr and exit status 2.

    A training that SIGTERM stopped and that was saved exits with 143.

    A mistake of ours keeps its traceback.

    Args:
        interrupted: what is said on Ctrl-C; the exit status is 130.
    """
    try:
        yield
    except (InputError, NonFiniteLossError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except PreemptedError as stop:
        print(stop, file=sys.stderr)
        sys.exit(_TERMINATED)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
