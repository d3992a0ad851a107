"""Runs that are stopped, killed, or find their files damaged, and go on."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from sphemb import InputError
from sphemb.cli import one_line_errors
from sphemb.training import PreemptedError, load_run, read_log, train
from tests.runs import CLOCK
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]


def config_of(drawings_dir):
    """Six steps; records are means of two, and every third is saved."""
    config = tiny_config(drawings_dir)
    config.train.update(num_steps=6, log_every=2, checkpoint_every=3, eval_every=1)
    return config


def scored(trained, split):
    return {"sum": float(sum(np.abs(x).sum() for x in jax.tree.leaves(trained.params)))}


@pytest.fixture(scope="module")
def unbroken(drawings_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stops") / "unbroken"
    return workdir, train(config_of(drawings_dir), workdir, evaluate=scored)


def records(workdir):
    """The log but for the clock."""
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in read_log(workdir)]


def assert_same(workdir, trained, unbroken):
    jax.tree.map(np.testing.assert_array_equal, trained.params, unbroken[1].params)
    order = sorted(records(workdir), key=lambda r: (r["step"], "loss" not in r))
    expected = sorted(records(unbroken[0]), key=lambda r: (r["step"], "loss" not in r))
    assert order == expected


class TestTermination:
    @pytest.mark.parametrize(
        "step",
        [
            1,
            pytest.param(2, marks=pytest.mark.nightly),
            pytest.param(3, marks=pytest.mark.nightly),
            pytest.param(4, marks=pytest.mark.nightly),
        ],
    )
    def test_the_step_being_computed_is_saved_and_nothing_is_lost(
        self, step, unbroken, drawings_dir, tmp_path
    ):
        assert threading.current_thread() is threading.main_thread()

        def terminate(trained, split):
            if trained.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return scored(trained, split)

        workdir, config = tmp_path / "run", config_of(drawings_dir)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(PreemptedError, match=rf"after step {step + 1}, which is"):
            train(config, workdir, evaluate=terminate)
        assert signal.getsignal(signal.SIGTERM) == before
        assert load_run(workdir).step == step + 1
        resumed = train(config, workdir, evaluate=scored)
        assert_same(workdir, resumed, unbroken)

    def test_the_exit_status_says_so(self, capsys):
        with pytest.raises(SystemExit) as stop, one_line_errors():
            raise PreemptedError("stopped by SIGTERM after step 3")
        assert stop.value.code == 143
        assert capsys.readouterr().err == "stopped by SIGTERM after step 3\n"


class TestKilling:
    @pytest.mark.nightly
    def test_a_killed_run_resumes_exactly(self, unbroken, tmp_path):
        # The same drawings, wherever they are kept.
        command = [
            *(sys.executable, "-c"),
            "import sys\n"
            "from sphemb.training import load_config, load_run, train\n"
            "from tests.training.test_stops import scored\n"
            "def told(trained, split):\n"
            "    print('step', trained.step, flush=True)\n"
            "    return scored(trained, split)\n"
            "config = load_config(sys.argv[1])\n"
            "train(config, sys.argv[2], evaluate=told)\n",
            str(unbroken[0]),
            str(tmp_path / "run"),
        ]
        for wanted in (4, 5):
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, cwd=ROOT
            ) as process:
                assert process.stdout
                for line in process.stdout:
                    if line == f"step {wanted}\n":
                        process.send_signal(signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        assert_same(tmp_path / "run", load_run(tmp_path / "run"), unbroken)


class TestDamage:
    def damaged(self, unbroken, tmp_path, *steps):
        workdir = shutil.copytree(unbroken[0], tmp_path / "damaged")
        for step in steps:
            for path in (workdir / "checkpoints" / str(step) / "state").rglob("*"):
                if path.is_file():
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return workdir

    def test_the_checkpoint_before_is_taken_and_the_damaged_one_named(
        self, unbroken, drawings_dir, tmp_path, capfd
    ):
        workdir = self.damaged(unbroken, tmp_path, 6)
        assert load_run(workdir).step == 3
        told = capfd.readouterr().err
        assert told.count("warning: ") == 1
        assert "checkpoints/6 cannot be read, it is damaged" in told
        assert (workdir / "checkpoints" / "6").is_dir()
        resumed = train(config_of(drawings_dir), workdir, evaluate=scored)
        assert_same(workdir, resumed, unbroken)
        assert (workdir / "damaged" / "6.0" / "state").is_dir()
        assert load_run(workdir).step == 6

    def test_where_none_is_whole_one_line_says_so(
        self, unbroken, drawings_dir, tmp_path
    ):
        workdir = self.damaged(unbroken, tmp_path, 3, 6)
        message = r"checkpoint .*/3 cannot be read, it is damaged"
        for call in (load_run, lambda w: train(config_of(drawings_dir), w)):
            with pytest.raises(InputError, match=message):
                call(workdir)
        assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"3", "6"}

    def test_a_flipped_bit_is_found(self, unbroken, tmp_path, capfd):
        workdir = shutil.copytree(unbroken[0], tmp_path / "flipped")
        files = [
            path
            for path in (workdir / "checkpoints" / "6" / "state").rglob("*")
            if path.is_file()
        ]
        largest = max(files, key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 4
        largest.write_bytes(content)
        assert load_run(workdir).step == 3
        assert "checkpoints/6 cannot be read" in capfd.readouterr().err


class TestFullDisk:
    def test_it_is_named_and_the_last_whole_checkpoint_stays(
        self, drawings_dir, tmp_path
    ):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a small disk cannot be mounted here: only root can")
        try:
            config = config_of(drawings_dir)
            config.train.num_steps = 12
            filler = disk / "filler"

            def fill(trained, split):
                if trained.step == 4:
                    while not (disk / "run" / "checkpoints" / "3").is_dir():
                        time.sleep(0.1)  # it is written in the background
                    free = shutil.disk_usage(disk).free
                    filler.write_bytes(b"x" * max(0, free - 2**16))
                return {}

            message = r"checkpoint cannot be written to .*; .* is of step 3: .*space"
            with pytest.raises(InputError, match=message):
                train(config, disk / "run", evaluate=fill)
            filler.unlink()
            assert load_run(disk / "run").step == 3
            assert train(config, disk / "run", evaluate=lambda *_: {}).step == 12
        finally:
            subprocess.run(["umount", str(disk)], check=True)
