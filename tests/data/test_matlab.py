"""The reader of MATLAB files against SciPy's, and against files that are wrong."""

import io

import numpy as np
import pytest
import scipy.io

from sphemb.data.files import FileError, _matlab, load_variable, reading_matlab

RNG = np.random.default_rng(0)


def saved(content, **options):
    file = io.BytesIO()
    scipy.io.savemat(file, content, **options)
    return file.getvalue()


def assert_same(found, expected):
    """What we read against what SciPy reads."""
    if expected.dtype.names:
        assert found.shape == expected.shape
        for place in np.ndindex(found.shape):
            assert set(found[place]) == set(expected.dtype.names)
            for field in expected.dtype.names:
                assert_same(found[place][field], expected[place][field])
    elif expected.dtype == object:
        assert found.shape == expected.shape
        for place in np.ndindex(found.shape):
            assert_same(found[place], expected[place])
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("compress", [True, False])
class TestAgainstScipy:
    @pytest.mark.parametrize(
        "kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "bool"]
    )
    def test_numbers_of_every_kind(self, kind, compress):
        for shape in ((3, 4), (1, 1), (2, 3, 4), (0, 3)):
            values = RNG.integers(100, size=shape).astype(kind)
            data = saved({"a": 1.0, "x": values}, do_compression=compress)
            found = load_variable(data, "x")
            assert_same(found, scipy.io.loadmat(io.BytesIO(data))["x"])

    def test_cells_and_structures_within_each_other(self, compress):
        cells = np.empty((2, 3), object)
        for i, place in enumerate(np.ndindex(cells.shape)):
            cells[place] = RNG.normal(size=(i, 2))
        record = {"cells": cells, "number": 3.5, "inner": {"a": np.arange(6)}}
        records = np.zeros((2, 1), dtype=[("u", "O"), ("v", "O")])
        for i in range(2):
            records[i, 0] = (np.full((2, 2), i), cells)
        for value in (cells, record, records):
            data = saved({"x": value}, do_compression=compress)
            found = load_variable(data, "x")
            assert_same(found, scipy.io.loadmat(io.BytesIO(data))["x"])

    def test_text_and_sparse_matrices_are_left_out(self, compress):
        record = {"text": "hello", "sparse": scipy.sparse.eye(3, format="csc"), "n": 2}
        data = saved({"x": record}, do_compression=compress)
        found = load_variable(data, "x")[0, 0]
        assert found["text"] is None
        assert found["sparse"] is None
        assert found["n"] == 2


def refused(data, name="x"):
    with pytest.raises(FileError) as error, reading_matlab("a.mat", "a mask"):
        load_variable(data, name)
    assert str(error.value).startswith("a.mat cannot be read as a mask: ")
    assert "\n" not in str(error.value)
    return str(error.value)


class TestRefusals:
    def test_other_versions_are_named(self):
        assert "save it with -v7" in refused(b"MATLAB 7.3 MAT-file" + bytes(200))
        assert "MATLAB file of version 5" in refused(saved({"x": 1.0}, format="4"))
        assert "MATLAB file of version 5" in refused(b"")

    def test_a_missing_variable_is_named_with_those_that_are_there(self):
        message = refused(saved({"y": 1.0, "z": 2.0}))
        assert "it has no x, but y, z" in message

    @pytest.mark.parametrize("compress", [True, False])
    def test_a_file_may_end_anywhere(self, compress):
        data = saved({"x": {"a": np.arange(50), "b": [1, 2]}}, do_compression=compress)
        for end in range(128, len(data) - 8, 7):
            refused(data[:end])

    def test_a_bomb_is_refused_before_it_is_unpacked(self, monkeypatch):
        monkeypatch.setattr(_matlab, "_MOST_BYTES", 1000)
        message = refused(saved({"x": np.zeros((100, 100))}, do_compression=True))
        assert "holds more than 1000 bytes" in message

    def test_sizes_beyond_the_file_set_nothing_aside(self):
        data = bytearray(saved({"x": np.ones((3, 4))}))
        place = data.index(np.array([3, 4], "<i4").tobytes())
        data[place : place + 8] = np.array([2**31 - 1, 2**31 - 1], "<i4").tobytes()
        assert "must not have 12 numbers" in refused(bytes(data))

    def test_nesting_has_an_end(self):
        cell = np.empty((1, 1), object)
        cell[0, 0] = 1.0
        for _ in range(30):
            outer = np.empty((1, 1), object)
            outer[0, 0] = cell
            cell = outer
        assert "nested more than 16 deep" in refused(saved({"x": cell}))

    def test_damaged_compression_is_told(self):
        data = bytearray(saved({"x": np.arange(1000)}, do_compression=True))
        data[140] ^= 255
        refused(bytes(data))
