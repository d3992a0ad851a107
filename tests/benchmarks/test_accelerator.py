"""The script for accelerators, dry: tiny sizes, on a CPU."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accelerator


def results_of(folder, *flags):
    failed = accelerator.main(["--dry", "--out", str(folder), *flags])
    lines = (folder / "results.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert not failed, results
    return results


def test_the_sections_of_mean_shift_pass_dry(tmp_path):
    names = ["ceilings", "numerics", "long_sums", "determinism", "tune", "times", "xla"]
    results = results_of(tmp_path, "--only", *names)
    assert {r["of"] for r in results if r["section"] == "seconds"} == set(names)
    for result in results:
        if result["section"] == "numerics":
            errors = [result[k] for k in ("z", "x", "weights", "kappa", "eta")]
            assert np.max(errors) < 1e-3
        assert result.get("same_bits", True)
        if result["section"] == "long_sums" and "error" in result:
            assert result["error"] < 1e-4


@pytest.mark.nightly
def test_so_do_the_network_and_the_pipeline(tmp_path):
    command = [sys.executable, "-m", "benchmarks.accelerator", "--dry"]
    command += ["--out", str(tmp_path), "--only", "network", "pipeline"]
    # One device, as the script wants.
    subprocess.run(command, check=True, env={**os.environ, "XLA_FLAGS": ""})
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert sum("images_per_s" in line for line in lines) == 2


def test_a_section_without_time_is_named(tmp_path):
    results = results_of(tmp_path, "--limit", "0", "--only", "tune")
    assert results[1]["section"] == "tune"
    assert "skipped" in results[1]
