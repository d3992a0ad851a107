"""The one line that a user's error becomes, and the exit statuses."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from sphemb._errors import (
    InputError,
    LostProcessError,
    NonFiniteLossError,
    PreemptedError,
)
from sphemb.cli._output import one_line, pipe_may_close

_TERMINATED = 143  # exit status of a shell for a process that SIGTERM ended
_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later
_PATIENCE = 5.0  # seconds that process 0 waits for the others to report


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
            import jax

            if jax.process_index() == 0:  # JAX's service ends with it, then the others
                time.sleep(_PATIENCE)
            os._exit(_AGAIN)  # or JAX waits for the lost process, and then aborts
        except KeyboardInterrupt:
            print(interrupted, file=sys.stderr)
            status = 130
        except Exception:
            if not _among_several():
                raise
            traceback.print_exc()
            status = 1
        if status:
            _leave_others(status)
            sys.exit(status)


def _among_several() -> bool:
    """Whether this process is one of several; without JAX it is not."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _leave_others(status: int) -> None:
    """Ends this process of several, after a short wait for the others."""
    if not _among_several():
        return
    import jax

    sys.stdout.flush()
    sys.stderr.flush()
    shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    shutdown.start()
    shutdown.join(_PATIENCE)
    if shutdown.is_alive():
        os._exit(status)
