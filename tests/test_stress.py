"""Readers fed with damaged files; ``python -m stress.fuzz`` has many more."""

import pytest

from stress.fuzz import READERS, fuzz


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    failures = [what for _, what in fuzz(name, inputs=150, seed=1, folder=tmp_path)]
    assert failures == []


@pytest.mark.parametrize("name", READERS)
def test_the_good_files_are_good(name, tmp_path):
    if name in ("configurations", "weights by name"):
        pytest.skip("a part of a run, or of a backbone's weights")
    read, good = READERS[name]
    if name == "weights":
        good = good[:1]  # the others are pickles of no weights
    for number, (suffix, content) in enumerate(good):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / (suffix[1:] if suffix.startswith("/") else f"a{suffix}")
        path.write_bytes(content)
        read(path)
