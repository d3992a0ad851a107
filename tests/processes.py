"""Several processes that share a run, each with its own simulated devices."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
_JOINED = """
import sys
from sphemb.training import join_processes
address, count, number = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
if count > 1:
    join_processes(address, num_processes=count, process_id=number)
"""


def flags_for(devices: int) -> str:
    """This process's flags of XLA, for another number of devices."""
    flag = "--xla_force_host_platform_device_count"
    others = [f for f in os.environ["XLA_FLAGS"].split() if flag not in f]
    return " ".join([*others, f"{flag}={devices}"])


def run_processes(
    code: str,
    *arguments: object,
    count: int = 2,
    devices: int = 1,
    timeout: float = 240,
) -> list[tuple[int, str]]:
    """Runs the same code in processes that have joined.

    Args:
        code: Python; it finds its process in ``number`` and the others' in ``count``.
        arguments: its ``sys.argv[1:]``.
        count: of processes.
        devices: of each.
        timeout: seconds that all have together; what is left then is killed.

    Returns:
        The exit status of each process and what it printed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = {"XLA_FLAGS": flags_for(devices), "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **flags}
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as files:
        # A pipe that waits to be read would stop who writes to it.
        outputs = [
            files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(count)
        ]
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", _JOINED + code),
                    *(address, str(count), str(number), *map(str, arguments)),
                ],
                env=environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for number, output in enumerate(outputs)
        ]
        try:
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for output in outputs:
            output.seek(0)
        return [
            (process.returncode, output.read())
            for process, output in zip(processes, outputs, strict=True)
        ]


def finish(
    code: str,
    *arguments: object,
    count: int = 2,
    devices: int = 1,
    timeout: float = 240,
) -> None:
    """`run_processes`, all of which must end well."""
    for status, printed in run_processes(
        code, *arguments, count=count, devices=devices, timeout=timeout
    ):
        assert status == 0, f"status {status}\n{printed}"
