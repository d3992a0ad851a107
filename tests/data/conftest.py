"""Tiny handwriting for the tests of this room."""

from __future__ import annotations

import numpy as np
import pytest

from sphemb.data import Handwriting, load_handwriting


@pytest.fixture(scope="session")
def bundled() -> dict[str, Handwriting]:
    """The digits that come with scikit-learn."""
    return load_handwriting("sklearn")


@pytest.fixture
def mnist_arrays() -> dict[str, np.ndarray]:
    """What an mnist.npz holds, with 24 training digits and 4 test digits."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(256, size=(24, 28, 28)).astype(np.uint8),
        "y_train": rng.integers(10, size=24).astype(np.uint8),
        "x_test": rng.integers(256, size=(4, 28, 28)).astype(np.uint8),
        "y_test": rng.integers(10, size=4).astype(np.uint8),
    }


@pytest.fixture
def mnist_path(tmp_path, mnist_arrays):
    """An mnist.npz of those arrays."""
    path = tmp_path / "mnist.npz"
    np.savez(path, **mnist_arrays)
    return path
