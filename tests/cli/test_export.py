"""A run as one file: what JAX alone makes of it is what the run predicts."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb.cli import main
from sphemb.tasks import Proposals, named_arrays
from sphemb.training import load_model, load_run, train
from tests.tiny import tiny_config

SIZES = ((2, 16, 24), (1, 24, 20))
READER = """
import pathlib, sys
import jax, numpy as np
from jax import export

folder = pathlib.Path(sys.argv[1])
exported = export.deserialize((folder / "predict.jaxexport").read_bytes())
given = np.load(folder / "given.npz")
found = {}
for i in range(len(given) // 2):
    maps = exported.call(given[f"image{i}"], given[f"mask{i}"])
    found |= {f"{name}{i}": np.asarray(value) for name, value in maps.items()}
np.savez(folder / "found.npz", **found)
print(sorted({"flax", "sphemb", "optax", "orbax", "grain"} & set(sys.modules)))
"""


class OnHost(Proposals):
    """Predicts with NumPy."""

    def predict(self, apply, state, batch):
        return np.asarray(super().predict(apply, state, batch).labels)


@pytest.fixture(scope="module")
def workdir(drawings_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    config = tiny_config(drawings_dir)
    config.train.num_steps = 1
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
    """An export for open sizes, and images of which some parts are padding."""
    out = tmp_path_factory.mktemp("exported") / "out"
    bounds = ["--smallest", "16", "--largest", "24"]
    main(["export", "--workdir", str(workdir), "--out", str(out), *bounds])
    rng = np.random.default_rng(0)
    arrays = {}
    for i, size in enumerate(SIZES):
        arrays[f"image{i}"] = rng.random((*size, 3), np.float32)
        arrays[f"mask{i}"] = np.ones(size, bool)
        arrays[f"mask{i}"][:, -3:] = False
    np.savez(out / "given.npz", **arrays)
    return out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(["export", *map(str, arguments)])
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_jax_alone_gives_the_labels_that_the_run_predicts(workdir, folder):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)],
        cwd=folder,
        env=environment | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    given, found = np.load(folder / "given.npz"), np.load(folder / "found.npz")
    trained = load_run(workdir)
    for i in range(len(SIZES)):
        batch = {
            "image": jnp.asarray(given[f"image{i}"]),
            "mask": jnp.asarray(given[f"mask{i}"]),
        }
        task = trained.experiment.task
        found_here = task.predict(trained.apply, trained.task_state, batch)
        wanted = named_arrays(found_here)
        assert int(wanted["num_groups"].min()) > 1
        assert (wanted["labels"] == -1).any()
        for name in ("labels", "num_groups", "background"):
            np.testing.assert_array_equal(found[f"{name}{i}"], wanted[name])
        np.testing.assert_allclose(
            found[f"embedding{i}"], wanted["embedding"], atol=1e-5
        )


def test_the_description_says_what_goes_in_and_comes_out(folder):
    told = json.loads((folder / "export.json").read_text())
    assert told["inputs"]["image"]["shape"] == ["b", "4*h", "4*w", 3]
    assert told["inputs"]["image"]["dtype"] == "float32"
    assert told["inputs"]["mask"] | {"values": ""} == {
        "shape": ["b", "4*h", "4*w"],
        "dtype": "bool",
        "values": "",
    }
    assert told["outputs"]["labels"]["shape"] == ["b", "4*h", "4*w"]
    assert told["outputs"]["embedding"]["shape"] == ["b", "4*h", "4*w", 4]
    assert told["platforms"] == ["cpu", "cuda", "tpu"]
    assert told["stride"] == 4
    assert told["task"] == "Proposals"
    assert told["step"] == 1
    assert told["versions"]["jax"] == jax.__version__
    assert (folder / told["file"]).is_file()


def test_a_size_beyond_the_bounds_is_refused_when_it_is_called(folder):
    content = (folder / "predict.jaxexport").read_bytes()
    exported = jax.export.deserialize(bytearray(content))
    with pytest.raises(ValueError, match="refining shapes"):
        exported.call(np.zeros((1, 64, 16, 3), np.float32), np.ones((1, 64, 16), bool))


def test_one_size_alone_can_be_exported(workdir, tmp_path):
    flags = ["--size", "16", "20", "--platforms", "cpu"]
    main(["export", "--workdir", str(workdir), "--out", str(tmp_path), *flags])
    told = json.loads((tmp_path / "export.json").read_text())
    assert told["inputs"]["image"]["shape"] == ["b", 16, 20, 3]
    assert told["platforms"] == ["cpu"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "16", "18"], "size must be multiples of 4"),
        (["--smallest", "32", "--largest", "32"], "smallest must be below largest"),
        (["--largest", "0"], "largest must be >= 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(workdir, tmp_path, capsys, flags, words):
    out = tmp_path / "out"
    assert words in refused(capsys, "--workdir", workdir, "--out", out, *flags)
    assert not out.exists()


def test_results_are_not_overwritten_unasked(workdir, folder, capsys):
    before = (folder / "predict.jaxexport").read_bytes()
    line = refused(capsys, "--workdir", workdir, "--out", folder)
    assert "model.safetensors exists already: give --overwrite" in line
    assert (folder / "predict.jaxexport").read_bytes() == before


def test_the_model_of_a_task_that_jax_cannot_lower_is_written(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["task"]["name"] = f"{__name__}:OnHost"
    (run / "config.json").write_text(json.dumps(config))
    flags = ["--size", "16", "16", "--platforms", "cpu", "--out", str(tmp_path / "out")]
    with pytest.raises(jax.errors.TracerArrayConversionError) as error:
        main(["export", "--workdir", str(run), *flags])
    assert error.value.__notes__[-1].endswith("predict.jaxexport is not")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert isinstance(
        load_model(tmp_path / "out/model.safetensors").experiment.task, OnHost
    )


def test_the_model_file_is_the_run(workdir, folder):
    run, model = load_run(workdir), load_model(folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, model.params, run.params)
    assert (model.step, model.experiment.task) == (run.step, run.experiment.task)
