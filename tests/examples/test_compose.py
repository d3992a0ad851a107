"""The mean shift inside other people's models: each example learns, and says so."""

from __future__ import annotations

import pytest

from examples import (
    compose_linen,
    compose_nnx,
    compose_plain,
    compose_points,
    compose_series,
)


@pytest.mark.parametrize(
    ("example", "steps"),
    [
        (compose_plain, 40),
        pytest.param(compose_nnx, 25, marks=pytest.mark.nightly),
        pytest.param(compose_linen, 60, marks=pytest.mark.nightly),
        pytest.param(compose_series, 30, marks=pytest.mark.nightly),
    ],
    ids=["plain", "nnx", "linen", "series"],
)
def test_a_few_steps_lower_the_loss_and_part_the_groups(example, steps, capsys):
    found = example.main(steps=steps)
    assert found["last loss"] < 0.8 * found["first loss"]
    assert 0.1 < found["adjusted Rand index"] <= 1.0
    printed = capsys.readouterr().out
    assert f"last loss: {found['last loss']:.3f}" in printed


def test_all_faces_of_a_solid_are_found_by_its_normals(tmp_path):
    path = tmp_path / "faces.png"
    found = compose_points.main(num_points=900, out=path)
    assert found["faces"] == 12
    assert found["adjusted Rand index"] > 0.8
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.nightly
def test_the_regimes_of_a_signal_are_drawn(tmp_path):
    path = tmp_path / "series.png"
    compose_series.main(steps=2, out=path)
    assert path.read_bytes().startswith(b"\x89PNG")
