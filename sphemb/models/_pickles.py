"""Reads a pickle's tensors, and runs nothing of what it contains.

A pickle is a program for a stack machine whose instructions import and call anything.
Python's unpickler can be told what it may import; this machine cannot import at all. It
knows the few instructions that a file of tensors needs, keeps names as names, and puts
records in the place of tensors. Whatever else a pickle asks for is refused by name.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from sphemb._checks import InputError
from sphemb.models._archives import ERRORS, damaged

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # NumPy has no bfloat16: these are its bits
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclasses.dataclass(frozen=True)
class Name:
    """Something that the pickle wants imported, and that is not."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers that stands elsewhere in the file.

    Attributes:
        key: its name there.
        kind: a key of `STORAGES`.
        size: how many numbers.
        window: (offset, size) of the part that is meant, or None for all of it.
    """

    key: str
    kind: str
    size: int
    window: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(stream: BinaryIO, path: pathlib.Path) -> Any:
    """Reads one pickle.

    Args:
        stream: where it begins; it is left where the pickle ends.
        path: the file, for complaints.

    Returns:
        What it holds: numbers, strings, tuples, lists, dicts and `Tensor`.

    Raises:
        InputError: it asks for anything else, or is damaged.
    """
    try:
        return _run(stream, path)
    except InputError:
        raise
    except (*ERRORS, AttributeError, IndexError, LookupError, TypeError) as error:
        raise damaged(path, error) from error


_NUMBERS_AND_STRINGS = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINSTRING",
    "SHORT_BINSTRING",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _run(stream: BinaryIO, path: pathlib.Path) -> Any:
    stack: list[Any] = []
    marks: list[list[Any]] = []  # the stacks below the marks
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marks.pop()
        return items

    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _NUMBERS_AND_STRINGS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(stack)
            stack = []
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "TUPLE":
            items = since_mark()
            stack.append(tuple(items))
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            items = [stack.pop() for _ in range(count)]
            stack.append(tuple(reversed(items)))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set(stack[-1], [key, value])
        elif name == "SETITEMS":
            items = since_mark()
            _set(stack[-1], items)
        elif name == "APPEND":
            item = stack.pop()
            _extend(stack[-1], [item])
        elif name == "APPENDS":
            items = since_mark()
            _extend(stack[-1], items)
        elif name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            stack.append(_named(path, module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_named(path, module, attribute))
        elif name == "BINPERSID":
            stack.append(_storage(*stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_CALLS[function.module, function.name](*arguments))
        elif name == "BUILD":
            # The version numbers that torch hangs on the dict of a network.
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise TypeError("attributes of what is no dict")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise InputError(
                f"{path} must hold tensors alone, got the pickle instruction {name}: "
                "nothing of it was run"
            )
    raise ValueError("a pickle without an end")


def _set(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict):
        raise TypeError("items of what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Others could be nested so that their hash takes for ever.
        if not isinstance(key, str | int):
            raise TypeError("a key that is neither a string nor a number")
        target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise TypeError("entries of what is no list")
    target.extend(items)


def _named(path: pathlib.Path, module: Any, name: Any) -> Name:
    # Others could be nested so that their hash, or their text, takes for ever.
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("a name that is no string")
    known = (module, name) in _CALLS or (module == "torch" and name in STORAGES)
    if not known:
        what = repr(f"{module}.{name}"[:100])
        raise InputError(
            f"{path} must hold tensors alone, got a pickle that asks for {what}: "
            "nothing of it was run"
        )
    return Name(module, name)


def _storage(
    word: Any, kind: Any, key: Any, location: Any, size: Any, view: Any = None
) -> Storage:
    if word != "storage" or not isinstance(kind, Name) or kind.name not in STORAGES:
        raise TypeError("a reference to what is no storage")
    window = None
    if view is not None:
        _, offset, length = view
        window = _counts((offset, length))
    if not isinstance(key, str):
        raise TypeError("a storage whose key is no string")
    (size,) = _counts((size,))
    return Storage(key, kind.name, size, window)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any
) -> Tensor:
    if not isinstance(storage, Storage) or not len(shape) == len(strides) <= 32:
        raise TypeError("a tensor that is no view of a storage")
    (offset,) = _counts((offset,))
    tensor = Tensor(storage, offset, _counts(shape), _counts(strides))
    # A stride of 0 would make a tensor of any size from one number.
    if math.prod(tensor.shape) > storage.size:
        raise ValueError("a tensor larger than its storage")
    return tensor


def _parameter(tensor: Any, *unused: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError("a parameter that is no tensor")
    return tensor


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    target: dict[Any, Any] = {}
    for pair in pairs:
        _set(target, list(pair))
    return target


def _counts(numbers: Any) -> Any:
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise TypeError("sizes that are no counts")
    return tuple(numbers)


_CALLS: dict[tuple[Any, Any], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
