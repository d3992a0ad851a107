"""MATLAB files of version 5, read so that whatever is wrong with one is said in a line.

The reader is our own and strict: every length is checked against what is there before
anything is set aside. `scipy.io.loadmat` crashes the process on some damaged files
(``python -m benchmarks.fuzz --readers boundaries`` finds such in minutes).
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from sphemb.data.files._findings import FileError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
# Numbers by the code of their type in an element.
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
# Arrays of numbers by the code of their class.
_CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"},
    **{14: "i8", 15: "u8"},
}
_CELL, _STRUCTURE = 1, 2
_DEEPEST = 16  # cells in structures in cells ..
_MOST_BYTES = 2**30  # of a file that is unpacked


class _Element(NamedTuple):
    """One element of a file: the code of its type, and its bytes."""

    kind: int
    data: memoryview


class _Variable(NamedTuple):
    """An array with its name; the value is None where it is of no kind that is read."""

    name: str
    value: Any


@contextlib.contextmanager
def reading_matlab(who: str, what: str) -> Iterator[None]:
    """Turns what goes wrong inside into a complaint.

    Args:
        who: what to call the file.
        what: what it should be.

    Raises:
        FileError: something went wrong; a `FileError` stays as it is.
    """
    try:
        yield
    except FileError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{who} cannot be read as {what}: {reason}") from error


def load_variable(data: bytes, name: str) -> Any:
    """Reads one variable of a MATLAB file.

    Args:
        data: the file's bytes.
        name: of the variable.

    Returns:
        Numbers as an array of MATLAB's shape; a cell array as an array of objects; an
        array of structures as an array of dictionaries, by field. None stands for what
        is of another kind: text, functions, sparse matrices.

    Raises:
        ValueError: there is no such variable, or the file is damaged or of another
            version.

    References:
        The MathWorks, "MAT-File Format", level 5.
    """
    if data[:10] == b"MATLAB 7.3":
        raise ValueError("it is of version 7.3: save it with -v7 in MATLAB")
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("it does not begin as a MATLAB file of version 5")
    held = []
    for element in _elements(memoryview(data)[_HEADER:], order):
        if element.kind == _COMPRESSED:
            unpacked = _elements(memoryview(_unpacked(element.data)), order)
            element = next(unpacked, element)
        if element.kind != _MATRIX:
            continue
        found = _read_matrix(element.data, order, depth=0)
        if found.name == name:
            return found.value
        held.append(found.name)
    raise ValueError(f"it has no {name}, but {', '.join(held) or 'nothing'}")


def _unpacked(data: memoryview) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"it holds more than {_MOST_BYTES} bytes")
    return content


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("it ends within an element")
        kind, length = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a short element, in the eight bytes of a tag
            kind, length = kind & 0xFFFF, kind >> 16
            start, end = place + 4, place + 8
            if length > 4:
                raise ValueError(f"a short element must have up to 4 bytes: {length}")
        else:
            start = place + 8
            padding = 0 if kind == _COMPRESSED else -length % 8
            end = start + length + padding
        if start + length > len(data):
            raise ValueError(f"an element of {length} bytes is cut short")
        yield _Element(kind, data[start : start + length])
        place = end


def _numbers(element: _Element, order: str) -> np.ndarray:
    if element.kind not in _NUMBERS:
        raise ValueError(f"numbers of type {element.kind} are not known")
    return np.frombuffer(element.data, np.dtype(order + _NUMBERS[element.kind]))


def _read_matrix(data: memoryview, order: str, *, depth: int) -> _Variable:
    if not data:
        return _Variable("", np.zeros((0, 0)))  # so MATLAB writes an empty array
    if depth > _DEEPEST:
        raise ValueError(f"arrays are nested more than {_DEEPEST} deep")
    parts = _elements(data, order)

    def part() -> _Element:
        found = next(parts, None)
        if found is None:
            raise ValueError("an array lacks a part")
        return found

    flags = _numbers(part(), order)
    shape = tuple(int(side) for side in _numbers(part(), order))
    if not len(flags) or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array must have a kind and two or more sides: {shape}")
    name = bytes(part().data).decode("latin-1")
    kind, size = int(flags[0]) & 0xFF, math.prod(shape)

    def matrices(count: int) -> list[Any]:
        # Each takes eight bytes at the least.
        if count > len(data) // 8:
            raise ValueError(f"an array of {count} arrays is cut short")
        found = []
        for _ in range(count):
            element = part()
            if element.kind != _MATRIX:
                raise ValueError(f"an array must hold arrays, got {element.kind}")
            found.append(_read_matrix(element.data, order, depth=depth + 1).value)
        return found

    if kind in _CLASSES:
        values = _numbers(part(), order)
        if len(values) != size:
            raise ValueError(f"an array of {shape} must not have {len(values)} numbers")
        # MATLAB keeps numbers in the smallest type that they fit in.
        with np.errstate(invalid="ignore"):
            array = values.astype(_CLASSES[kind]).reshape(shape, order="F")
        return _Variable(name, array)
    if kind == _CELL:
        return _Variable(name, _objects(matrices(size), shape))
    if kind == _STRUCTURE:
        width = _numbers(part(), order)
        text = bytes(part().data)
        if len(width) != 1 or width[0] < 1 or len(text) % int(width[0]):
            raise ValueError("the names of a structure's fields are damaged")
        step = int(width[0])
        fields = [
            text[i : i + step].split(b"\0")[0].decode("latin-1")
            for i in range(0, len(text), step)
        ]
        found = iter(matrices(size * len(fields)))
        records = [{field: next(found) for field in fields} for _ in range(size)]
        return _Variable(name, _objects(records, shape))
    return _Variable(name, None)


def _objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape, order="F")
