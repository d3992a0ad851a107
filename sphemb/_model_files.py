"""Files of trained networks, and the networks that come with the package.

A file is in the format safetensors. Its metadata have one entry, JSON with the version,
the configuration, the names of classes, the step and the card.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
from safetensors.numpy import save as to_bytes

from sphemb import __version__
from sphemb._errors import InputError
from sphemb._files import written_whole

_SUFFIX = ".safetensors"
_KINDS = {"config": dict, "class_names": list, "step": int, "card": object}
_MALFORMED = (ValueError, KeyError, TypeError)


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is known of a trained network.

    Attributes:
        summary: what it finds, in one line.
        data: the images that it was trained on.
        license: of the data.
        made_by: the command.
        scores: what was measured, and on what.
        limits: what it is bad at.
    """

    summary: str = ""
    data: str = ""
    license: str = ""
    made_by: str = ""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    limits: str = ""


class ModelFile(NamedTuple):
    """The content of a file."""

    config: dict[str, Any]
    class_names: list[str]
    step: int
    card: ModelCard
    arrays: dict[str, np.ndarray]


def shipped_folder() -> pathlib.Path:
    """The folder of the networks that come with the package."""
    return pathlib.Path(str(importlib.resources.files("sphemb") / "shipped"))


def model_names() -> list[str]:
    """The names of the networks that come with the package."""
    return sorted(path.stem for path in shipped_folder().glob(f"*{_SUFFIX}"))


def model_path(model: str | pathlib.Path) -> pathlib.Path:
    """The file or the folder of a model; ``./NAME`` is a folder, not a name."""
    names = model_names()
    if str(model) in names:
        return shipped_folder() / f"{model}{_SUFFIX}"
    if os.path.exists(model):
        return pathlib.Path(model)
    raise InputError(
        "model must be the folder of a run, a file that sphemb export wrote, or one "
        f"of {', '.join(names)}, got {str(model)!r}"
    )


def load_card(model: str | pathlib.Path) -> ModelCard:
    """The card of a file, or of a network that comes with the package."""
    return read_model_file(model_path(model), arrays=False).card


def check_version(what: str, version: Any) -> None:
    """Refuses what a later minor version of sphemb wrote: its settings may differ."""
    found = re.match(r"(\d+)\.(\d+)", str(version))
    if found is None:
        raise InputError(f"{what} must name a version of sphemb, got {version!r}")
    if tuple(map(int, found.groups())) > tuple(map(int, __version__.split(".")[:2])):
        raise InputError(
            f"{what} was written by sphemb {version}, which sphemb {__version__} "
            "cannot read: upgrade sphemb"
        )


def write_model_file(path: pathlib.Path, content: ModelFile) -> None:
    """Writes a file, whole or not at all."""
    facts = {**content._asdict(), "card": dataclasses.asdict(content.card)}
    arrays = {k: np.asarray(v, order="C") for k, v in facts.pop("arrays").items()}
    # One entry: the library writes several in any order.
    metadata = {"sphemb": json.dumps({"version": __version__, **facts})}
    with written_whole(path) as unfinished:
        unfinished.write_bytes(to_bytes(arrays, metadata))


def read_model_file(path: pathlib.Path, *, arrays: bool = True) -> ModelFile:
    """Reads a file, or all but its arrays.

    `InputError` names a file that is damaged, of another kind or of a later version.
    """
    names = [name for name in ModelFile._fields if name != "arrays"]
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "sphemb" not in metadata:
                raise ValueError("it has no configuration")
            stored = json.loads(metadata["sphemb"])
            check_version(f"model {path}", stored.get("version"))
            facts = {name: stored[name] for name in names}
            found = list(file.keys()) if arrays else []
            facts["arrays"] = {name: file.get_tensor(name) for name in found}
        facts["card"] = ModelCard(**facts["card"])
        for name in names:
            if not isinstance(facts[name], _KINDS[name]):
                raise ValueError(f"its {name} is {facts[name]!r}")
        return ModelFile(**facts)
    except InputError:
        raise
    except (safetensors.SafetensorError, OSError, *_MALFORMED) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"model {path} must be a file that sphemb export wrote: {line}"
        ) from error
