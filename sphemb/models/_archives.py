"""Zip archives of arrays, read without trust.

Torch and NumPy both keep arrays in zip archives whose members are not compressed. So
nothing that is read can be larger than the file, and what says otherwise is refused
before memory is taken for it.
"""

from __future__ import annotations

import io
import pathlib
import struct
import tokenize
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from sphemb._checks import InputError

ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    MemoryError,
    NotImplementedError,  # a zip version or a method that Python has not
    OSError,
    OverflowError,
    RuntimeError,  # an encrypted member
    ValueError,
    struct.error,
    tokenize.TokenError,  # NumPy reads the header of an array as Python
)


def damaged(path: pathlib.Path, error: Exception | str) -> InputError:
    """The complaint about a file that does not hold what its format promises."""
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{path} cannot be read: {error.strerror}")
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path} is damaged or truncated: {reason[:200]}")


class Archive(Mapping[str, bytes]):
    """The members of an uncompressed zip archive by name; a member is read when asked.

    Args:
        path: the file.

    Raises:
        InputError: no archive, or a damaged or compressed one; one that holds less
            than it claims, when that member is read.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
            self._left = path.stat().st_size
        except ERRORS as error:
            raise damaged(path, error) from error

    def __getitem__(self, name: str) -> bytes:
        info = self._zip.getinfo(name)  # KeyError is what a mapping raises
        if info.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"{self._path} must be an uncompressed archive, got the compressed "
                f"member {name!r}"
            )
        self._left -= info.file_size
        if self._left < 0:
            raise InputError(f"{self._path} claims to hold more than its size")
        try:
            return self._zip.read(info)
        except ERRORS as error:
            raise damaged(self._path, error) from error

    def size(self, name: str) -> int:
        """Bytes of a member, as the archive claims."""
        return self._zip.getinfo(name).file_size

    def __iter__(self) -> Iterator[str]:
        return iter(self._zip.namelist())

    def __len__(self) -> int:
        return len(self._zip.namelist())

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of an ``.npz`` file; objects are refused.

    Args:
        path: the file, as ``numpy.savez`` writes it.

    Returns:
        The arrays by name.

    Raises:
        InputError: the file is missing, damaged, or holds Python objects.
    """
    arrays = {}
    with Archive(path) as archive:
        for member in archive:
            arrays[member.removesuffix(".npy")] = _read_npy(path, archive[member])
    return arrays


def _read_npy(path: pathlib.Path, data: bytes) -> np.ndarray:
    """One array; numpy.load would take the memory that a header asks for unseen."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version} of the .npy format is not known")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject or fortran_order:
            raise ValueError("it must hold plain arrays in C order")
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    except ERRORS as error:
        raise damaged(path, error) from error
