"""Reads the arrays of PyTorch files without PyTorch, and runs nothing of them.

The formats are the zip archive of ``torch.save``, its predecessor up to torch 1.5, and
safetensors. Memory is taken for what a file holds, not for what it claims to hold.
"""

from __future__ import annotations

import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from sphemb._checks import InputError

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_NAMES = """
    APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINSTRING
    BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE FRAME GLOBAL LONG1 LONG_BINGET
    LONG_BINPUT MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO REDUCE SHORT_BINSTRING
    SHORT_BINUNICODE STACK_GLOBAL STOP TUPLE TUPLE1 TUPLE2 TUPLE3
"""
_STANDARD: Any = pickle._Unpickler
_INSTRUCTIONS = [getattr(pickle, name)[0] for name in _NAMES.split()]
# Some hundred bytes for each tensor; reading takes sixty times as much memory.
_MAX_PICKLE = 4 * 2**20

Storage = Callable[[np.dtype, str, int], np.ndarray]  # of a key and a size


def damaged(path: pathlib.Path, error: Exception | str) -> InputError:
    """The error for a file that its format does not allow, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{path} cannot be read: {error.strerror}")
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path} is damaged or truncated: {reason[:200]}")


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a network by name, in the file's dtype.

    The file is a ``.pth`` or ``.pt`` of ``torch.save``, or a ``.safetensors``. The
    network of a training checkpoint is its entry ``state_dict``, ``model_state_dict``
    or ``model``; ``module.`` before every name is dropped. bfloat16 becomes float32.

    Raises:
        InputError: the file is missing, damaged or of another kind, or holds something
            other than tensors.
    """
    path = pathlib.Path(path)
    try:
        arrays = _read(path)
    except InputError:
        raise
    except Exception as error:  # a damaged file may lead to any
        raise damaged(path, error) from error
    if arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): a for name, a in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.name == "bfloat16":
            arrays[name] = array.astype(np.float32)
    return arrays


def read_archive(path: pathlib.Path) -> dict[str, bytes]:
    """Reads the members of a zip archive, which must not be compressed."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise InputError(
                    f"{path} must be an uncompressed archive, got the compressed "
                    f"member {member.filename[:60]!r}"
                )
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise InputError(f"{path} claims to hold more than its size")
        return {member.filename: archive.read(member) for member in members}


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        start = file.read(9)
        file.seek(0)
        if start[8:] == b"{":
            with safetensors.safe_open(path, framework="numpy") as tensors:
                return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        if start[:1] == b"\x80":
            content = _read_legacy(file, path)
        elif start[:4] == b"PK\x03\x04":
            content = _read_zip(path)
        else:
            raise InputError(
                f"{path} must be a file of torch.save or safetensors, got another kind "
                "of file"
            )
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a state dict, got {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, np.ndarray):
            raise InputError(
                f"{path} must hold a state dict of tensors, got "
                f"{type(tensor).__name__} under {str(name)[:60]!r}"
            )
    return content


def _read_zip(path: pathlib.Path) -> Any:
    members = read_archive(path)
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(
            f"{path} must be a file of torch.save, got a zip archive without data.pkl"
        )
    folder = pickles[0].removesuffix("data.pkl")
    if members.get(f"{folder}byteorder", b"little") != b"little":
        raise InputError(f"{path} must be little-endian, got another byte order")

    def read(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        data = members.get(f"{folder}data/{key}")
        if data is None or len(data) != size * dtype.itemsize:
            raise ValueError(f"storage {key[:40]!r} is missing or incomplete")
        return np.ndarray((size,), dtype, data)

    head = io.BytesIO(members[pickles[0]][:_MAX_PICKLE])
    return _Unpickler(head, path, read).load()


def _read_legacy(file: io.BufferedReader, path: pathlib.Path) -> Any:
    """Reads five pickles, and each storage after its number of entries."""
    storages: dict[str, np.ndarray] = {}
    left = path.stat().st_size

    def allocate(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        nonlocal left
        if key not in storages:
            left -= size * dtype.itemsize
            if left < 0:
                raise ValueError("its storages are larger than the file")
            storages[key] = np.zeros(size, dtype)
        return storages[key]

    head = io.BytesIO(file.read(_MAX_PICKLE))
    if _Unpickler(head, path, allocate).load() != 0x1950A86A20F9469CFC6C:
        raise InputError(f"{path} must be a file of torch.save, got another pickle")
    protocol, system, content, keys = (
        _Unpickler(head, path, allocate).load() for _ in range(4)
    )
    if protocol != 1001 or system.get("little_endian") is not True:
        raise InputError(f"{path} must be a little-endian file of torch.save")
    file.seek(head.tell())
    for key in keys:
        size, storage = file.read(8), storages.pop(key)
        data: Any = storage.view(np.uint8)
        complete = size == storage.size.to_bytes(8, "little")
        if not complete or file.readinto(data) != data.size:
            raise ValueError(f"storage {key[:40]!r} is incomplete")
    if storages:
        raise ValueError(f"storage {min(storages)[:40]!r} is missing")
    return content


class _Unpickler(_STANDARD):
    """Unpickles tensors, numbers, strings, lists, tuples and dicts, and nothing else.

    The base is the standard library's unpickler in Python: its instructions can be
    restricted, and its memo is a dict, so that an index takes no memory.
    """

    def __init__(self, stream: io.BytesIO, path: pathlib.Path, storage: Storage):
        super().__init__(stream, encoding="utf-8")
        self.path, self.storage = path, storage

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:  # of `dispatch`
            raise self.refusal(f"the instruction {error}") from error

    def refusal(self, what: str) -> InputError:
        return InputError(
            f"{self.path} must hold only tensors, got a pickle with {what}: nothing "
            "of it was run"
        )

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        if (module, name) not in _FUNCTIONS:
            raise self.refusal(repr(f"{module}.{name}"[:100]))
        return _FUNCTIONS[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        word, dtype, key, _, size, *view = pid
        wanted = isinstance(dtype, np.dtype) and type(key) is str and type(size) is int
        if not wanted or word != "storage" or view not in ([], [None]):
            raise TypeError("a reference to something other than a storage")
        return self.storage(dtype, key, size)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _update(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _update(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def load_build(self) -> None:
        self.stack.pop()  # the version numbers that torch attaches to a state dict

    dispatch = {  # noqa: RUF012
        **{code: _STANDARD.dispatch[code] for code in _INSTRUCTIONS},
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.BUILD[0]: load_build,
    }


def _update(target: Any, items: Iterable[Any]) -> Any:
    """Sets entries of a dict; keys of other types may take forever to hash."""
    for key, value in items:
        if type(target) is not dict or not isinstance(key, str | int):
            raise TypeError("entries must be those of a dict, under a string or number")
        target[key] = value
    return target


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """A view; NumPy refuses one that leaves its buffer."""
    if len(shape) > 32 or not all(type(n) is int for n in (offset, *shape, *strides)):
        raise TypeError("a tensor needs whole numbers as shape and strides")
    # A stride of 0 would make a tensor of any size from one number.
    if math.prod(shape) > storage.size:
        raise ValueError("a tensor is larger than its storage")
    width = storage.itemsize
    view = [width * stride for stride in strides]
    data = storage.view(np.uint8)
    return np.ndarray(shape, storage.dtype, data, width * offset, view)


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda items=(): _update({}, items),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
}
