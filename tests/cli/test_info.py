"""``sphemb info``: what a question about an installation needs."""

import importlib.metadata
import json

import jax
import numpy as np

from sphemb.cli import main
from sphemb.models import list_weights


def info(capsys):
    main(["info"])
    lines = capsys.readouterr().out.splitlines()
    return {line[:11].strip(): line[11:].strip() for line in lines}


def test_versions_and_devices_are_those_in_use(capsys):
    lines = info(capsys)
    assert f"jax {jax.__version__}" in lines["packages"]
    assert f"flax {importlib.metadata.version('flax')}" in lines["packages"]
    assert lines["devices"].startswith(f"{jax.device_count()} cpu device")


def test_folders_are_those_that_the_environment_names(tmp_path, monkeypatch, capsys):
    (tmp_path / "sets" / "drawn_digits").mkdir(parents=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    monkeypatch.setenv("SPHEMB_WEIGHTS_DIR", str(tmp_path / "weights"))
    lines = info(capsys)
    assert lines["data sets"].startswith(f"drawn_digits, in {tmp_path / 'sets'}")
    assert lines["weights"].startswith(f"none imported, in {tmp_path / 'weights'}")


def test_weights_are_listed_with_their_backbone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPHEMB_WEIGHTS_DIR", str(tmp_path))
    about = {"backbone": "resnet18"}
    for name in ("resnet18", "mine"):
        np.savez(tmp_path / f"{name}.npz", a=np.zeros(2), about=json.dumps(about))
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    assert list_weights() == {"broken": "", "mine": "resnet18", "resnet18": "resnet18"}
    told = info(capsys)["weights"]
    assert "broken (of no backbone), mine (of resnet18), resnet18, in" in told
