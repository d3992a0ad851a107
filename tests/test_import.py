"""What ``import sphemb`` costs."""

import subprocess
import sys


def test_the_import_loads_jax_and_numpy_and_no_framework():
    code = (
        "import sys, sphemb; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'flax', 'optax', "
        "'orbax', 'grain', 'tensorflow', 'tensorflow_datasets', 'ml_collections', "
        "'matplotlib', 'PIL', 'sklearn', 'cv2', 'tqdm', 'tensorboardX'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


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
