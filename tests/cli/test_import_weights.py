"""The verb that takes weights from PyTorch's files."""

import pytest

from sphemb.cli import main
from sphemb.models import load_weights
from tests.models.pickles import write_state
from tests.models.states import resnet_state


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHEMB_WEIGHTS_DIR", str(tmp_path / "weights"))
    return write_state(tmp_path / "net.pth", resnet_state("resnet18"))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(["import-weights", *map(str, arguments)])
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_file_becomes_weights_with_a_name(source, capsys):
    main(["import-weights", str(source), "--backbone", "resnet18", "--name", "mine"])
    assert "weights 'mine' of resnet18 are in" in capsys.readouterr().out
    assert set(load_weights("mine", backbone="resnet18")) == {"params", "batch_stats"}


def test_mistakes_are_one_line(source, capsys, tmp_path):
    assert "net.pth lacks entries of resnet50" in refused(
        capsys, source, "--backbone", "resnet50"
    )
    assert "backbone must be one of" in refused(capsys, source, "--backbone", "vgg")
    missing = tmp_path / "no.pth"
    line = refused(capsys, missing, "--backbone", "resnet18")
    assert "no.pth cannot be read: No such file" in line
    assert not (tmp_path / "weights").exists()
    main(["import-weights", str(source), "--backbone", "resnet18"])
    capsys.readouterr()
    line = refused(capsys, source, "--backbone", "resnet18")
    assert "exist already" in line
    main(["import-weights", str(source), "--backbone", "resnet18", "--overwrite"])
