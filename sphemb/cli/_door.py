"""What every door does with a mistake: one line, and an exit status that says so."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from sphemb._checks import InputError
from sphemb.training import NonFiniteLossError


@contextlib.contextmanager
def door() -> Iterator[None]:
    """Turns a user's mistake into one line on stderr and exit status 2.

    A mistake of ours keeps its traceback.
    """
    try:
        yield
    except (InputError, NonFiniteLossError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "stopped; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(130)
