"""Runs of claims about training: each is made once, and scored once."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections


def folder_of(runs: pathlib.Path, config: ml_collections.ConfigDict) -> pathlib.Path:
    """The folder of a run, the same for the same settings.

    It depends neither on the number of threads nor on where the runs are.
    """
    settings = config.to_dict()
    del settings["loader"]["num_threads"]
    text = json.dumps(settings, sort_keys=True).replace(str(runs), "")
    return runs / hashlib.sha256(text.encode()).hexdigest()[:12]


def scored_once(
    runs: pathlib.Path,
    config: ml_collections.ConfigDict,
    score: Callable[[pathlib.Path], Any],
    *,
    name: str = "scores",
) -> Any:
    """What ``score(folder)`` gives for a run, as JSON; read if it is there."""
    folder = folder_of(runs, config)
    record = runs / f"{folder.name}_{name}.json"
    if not record.is_file():
        found = score(folder)
        runs.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(found))
        jax.clear_caches()  # programs of many runs reach the limit of mapped memory
    return json.loads(record.read_text())
