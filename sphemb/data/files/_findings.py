"""What can be wrong with a file of a data set, in one vocabulary.

What makes a file unusable is raised as a `FileError` by whatever reads it, in training
and in a check alike. What is only doubtful is a `Finding` that the check reports.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from sphemb._checks import InputError

PathLike = str | os.PathLike[str]


class FileError(InputError):
    """A file that cannot be used; the message, one line, names it.

    Args:
        message: the line.
        kind: what is wrong in a word or two, such as ``"size mismatch"``.
        files: all files that it is wrong with, where the message stands for several.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unreadable",
        files: Sequence[pathlib.Path] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.files = tuple(files)


class Finding(NamedTuple):
    """One thing that was noticed.

    Attributes:
        level: ``"error"`` where training would stop, else ``"warning"``.
        kind: what it is in a word or two.
        message: one line that names the file.
        files: all files that it holds for, where the message stands for several.
    """

    level: str
    kind: str
    message: str
    files: tuple[str, ...] = ()


def error_finding(error: InputError) -> Finding:
    """What a reader raised, as a finding with the same line."""
    files = tuple(str(file) for file in getattr(error, "files", ()))
    line = " ".join(str(error).split())
    return Finding("error", getattr(error, "kind", "unreadable"), line, files)
