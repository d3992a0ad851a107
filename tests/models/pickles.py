"""Writes the files of torch.save by hand, right ones and wrong ones."""

from __future__ import annotations

import struct
import zipfile
from typing import NamedTuple

import numpy as np

KINDS = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte"}


class Global(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Global
    arguments: tuple


class Reference(NamedTuple):
    what: tuple


def dumps(value):
    """A pickle of protocol 2."""
    return b"\x80\x02" + _emit(value) + b"."


def _emit(value):
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if abs(value) < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(16, "little", signed=True)
            return b"\x8a\x10" + data
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return _emit(value.function) + _emit(value.arguments) + b"R"
        case Reference():
            return _emit(value.what) + b"Q"
        case tuple():
            return b"(" + b"".join(map(_emit, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_emit, value)) + b"e"
        case dict():
            pairs = (_emit(k) + _emit(v) for k, v in value.items())
            return b"}(" + b"".join(pairs) + b"u"
    raise TypeError(type(value))


def tensor(key, array, *, legacy=False, **changes):
    """What stands for an array in the pickle; ``changes`` make it wrong."""
    kind = Global("torch", f"{KINDS[array.dtype.str[1:]]}Storage")
    settings = {
        "offset": 0,
        "shape": array.shape,
        "strides": tuple(s // array.itemsize for s in array.strides),
        "size": array.size,
        **changes,
    }
    what = ("storage", kind, key, "cpu", settings["size"])
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"),
        (
            Reference((*what, None) if legacy else what),
            settings["offset"],
            tuple(settings["shape"]),
            tuple(settings["strides"]),
            False,
            Call(Global("collections", "OrderedDict"), ()),
        ),
    )


def write_zip(path, pickle, storages, *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickle)
        archive.writestr("net/version", "3\n")
        for key, array in storages.items():
            archive.writestr(f"net/data/{key}", array.tobytes())
    return path


def write_legacy(path, pickle, storages):
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [*map(dumps, head), pickle, dumps(list(storages))]
    for array in storages.values():
        parts += [struct.pack("<q", array.size), array.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def write_state(path, state, *, legacy=False):
    """A state dict, each array in a storage of its own."""
    arrays = {str(i): np.ascontiguousarray(a) for i, a in enumerate(state.values())}
    tensors = (tensor(key, a, legacy=legacy) for key, a in arrays.items())
    pickle = dumps(dict(zip(state, tensors, strict=True)))
    return (write_legacy if legacy else write_zip)(path, pickle, arrays)
