"""Memory by the growth of the resident set, the same reading for every library.

The compiler's own figure does not know what the runtime allocates beside it, and
PyTorch has none. So a process of its own builds the program, resets the kernel's
high-water mark, runs the program once and reads the mark. A tiny case goes before, so
that what a library loads at its first use is not counted. Only on Linux, and only where
the arrays lie in the machine's own memory.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

from benchmarks._cases import Case, draw_inputs
from benchmarks._peers import peers_of

_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")


def _status(field: str) -> int:
    """Bytes of a field of the process's status."""
    lines = _STATUS.read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def resident_growth(library: str, peer: str, case: Case) -> int | None:
    """Bytes by which one call raises the resident set; None where it cannot be told."""
    job = {"library": library, "peer": peer, "case": dataclasses.asdict(case)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._resident", json.dumps(job)],
        cwd=pathlib.Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout) if done.returncode == 0 else None


def main() -> None:
    """Runs a job in this process and prints the growth in bytes."""
    job = json.loads(sys.argv[1])
    case = Case(**job["case"])
    peer = next(p for p in peers_of(job["library"]) if p.name == job["peer"])
    peer.prime(case)
    program = peer.build(case, draw_inputs(case))
    _RESET.write_text("5")
    before = _status("VmRSS")
    program.call()
    print(_status("VmHWM") - before)


if __name__ == "__main__":
    main()
