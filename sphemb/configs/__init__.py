"""The experiments: ``configs/`` of a checkout under the name that they are shipped as.

A wheel has those files here, and not this one (``package-dir`` in ``pyproject.toml``).
"""

import pathlib
from typing import TYPE_CHECKING

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]

if TYPE_CHECKING:  # what reads no __path__ is told which of them others build on
    from configs import bsds as bsds
    from configs import common as common
    from configs import digits as digits
    from configs import folder as folder
    from configs import picie_coco as picie_coco
    from configs import voc as voc
    from configs import voc_semantic as voc_semantic
