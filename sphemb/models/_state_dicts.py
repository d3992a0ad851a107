"""Reads the files that PyTorch's networks are given away in; torch is not needed.

Three formats: the zip archive of ``torch.save``, its predecessor up to torch 1.5, and
safetensors.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from sphemb._checks import InputError
from sphemb.models._archives import ERRORS, Archive, damaged
from sphemb.models._pickles import STORAGES, Storage, Tensor, read_pickle

# A pickle of tensors holds some hundred bytes for each; its machine takes up to sixty
# bytes of memory for every one of the pickle.
_MAX_PICKLE = 4 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a network's arrays by name.

    Nothing that the file contains is run, and memory is taken for what it holds, not
    for what it claims. A training checkpoint's network is found under ``state_dict``,
    ``model_state_dict`` or ``model``; ``module.`` before every name is dropped.

    Args:
        path: a ``.pth`` or ``.pt`` file of ``torch.save``, of any version, or a
            ``.safetensors`` file, which takes the package ``safetensors``.

    Returns:
        Name to array, as they are; bfloat16 becomes float32.

    Raises:
        InputError: the file is missing, damaged or of another kind, or holds anything
            but tensors.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
            file.seek(0)
            if start[:1] == b"\x80":
                arrays = _read_legacy(file, path)
            elif start[:4] == b"PK\x03\x04":
                arrays = _read_zip(path)
            elif start[8:] == b"{":
                arrays = _read_safetensors(path)
            else:
                raise InputError(
                    f"{path} must be a file of torch.save or safetensors, got another "
                    "kind of file"
                )
    except OSError as error:
        raise damaged(path, error) from error
    prefix = "module."
    if arrays and all(name.startswith(prefix) for name in arrays):
        arrays = {name.removeprefix(prefix): a for name, a in arrays.items()}
    return arrays


def _read_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
    with Archive(path) as archive:
        found = [name for name in archive if name.split("/")[1:] == ["data.pkl"]]
        if len(found) != 1:
            raise InputError(
                f"{path} must be a file of torch.save, got a zip archive without its "
                "data.pkl"
            )
        folder = found[0].removesuffix("data.pkl")
        if archive.size(found[0]) > _MAX_PICKLE:
            raise InputError(
                f"{path} must name its tensors in at most {_MAX_PICKLE:,} bytes, got "
                f"{archive.size(found[0]):,}"
            )
        if archive.get(f"{folder}byteorder", b"little") != b"little":
            raise InputError(f"{path} must be little-endian, got another byte order")
        content = read_pickle(io.BytesIO(archive[found[0]]), path)

        def read(storage: Storage) -> bytes:
            try:
                return archive[f"{folder}data/{storage.key}"]
            except KeyError as error:
                raise damaged(path, f"no storage {storage.key[:40]!r}") from error

        return _arrays(content, read, path)


def _read_legacy(file: BinaryIO, path: pathlib.Path) -> dict[str, np.ndarray]:
    head = io.BytesIO(file.read(_MAX_PICKLE))
    if read_pickle(head, path) != _LEGACY_MAGIC:
        raise InputError(f"{path} must be a file of torch.save, got another pickle")
    protocol, system = read_pickle(head, path), read_pickle(head, path)
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise damaged(path, "its format is not known")
    if system.get("little_endian") is not True:
        raise InputError(f"{path} must be little-endian, got another byte order")
    content, keys = read_pickle(head, path), read_pickle(head, path)
    if not isinstance(keys, list):
        raise damaged(path, "no list of storages")
    width = {
        t.storage.key: np.dtype(STORAGES[t.storage.kind]).itemsize
        for t in _all_tensors(content)
    }
    # One after the other, each behind its length: where they stand, to begin with.
    end = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    offset = head.tell()
    for key in keys:
        file.seek(offset)
        length = int.from_bytes(file.read(8), "little", signed=True)
        if not isinstance(key, str) or key not in width or length < 0:
            raise damaged(path, "a storage that no tensor knows")
        size = length * width[key]
        places[key] = (offset + 8, size)
        offset += 8 + size
        if offset > end:
            raise damaged(path, f"storage {key[:40]!r} ends behind the file")

    def read(storage: Storage) -> bytes:
        if storage.key not in places:
            raise damaged(path, f"no storage {storage.key[:40]!r}")
        offset, size = places[storage.key]
        file.seek(offset)
        return file.read(size)

    return _arrays(content, read, path)


def _all_tensors(content: Any) -> list[Tensor]:
    """The tensors of nested dicts, lists and tuples, each container looked at once."""
    tensors, seen, left = [], set(), [content]
    while left:
        item = left.pop()
        if isinstance(item, Tensor):
            tensors.append(item)
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            left.extend(item.values() if isinstance(item, dict) else item)
    return tensors


def _arrays(
    content: Any, read: Callable[[Storage], bytes], path: pathlib.Path
) -> dict[str, np.ndarray]:
    """The arrays of a state dict's records."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise InputError(
            f"{path} must hold a state dict, got a {type(content).__name__}"
        )
    storages: dict[Storage, np.ndarray] = {}
    arrays = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{path} must hold a state dict of tensors, got "
                f"a {type(tensor).__name__} under {str(name)[:60]!r}"
            )
        whole = dataclasses.replace(tensor.storage, window=None)
        try:
            if whole not in storages:
                storages[whole] = _decode(whole, read(whole))
            arrays[name] = _view(tensor, storages[whole])
        except InputError:
            raise
        except (*ERRORS, TypeError) as error:
            raise damaged(path, f"{name[:60]}: {error}") from error
    return arrays


def _decode(storage: Storage, data: bytes) -> np.ndarray:
    dtype = np.dtype(STORAGES[storage.kind])
    if len(data) != storage.size * dtype.itemsize:
        raise ValueError(
            f"its storage must have {storage.size} numbers, got {len(data)} bytes"
        )
    numbers = np.ndarray((storage.size,), dtype, data)
    if storage.kind == "BFloat16Storage":
        return (numbers.astype("<u4") << 16).view("<f4")
    return numbers


def _view(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    if tensor.storage.window is not None:
        start, length = tensor.storage.window
        if start + length > numbers.size:
            raise ValueError("a window beyond its storage")
        numbers = numbers[start : start + length]
    width = numbers.itemsize
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, numbers.dtype)
    # NumPy refuses a view that leaves its buffer.
    return np.ndarray(
        tensor.shape,
        numbers.dtype,
        np.ascontiguousarray(numbers).data,
        offset=tensor.offset * width,
        strides=tuple(width * s for s in tensor.strides),
    )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError as error:
        raise InputError(
            f"{path} needs the package safetensors: pip install safetensors"
        ) from error
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, *ERRORS, TypeError) as error:
        raise damaged(path, error) from error
    half = {name for name, array in arrays.items() if array.dtype.name == "bfloat16"}
    return {n: a.astype(np.float32) if n in half else a for n, a in arrays.items()}
