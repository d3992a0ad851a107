"""What ``import sphemb`` and the help of the command cost."""

import subprocess
import sys

import pytest

FRAMEWORKS = (
    *("flax", "optax", "orbax", "grain", "tensorflow", "tensorflow_datasets"),
    *("ml_collections", "matplotlib", "PIL", "sklearn", "cv2", "tqdm", "tensorboardX"),
)


def loaded(code: str) -> set[str]:
    """The packages that a new process has loaded after some lines of code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_functions_of_layer_0_load_jax_and_numpy_and_no_framework():
    code = "import sphemb; assert all(getattr(sphemb, n) for n in sphemb.__all__)"
    found = loaded(code)
    assert {"jax", "numpy"} <= found
    assert not found & set(FRAMEWORKS)


def loaded_by_verb(words: str) -> set[str]:
    code = f"""
from sphemb.cli import main
try:
    main({words.split()})
except SystemExit:
    pass
"""
    return loaded(code)


@pytest.mark.parametrize("words", ["-h", "predict -h", "score instances -h", "--vers"])
def test_help_and_wrong_flags_load_neither_frameworks_nor_jax(words):
    found = loaded_by_verb(words)
    assert not found & {"jax", "numpy", "scipy", "absl", *FRAMEWORKS}


def test_the_list_of_models_loads_neither_frameworks_nor_jax():
    found = loaded_by_verb("models")
    assert "safetensors" in found
    assert not found & {"jax", "scipy", "absl", *FRAMEWORKS}


def test_the_other_packages_load_on_first_access():
    code = (
        "import sys, sphemb; assert 'sphemb.models' not in sys.modules; "
        "print(sphemb.models.__name__, 'tasks' in dir(sphemb), "
        "hasattr(sphemb, 'nothing'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "sphemb.models True False"


def test_every_public_name_has_a_docstring():
    import sphemb

    missing = [
        name
        for name in sphemb.__all__
        if name not in ("VOID", "__version__") and not getattr(sphemb, name).__doc__
    ]
    assert missing == []
