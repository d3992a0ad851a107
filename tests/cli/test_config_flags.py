"""From names and flags to configurations."""

import pytest

from sphemb import InputError
from sphemb.cli import read_config


def test_a_name_finds_the_shipped_configuration():
    assert read_config("digits").data.name == "digits"
    assert read_config("coco:small").augmentation.size == (256, 256)


def test_a_file_is_taken_as_it_is(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from sphemb.configs import folder\n"
        "def get_config():\n"
        "    config = folder.get_config()\n"
        "    config.seed = 11\n"
        "    return config\n"
    )
    assert read_config(str(own)).seed == 11
    assert read_config("configs/folder.py").seed == 0


@pytest.mark.parametrize("link", [None, "sphemb/configs"])
def test_without_the_link_a_path_in_configs_is_the_shipped_one(
    link, tmp_path, monkeypatch
):
    """As after an installation, and as git writes a link on Windows."""
    monkeypatch.chdir(tmp_path)
    if link:
        (tmp_path / "configs").write_text(link)
    assert read_config("configs/coco.py:small").augmentation.size == (256, 256)
    with pytest.raises(InputError, match=r"no such file configs/mine\.py$"):
        read_config("configs/mine.py")


def test_a_file_in_a_folder_configs_comes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "voc.py").write_text(
        "from sphemb.configs import voc\n"
        "def get_config():\n"
        "    config = voc.get_config()\n"
        "    config.seed = 12\n"
        "    return config\n"
    )
    assert read_config("configs/voc.py").seed == 12


def test_changes_keep_the_types_of_what_they_change():
    config = read_config(
        "folder",
        [
            "--config.task.margin=.25",
            "--config.augmentation.size=64,32",
            "--config.seed",
            "3",
        ],
    )
    assert config.task.margin == 0.25
    assert config.augmentation.size == (64, 32)
    assert config.seed == 3


def test_nothing_can_be_added():
    config = read_config("digits")
    with pytest.raises(AttributeError):
        config.train.colour = 1


@pytest.mark.parametrize(
    ("config", "overrides", "words"),
    [
        ("digit", [], "one of bsds, .*voc_spectral, got 'digit'"),
        ("common", [], "got 'common'"),
        ("other/digits.py", [], r"no such file other/digits.py; --config=digits comes"),
        ("other/mine.py", [], "no such file other/mine.py$"),
        ("digits:emnist", [], "sklearn, finetune, sphere, mnist, got 'emnist'"),
        ("digits", ["--config.task.colour=1"], "unknown config key config.task.colour"),
        ("digits", ["--config.task.margins=1"], r"task.margins: did you mean margin\?"),
        ("digits", ["--config.tusks.margin=1"], "config key config.tusks.margin: see"),
        ("digits", ["--config.task.margin.a=1"], "config key config.task.margin.a: "),
        ("digits", ["--config.task.margin=wide"], "config.task.margin=wide"),
        ("folder", ["--config.augmentation.size[0]=64"], r"size\[0\]=64 cannot be"),
        ("digits", ["--margin=1"], "'margin'"),
        ("digits", ["more"], "unknown argument 'more'"),
    ],
)
def test_a_mistake_names_what_is_wrong(config, overrides, words):
    with pytest.raises(InputError, match=words):
        read_config(config, overrides)
