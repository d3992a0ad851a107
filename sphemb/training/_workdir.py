"""A run's folder: which configuration it belongs to, and what is written there.

``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``, ``pictures/``,
``summary.json``.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import ml_collections

from sphemb._checks import InputError


def claim_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> bool:
    """Makes a folder the run's own, or finds that it is already.

    Args:
        workdir: the folder.
        config: the run's configuration.

    Returns:
        True if a run with this very configuration has been there before.

    Raises:
        InputError: the folder holds a run of another configuration, or something that
            is no run; nothing is touched.
    """
    wanted = _plain(config)
    path = workdir / "config.json"
    if path.is_file():
        found = read_json(path)
        different = sorted(_differences(found, wanted))
        if different:
            raise InputError(
                f"workdir {workdir} holds a run of another configuration (different: "
                f"{', '.join(different[:4])}): give another --workdir, or remove it"
            )
        return True
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise InputError(
            f"workdir {workdir} must be a new folder or that of a run, but it holds "
            "other things: give another --workdir"
        )
    try:
        (workdir / "pictures").mkdir(parents=True)
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be made: {error}") from error
    write_json(path, wanted)
    return False


def load_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run.

    Raises:
        InputError: there is none.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(
            f"workdir {workdir} must hold a run, but it has no config.json: train first"
        )
    return ml_collections.ConfigDict(read_json(path))


def read_json(path: pathlib.Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a JSON file: {error}") from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(unfinished, path)


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as JSON gives it back: tuples have become lists."""
    return json.loads(config.to_json_best_effort())


def _differences(a: Any, b: Any, name: str = "config") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return {
            difference
            for key in a.keys() | b.keys()
            for difference in _differences(a.get(key), b.get(key), f"{name}.{key}")
        }
    return set() if a == b else {name}
