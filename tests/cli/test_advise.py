"""``sphemb advise``: settings that fit the data, with reasons, that can be pasted."""

import json
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import sphemb
from sphemb import sphere
from sphemb.cli import _advise, main, read_config
from sphemb.tasks import Proposals
from sphemb.training import Experiment, train
from tests.scenes import write_folder
from tests.tiny import tiny_config

LINE = re.compile(r"(config[\w.]*) = (\S+): (\S.*\S)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("advise") / "my data")


@pytest.fixture(scope="module")
def proposals(tmp_path_factory):
    """A configuration of one's own: proposals of a folder."""
    path = tmp_path_factory.mktemp("config") / "own.py"
    path.write_text("from tests.tiny import proposals_config as get_config\n")
    return f"--config={path}"


def write_config(path, *changes):
    """A flag for ``configs/folder.py``, changed by some statements."""
    first = "from sphemb.configs.folder import get_config as start"
    lines = ["config = start()", *changes, "return config"]
    path.write_text("\n    ".join([f"{first}\ndef get_config():", *lines]))
    return f"--config={path}"


@pytest.fixture(scope="module")
def run(drawings_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("advised") / "run"
    config = tiny_config(drawings_dir)
    config.train.num_steps = 3
    train(config, workdir)
    return workdir


def write_cells(folder, number, side=5, color=False):
    """Three images of number x number instances, of 5 x 5 pixels each."""
    cells = np.arange(1, number**2 + 1, dtype=np.uint16).reshape(number, number)
    mask = np.kron(cells, np.ones((side, side), np.uint16))
    for name in "abc":
        image = np.uint8(20 * mask % 256)
        if color:
            image = np.stack([image, image // 2, image // 3], axis=-1)
        for kind, array in {"images": image, "masks": mask}.items():
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")


def advised(capsys, *arguments):
    """The lines of advice: setting -> (value, reason), and all that is printed."""
    main(["advise", *map(str, arguments)])
    out = capsys.readouterr().out
    found = filter(None, map(LINE.fullmatch, out.splitlines()))
    return {m[1]: (m[2], m[3]) for m in found}, out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(["advise", *map(str, arguments)])
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


class TestFolder:
    def test_every_line_can_be_pasted_as_a_flag(self, folder, capsys):
        advice, out = advised(capsys, folder, "--no-costs")
        assert advice.pop("config")[0] == "folder"
        flags = [f"--{setting}={value}" for setting, (value, _) in advice.items()]
        config = read_config("folder", flags)
        assert config.task.diameter == float(advice["config.task.diameter"][0])
        command = shlex.split(out.splitlines()[-1])
        assert command[:3] == ["sphemb", "train", "--config=folder"]
        assert read_config("folder", command[3:]).data.dir == str(folder)

    def test_the_data_are_those_of_the_masks(self, folder, capsys, tmp_path):
        _, out = advised(capsys, folder, "--no-costs", "--out", tmp_path / "out")
        assert "12 images with 24 instances" in out
        record = json.loads((tmp_path / "out" / "advice.json").read_text())
        areas = [
            int((np.asarray(Image.open(mask)) == number).sum())
            for mask in sorted((folder / "masks").iterdir())
            for number in (1, 2)
        ]
        assert record["data"]["area"]["median"] == np.median(areas)
        assert record["data"]["instances_of_an_image"]["most"] == 2
        assert record["data"]["vanishing"]["1"] == 0
        with Image.open(tmp_path / "out" / "instances.png") as picture:
            assert picture.width > 600

    @pytest.mark.parametrize(("output_stride", "advice"), [(16, 8), (8, 4)])
    def test_large_objects_need_a_coarse_map_only(
        self, output_stride, advice, proposals, tmp_path, capsys
    ):
        """And the network has that map."""
        write_cells(tmp_path, 2, side=24)
        flag = f"--config.model.output_stride={output_stride}"
        given, out = advised(capsys, tmp_path, proposals, "--no-costs", flag)
        assert given["config.model.decoder_stride"][0] == str(advice)
        config = read_config(
            proposals.removeprefix("--config="), shlex.split(out.splitlines()[-1])[3:]
        )
        model = Experiment(config).model
        assert (model.output_stride, model.decoder_stride) == (output_stride, advice)

    def test_settings_of_the_folder_are_those_of_the_command(self, folder, capsys):
        flags = ("--page", "max", "--intensity", "percentile", "--void", "255")
        _, out = advised(capsys, folder, "--no-costs", *flags)
        command = shlex.split(out.splitlines()[-1])
        data = read_config("folder", command[3:]).data
        assert (data.page, data.intensity, data.void) == ("max", "percentile", 255)

    def test_what_is_given_stays(self, folder, proposals, capsys):
        given = (proposals, "--no-costs", "--config.task.margin=0.3")
        advice, out = advised(capsys, folder, *given)
        assert "config.task.margin" not in advice
        # Three groups: .25 is a triangle's, and takes a plane.
        assert (
            "margin 0.3 from 2 dimensions on" in advice["config.model.embedding_dim"][1]
        )
        assert "--config.task.margin=0.3" in out.splitlines()[-1]
        rule = float(sphere.concentration_from_margin(0.3))
        assert float(advice["config.task.concentration"][0]) == pytest.approx(
            rule, abs=0.01
        )

    def test_many_groups_at_a_wide_margin_are_advised_by_a_bound(
        self, proposals, tmp_path, capsys
    ):
        write_cells(tmp_path, 18)
        given = (proposals, "--no-costs", "--config.task.margin=.7")
        advice, _ = advised(capsys, tmp_path, *given)
        need = sphere.min_dimension(18 * 18 + 1, 0.7)
        _, reason = advice["config.model.embedding_dim"]
        assert f"margin 0.7 from {need} dimensions on, and perhaps in fewer" in reason

    def test_many_small_instances_are_learned_from_scratch(self, tmp_path, capsys):
        write_cells(tmp_path, 25, color=True)
        advice, _ = advised(capsys, tmp_path, "--no-costs")
        assert advice["config"][0] == "folder"
        assert "a diameter of 6 pixels" in advice["config"][1]
        assert int(advice["config.task.max_groups"][0]) >= 625
        assert int(advice["config.task.max_objects"][0]) >= 625
        # Of squares of 5 x 5 pixels, discs of the same area.
        assert float(advice["config.task.diameter"][0]) == pytest.approx(5.6, abs=0.05)
        assert "config.model.embedding_dim" not in advice

    def test_large_objects_are_seen_smaller(self, tmp_path, capsys):
        write_cells(tmp_path, 6, side=40)
        given = ("--config=folder", "--no-costs")
        advice, _ = advised(capsys, tmp_path, *given)
        assert float(advice["config.task.diameter"][0]) == pytest.approx(45.1, abs=0.05)
        # The images are seen at .35 times their size, and have 85 pixels.
        assert advice["config.augmentation.size"][0] == "96,96"
        assert advice["config.task.window"][0] == "48"
        assert "config.task.periods" not in advice

    def test_what_a_configuration_leaves_out_has_its_default(self, tmp_path, capsys):
        """And is not advised on, since no flag can add it."""
        write_cells(tmp_path, 6, side=40)
        own = write_config(
            tmp_path / "own.py",
            "config.task = {'name': 'Objects'}",
            "del config.data['page']",
        )
        advice, out = advised(capsys, tmp_path, own, "--no-costs")
        # The images are seen with 85 pixels; windows of 64 fill a crop.
        assert {k: v for k, (v, _) in advice.items()} == {
            "config.augmentation.size": "128,128"
        }
        command = shlex.split(out.splitlines()[-1])
        assert command[3:] == [f"--config.data.dir={tmp_path}"]
        line = refused(capsys, tmp_path, own, "--no-costs", "--page=max")
        assert "unknown config key config.data.page" in line

    def test_a_concentration_that_is_whole_stays_whole(self, tmp_path, capsys):
        """As the flag of the command has to be."""
        write_cells(tmp_path, 2, side=24)
        own = write_config(
            tmp_path / "own.py",
            "from tests.tiny import proposals_config",
            "config = proposals_config()",
            "del config.task['concentration']",
            "config.task.concentration = 200",
        )
        _, out = advised(capsys, tmp_path, own, "--no-costs")
        command = shlex.split(out.splitlines()[-1])[3:]
        config = read_config(own.removeprefix("--config="), command)
        assert config.task.concentration == 36  # (3 / (1 - margin))^2

    def test_a_flag_replaces_how_the_configuration_reads_the_folder(
        self, tmp_path, capsys
    ):
        write_cells(tmp_path, 2, side=40)
        own = write_config(tmp_path / "own.py", "config.data.masks = 'single'")
        _, out = advised(capsys, tmp_path, own, "--no-costs")
        assert "3 images with 3 instances" in out
        assert "config.data.masks" not in out
        _, out = advised(capsys, tmp_path, own, "--no-costs", "--masks=instances")
        assert "3 images with 12 instances" in out
        assert "--config.data.masks=instances" in out.splitlines()[-1]

    def test_large_gray_objects_are_not_of_photographs(self, tmp_path, capsys):
        write_cells(tmp_path, 3, side=40)
        advice, _ = advised(capsys, tmp_path, "--no-costs")
        assert advice["config"][0] == "folder"
        assert "0 % of the images are in color" in advice["config"][1]

    @pytest.mark.parametrize(
        "flag", ["--config.augmentation.size=200,200", "--config.task.window=48"]
    )
    def test_windows_fill_a_crop_whatever_is_given(self, flag, tmp_path, capsys):
        write_cells(tmp_path, 6, side=40)
        _, out = advised(capsys, tmp_path, "--config=folder", "--no-costs", flag)
        config = read_config("folder", shlex.split(out.splitlines()[-1])[3:])
        assert all(side % config.task.window == 0 for side in config.augmentation.size)

    def test_photographs_are_in_color_and_keep_their_size(self, tmp_path, capsys):
        write_cells(tmp_path, 3, side=40, color=True)
        (tmp_path / "images" / "c.png").write_bytes(b"damaged")
        advice, _ = advised(capsys, tmp_path, "--no-costs")
        assert advice["config"][0] == "folder:photographs"
        assert "100 % of the images are in color" in advice["config"][1]
        assert "where the network sees" not in advice["config.augmentation.size"][1]
        size = advice["config.augmentation.size"][0]
        assert size == ",".join(2 * [advice["config.task.window"][0]])
        assert not {"config.task.periods", "config.model.decoder_stride"} & set(advice)


class TestRun:
    def test_embeddings_are_measured_and_drawn(self, run, tmp_path, capsys):
        advice, out = advised(
            capsys, "--workdir", run, "--no-costs", "--out", tmp_path / "out"
        )
        assert re.search(r"similarities in \d images: within instances 0\.\d+,", out)
        assert "config.task.concentration" in advice
        record = json.loads((tmp_path / "out" / "advice.json").read_text())
        similarities = record["similarities"]
        assert similarities["within_low"] <= similarities["within"] <= 1
        assert 0 <= similarities["between"] <= 1
        assert "command" not in record
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            "advice.json",
            "instances.png",
        }

    def test_costs_come_from_a_compiled_step(self, run, monkeypatch, capsys):
        _, out = advised(capsys, "--workdir", run)
        line = (
            r"training: 8 images of 32 x 32 take 0.0\d+ GiB of the .* s; 3 steps take"
        )
        assert re.search(line, out)
        monkeypatch.setattr(_advise, "_free_bytes", lambda: 2**10)
        _, out = advised(capsys, "--workdir", run)
        line = (
            r"of the 9.54e-07 GiB that are free: set config.loader.images_per_device to"
        )
        assert re.search(line, out)

    def test_a_task_without_mean_shift_is_refused(self, run, monkeypatch, capsys):
        monkeypatch.setattr(Proposals, "readoff", None)
        line = refused(capsys, "--workdir", run, "--no-costs")
        assert "must be a run that groups an embedding by mean shift" in line


def test_concentrations_within_the_bounds_find_the_instances_and_others_do_not():
    """A background and seven instances: too blunt melts them, too sharp breaks them."""
    sizes = [600] + [40] * 7
    labels = np.repeat(np.arange(8), sizes)
    noise = 0.06 * jax.random.normal(jax.random.key(0), (len(labels), 32))
    x = sphere.l2_normalize(jnp.eye(32)[labels] + noise)
    similarity = np.asarray(0.5 * (1 + x @ x.T))
    weights = 1.0 / np.take(sizes, labels)
    same = labels[:, None] == labels
    off = ~np.eye(len(labels), dtype=bool)

    def quantile(mask, share):
        values, weight = similarity[mask], np.outer(weights, weights)[mask]
        order = np.argsort(values)
        total = np.cumsum(weight[order])
        return float(values[order][np.searchsorted(total, share * total[-1])])

    low, high = _advise.concentration_bounds(
        within=quantile(same & off, 0.5),
        within_low=quantile(same & off, 0.1),
        between=quantile(~same, 0.95),
        instance=40,
        largest=600,
    )
    assert low < high

    def groups(concentration):
        modes = sphemb.gbms(x, concentration=concentration, num_steps=20)
        return int(sphemb.label_modes(modes, max_groups=400).num_groups)

    assert groups(low) == groups((low * high) ** 0.5) == groups(high) == 8
    assert groups(low / 4) < 8 < groups(16 * high)


class TestMistakes:
    def test_a_folder_or_a_run_is_wanted(self, folder, run, capsys):
        assert "give a folder of images" in refused(capsys)
        assert "or --workdir of a run" in refused(capsys, folder, "--workdir", run)

    def test_a_config_without_a_folder_is_named(self, folder, capsys):
        line = refused(capsys, folder, "--config=digits", "--no-costs")
        assert "got digits with config.data.name digits" in line

    def test_a_run_keeps_its_configuration(self, run, capsys):
        line = refused(capsys, "--workdir", run, "--config.task.margin=.5")
        assert "brings its own configuration" in line

    def test_results_are_not_overwritten_unasked(self, folder, tmp_path, capsys):
        (tmp_path / "advice.json").write_text("mine")
        line = refused(capsys, folder, "--no-costs", "--out", tmp_path)
        assert "exists already: give --overwrite" in line
        assert (tmp_path / "advice.json").read_text() == "mine"

    def test_masks_without_instances_say_where_to_look(self, tmp_path, capsys):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir()
            for name in "abc":
                Image.new("L", (32, 32)).save(tmp_path / kind / f"{name}.png")
        assert "sphemb check-data lists" in refused(capsys, tmp_path, "--no-costs")

    def test_the_folder_is_given_once(self, folder, capsys):
        line = refused(capsys, folder, "--config.data.void=255", "--no-costs")
        assert "give void as an argument" in line
