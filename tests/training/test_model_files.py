"""A trained network as one file: what comes back, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

import sphemb
from sphemb import InputError
from sphemb.configs import picie_digits
from sphemb.tasks import Picie
from sphemb.training import (
    Experiment,
    ModelCard,
    Trained,
    load_card,
    load_model,
    save_model,
)
from tests.tiny import tiny_config

CARD = ModelCard(summary="digits", scores={"recall@0.5": 0.25})


def untrained(config, names=()):
    experiment = Experiment(config)
    trained = Trained.of(experiment, experiment.init_state(), names)
    return dataclasses.replace(trained, step=7)


@pytest.fixture(scope="module")
def trained(drawings_dir):
    return untrained(tiny_config(drawings_dir), ("no", "yes"))


@pytest.fixture
def file(trained, tmp_path):
    save_model(trained, tmp_path / "a.safetensors", card=CARD)
    return tmp_path / "a.safetensors"


def stored(trained):
    parts = trained.params, trained.batch_stats, trained.task_state
    return [np.asarray(leaf) for leaf in jax.tree.leaves(parts)]


def test_what_is_saved_comes_back(trained, file, drawings_dir):
    back = load_model(file)
    assert (back.step, back.class_names) == (7, ("no", "yes"))
    jax.tree.map(np.testing.assert_array_equal, stored(back), stored(trained))
    assert back.experiment.task == trained.experiment.task
    assert load_card(file) == CARD
    assert str(drawings_dir).encode() not in file.read_bytes()


def test_half_precision_rounds_what_is_not_an_integer(drawings_dir, tmp_path):
    config = picie_digits.get_config()
    config.data.data_dir = str(drawings_dir)
    whole = untrained(config)
    assert isinstance(whole.experiment.task, Picie)
    assert jax.tree.leaves(whole.task_state)
    save_model(whole, tmp_path / "half.safetensors", dtype="float16")
    back = load_model(tmp_path / "half.safetensors")

    def rounded(leaf):
        leaf = np.asarray(leaf)
        floating = np.issubdtype(leaf.dtype, np.floating)
        return leaf.astype(np.float16).astype(leaf.dtype) if floating else leaf

    jax.tree.map(
        np.testing.assert_array_equal,
        stored(back),
        jax.tree.map(rounded, stored(whole)),
    )
    assert not jax.tree.all(jax.tree.map(np.array_equal, back.params, whole.params))
    large = jax.tree.map(lambda leaf: leaf + 1e5, whole.params)
    with pytest.raises(InputError, match="must be finite as float16"):
        save_model(
            dataclasses.replace(whole, params=large),
            tmp_path / "large.safetensors",
            dtype="float16",
        )
    assert not (tmp_path / "large.safetensors").exists()


def test_a_training_starts_from_a_file(trained, file, drawings_dir):
    config = tiny_config(drawings_dir)
    config.train.init_from, config.seed = str(file), 5
    start = Experiment(config).start_state()
    jax.tree.map(np.testing.assert_array_equal, start.params, trained.params)
    assert int(start.step) == 0


def test_files_of_another_kind_are_refused(trained, file, tmp_path):
    def refused(path, message):
        with pytest.raises(InputError, match=message) as error:
            load_model(path)
        assert "\n" not in str(error.value)

    with safetensors.safe_open(file, "numpy") as content:
        metadata = content.metadata()
        arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    first = sorted(arrays)[0]
    other = tmp_path / "other.safetensors"

    other.write_bytes(file.read_bytes()[:-100])
    refused(other, "must be a file that sphemb export wrote")
    save_file(arrays, other)
    refused(other, "must be a file that sphemb export wrote: it has no configuration")
    save_file({**arrays, first: arrays[first][..., :1]}, other, metadata)
    refused(other, f"must have {first} .* got shape")
    save_file({k: v for k, v in arrays.items() if k != first}, other, metadata)
    refused(other, f"must have {first} .* got nothing")
    save_file({**arrays, "params/more": arrays[first]}, other, metadata)
    refused(other, "has params/more, which its network lacks")
    facts = json.loads(metadata["sphemb"])

    def written_by(version):
        changed = json.dumps({**facts, "version": version})
        save_file(arrays, other, {"sphemb": changed})
        return other

    refused(written_by("9.1.2"), "was written by sphemb 9.1.2, which sphemb .* upgrade")
    refused(written_by(None), "must name a version of sphemb, got None")
    own = sphemb.__version__.rpartition(".")[0]
    assert load_card(written_by(f"{own}.99")) == CARD
    refused(tmp_path / "missing", "model must be .* got '.*missing'")
