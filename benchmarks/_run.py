"""Case by case: build, time, compare, read the memory, keep the record."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks._agreement import measure_errors
from benchmarks._cases import Case, draw_inputs
from benchmarks._machine import available_bytes, describe
from benchmarks._measure import measure_times, median_ratio
from benchmarks._peers import OURS, Peer, Program, find_libraries, peers_of
from benchmarks._resident import resident_growth

GIB = 2**30
_SHARE = 0.7  # of the memory that is free at the start; the estimates are rough

Crowd = Sequence[tuple[str, Peer]]  # (library, peer)


def _too_large(peer: Peer, case: Case, limit: float | None) -> str:
    """Why a peer must sit a case out, or nothing."""
    needs = peer.needs_bytes(case)
    if limit is None or needs <= limit:
        return ""
    return f"needs about {needs / GIB:.0f} GiB, {limit / GIB:.0f} are to be had"


def _resident(case: Case, crowd: Crowd) -> dict[str, int | None]:
    if not case.resident or jax.default_backend() != "cpu":
        return {}
    return {peer.name: resident_growth(library, peer.name, case)
            for library, peer in crowd if not peer.only_time}  # fmt: skip


def measure_case(
    case: Case, crowd: Crowd, *, budget: float, limit: float | None
) -> dict[str, Any]:
    """Measures one case.

    Args:
        case: what to compute.
        crowd: the libraries and their peers, ours first.
        budget: seconds for the rounds of shots.
        limit: bytes beyond which a peer is left out.

    Returns:
        The record that ``results.json`` keeps of it.
    """
    asked = [(library, peer) for library, peer in crowd if peer.serves(case)]
    skipped = {peer.name: _too_large(peer, case, limit) for _, peer in asked}
    skipped = {name: reason for name, reason in skipped.items() if reason}
    running = [(library, peer) for library, peer in asked if peer.name not in skipped]
    inputs = draw_inputs(case)
    programs = {peer.name: peer.build(case, inputs) for _, peer in running}
    comparable: dict[str, Program] = {
        peer.name: programs[peer.name] for _, peer in running if not peer.only_time
    }
    times = measure_times(programs, budget=budget)
    return {
        "name": case.name,
        "kind": case.kind,
        "num_points": case.num_points,
        "points": case.points,
        "dim": case.dim,
        "num_steps": case.num_steps,
        "seconds": times.seconds,
        "warm": times.warm,
        "temp_bytes": {
            name: program.temp_bytes
            for name, program in programs.items()
            if program.temp_bytes is not None
        },
        "resident_bytes": _resident(case, running),
        "errors": measure_errors(case, inputs, comparable),
        "skipped": skipped,
    }


def _tell(record: dict[str, Any]) -> None:
    ours = record["seconds"][OURS]
    parts = [f"{OURS} {1e3 * np.median(ours):.3g} ms"]
    for name, seconds in record["seconds"].items():
        if name != OURS:
            parts.append(f"{name} {median_ratio(seconds, ours):.2f}x")
    parts += [f"{name} {reason}" for name, reason in record["skipped"].items()]
    print(f"{record['name']}: {', '.join(parts)}", flush=True)
    for name, errors in record["errors"].items():
        listed = ", ".join(f"{label} {error:.1e}" for label, error in errors.items())
        print(f"    off, {name}: {listed}", flush=True)


def _print_start(machine: dict[str, Any], missing: Sequence[str]) -> None:
    print(f"{machine['cpu']}, {machine['threads']} threads, {machine['device']}")
    print(f"load average {machine['load']}")
    if machine["busy"]:
        print(
            "WARNING: other work is running on this machine; what follows is not a "
            "measurement and will not go into the README"
        )
    for library in missing:
        print(f"{library} is not installed: its peers are left out")


def run(
    cases: Sequence[Case],
    *,
    budget: float,
    threads: int,
    whole: bool,
    path: pathlib.Path,
) -> dict[str, Any]:
    """Measures cases and writes the results after each.

    Args:
        cases: what to measure.
        budget: seconds for the rounds of each case.
        threads: what the libraries were limited to.
        whole: whether these are all cases of the table.
        path: the JSON file.

    Returns:
        What the file holds.
    """
    start = time.perf_counter()
    machine = describe(threads)
    found, missing = find_libraries()
    _print_start(machine, missing)
    crowd = [(library, peer) for library in found for peer in peers_of(library)]
    available = available_bytes()
    limit = None if available is None else _SHARE * available
    results: dict[str, Any] = {
        "machine": machine,
        "whole": whole,
        "measurement": whole and not machine["busy"],
        "budget": budget,
        "missing": missing,
        "peers": {peer.name: peer.about for _, peer in crowd},
        "cases": [],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    primed = set()
    for case in cases:
        if case.kind not in primed:
            for _, peer in crowd:
                if peer.serves(case):
                    peer.prime(case)
            primed.add(case.kind)
        record = measure_case(case, crowd, budget=budget, limit=limit)
        _tell(record)
        results["cases"].append(record)
        results["minutes"] = (time.perf_counter() - start) / 60
        path.write_text(json.dumps(results, indent=1) + "\n")
    return results
