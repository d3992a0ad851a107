"""Import weights: a PyTorch file in, weights with a name out."""

from __future__ import annotations

import pathlib

from sphemb.models import import_weights


def run_import(
    source: str | pathlib.Path,
    *,
    backbone: str,
    name: str | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Imports pretrained weights, and says under which name they are found.

    Args:
        source: a ``.pth``, ``.pt`` or ``.safetensors`` file.
        backbone: what it holds, a name of `sphemb.models.BACKBONES`.
        name: of the weights; the backbone's by default.
        overwrite: replace weights of this name.

    Returns:
        The file that was written.

    Raises:
        InputError: the file is unreadable or does not fit, or the name is taken.
    """
    path = import_weights(source, backbone=backbone, name=name, overwrite=overwrite)
    print(f"weights {path.stem!r} of {backbone} are in {path}", flush=True)
    return path
