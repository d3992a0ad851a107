"""The verb export: a run as files for predict, and for JAX alone."""

from __future__ import annotations

import pathlib
from typing import Any

from sphemb import training
from sphemb._errors import InputError
from sphemb._files import written_whole
from sphemb.cli._names import check_results, make_folder, writing_results
from sphemb.cli._verbs import Export

_MODEL, _FUNCTION = "model.safetensors", "predict.jaxexport"
_DESCRIPTION = "export.json"


def export_run(flags: Export) -> dict[str, Any]:
    """Writes the files, and returns the content of ``export.json``."""
    names = (_MODEL, _FUNCTION, _DESCRIPTION)
    check_results(flags.out, names, overwrite=flags.overwrite)
    trained = training.load_run(flags.workdir)
    bounds = {"smallest": flags.smallest, "largest": flags.largest}
    try:
        exported = training.export_prediction(
            trained, **bounds, size=flags.size, platforms=flags.platforms
        )
        content = bytes(exported.serialize())
    except InputError:  # a flag; nothing is written
        raise
    except Exception as error:  # JAX cannot lower every task; predict need not
        _save_model(trained, flags.out)
        error.add_note(f"{flags.out / _MODEL} is written, {_FUNCTION} is not")
        raise
    description: dict[str, Any] = {"file": _FUNCTION}
    description |= training.describe_export(trained, exported)
    _save_model(trained, flags.out)
    path = flags.out / _FUNCTION
    with writing_results():
        with written_whole(path) as unfinished:
            unfinished.write_bytes(content)
        # Last: it means that all is there.
        training.write_json(flags.out / _DESCRIPTION, description)
    shape = " x ".join(map(str, description["inputs"]["image"]["shape"]))
    where = f"{', '.join(exported.platforms)}, {len(content) / 1e6:.1f} MB"
    print(f"{path}: images {shape} on {where}", flush=True)
    return description


def _save_model(trained: training.Trained, out: pathlib.Path) -> None:
    make_folder(out)
    with writing_results():
        training.save_model(trained, out / _MODEL)
