"""MATLAB files: read as SciPy reads them; a damaged one is one line."""

import io
import os
import signal

import numpy as np
import pytest
import scipy.io

from sphemb.data.files import FileError, _matlab, load_variable, reading_matlab


def saved(content, **options):
    file = io.BytesIO()
    scipy.io.savemat(file, content, **options)
    return file.getvalue()


def refused(data, name="x"):
    with pytest.raises(FileError) as error, reading_matlab("a.mat", "a mask"):
        load_variable(data, name)
    assert str(error.value).startswith("a.mat cannot be read as a mask: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("compress", [True, False])
class TestFiles:
    def test_numbers_cells_and_structures_are_read(self, compress):
        cells = np.empty((1, 2), object)
        for i in range(2):
            cells[0, i] = {"u": np.full((2, 3), i, "u2"), "text": "hello"}
        data = saved({"a": 1.0, "x": cells}, do_compression=compress)
        assert load_variable(data, "a").tolist() == [[1.0]]
        for i, cell in enumerate(load_variable(data, "x").ravel()):
            np.testing.assert_array_equal(cell[0, 0]["u"], np.full((2, 3), i))

    def test_a_file_may_end_anywhere(self, compress):
        data = saved({"x": {"a": np.arange(50), "b": [1, 2]}}, do_compression=compress)
        for end in (*range(128, len(data) - 8, 31), len(data) - 1):
            refused(data[:end])


class TestRefusals:
    def test_other_versions_are_named(self):
        assert "save it with -v7" in refused(b"MATLAB 7.3 MAT-file" + bytes(200))
        assert "MATLAB file of version 5" in refused(saved({"x": 1.0}, format="4"))
        assert "MATLAB file of version 5" in refused(b"")

    def test_a_missing_variable_is_named_with_the_others(self):
        message = refused(saved({"y": 1.0, "z": 2.0}))
        assert "it has no x, but y, z" in message

    def test_sizes_beyond_the_file_are_refused(self):
        data = bytearray(saved({"x": np.ones((3, 4))}))
        place = data.index(np.array([3, 4], "<i4").tobytes())
        data[place : place + 8] = np.array([2**31 - 1, 2**31 - 1], "<i4").tobytes()
        refused(bytes(data))

    def test_damaged_compression_is_refused(self):
        data = bytearray(saved({"x": np.arange(1000)}, do_compression=True))
        data[140] ^= 255
        refused(bytes(data))

    def test_a_crash_and_a_file_that_takes_too_long_are_one_line(self, monkeypatch):
        data = saved({"x": np.arange(4)})
        load_variable(data, "x")
        os.kill(_matlab._READER._process.pid, signal.SIGKILL)
        assert "SciPy crashed, or took more than 60 s" in refused(data)
        monkeypatch.setattr(_matlab, "_SECONDS", 0.0)
        assert "took more than 0 s" in refused(data)  # while it starts
        monkeypatch.undo()
        assert load_variable(data, "x").tolist() == [[0, 1, 2, 3]]
