"""What a run leaves behind in its process: no threads, and no open files."""

import gc
import os
import pathlib
import threading

import jax
import numpy as np
import pytest

from sphemb.training import train
from tests.tiny import tiny_config

FILES = pathlib.Path("/proc/self/fd")


def scored(trained, split):
    return {"sum": float(sum(np.abs(x).sum() for x in jax.tree.leaves(trained.params)))}


def left(config, workdir):
    """Threads and open files of this process after one more run."""
    train(config, workdir, evaluate=scored)
    jax.clear_caches()  # compiled programs hold their run, and so its data file
    gc.collect()
    names = sorted(thread.name for thread in threading.enumerate())
    return names, sorted(
        os.readlink(file) for file in FILES.iterdir() if file.is_symlink()
    )


@pytest.mark.skipif(not FILES.is_dir(), reason="open files are read from /proc")
@pytest.mark.nightly
def test_one_run_more_leaves_no_thread_and_no_open_file_more(drawings_dir, tmp_path):
    config = tiny_config(drawings_dir)
    config.train.update(num_steps=4, log_every=2, checkpoint_every=1, eval_every=2)
    left(config, tmp_path / "first")  # what libraries keep for good
    before = left(config, tmp_path / "second")
    assert left(config, tmp_path / "third") == before
