"""Configs that go by another run, in two processes: trained, scored and drawn."""

import json

import pytest

from tests.data.test_bsds import write_tree
from tests.processes import finish

_BOTH_STAGES = """
import pathlib, sys
from sphemb.configs import bsds, bsds_finetune
from sphemb.cli import run_training
from tests.configs.test_boundaries import shrink
root = pathlib.Path(sys.argv[1])
for module, name in ((bsds, "first"), (bsds_finetune, "second")):
    config = shrink(module.get_config(), root / "tree", root / "prepared")
    if name == "second":
        config.train.init_from = str(root / "first")
    run_training(config, root / name)
"""


@pytest.mark.nightly
def test_boundaries_are_drawn_before_and_after_their_second_stage(tmp_path):
    write_tree(tmp_path / "tree")
    finish(_BOTH_STAGES, tmp_path, timeout=400)
    drawn = {path.name for path in (tmp_path / "second" / "pictures").iterdir()}
    assert {"boundaries.png", "orientations.png", "precision.png"} <= drawn
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["step"] == 1
