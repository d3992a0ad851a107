"""File names, which may hold any bytes but two, in lines and in files of text."""

from __future__ import annotations

import os


def one_line(text: object) -> str:
    r"""A text with whatever would break its line, or move a terminal, spelled out.

    >>> one_line("two\nlines\x1b[2J")
    'two\\nlines\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )


def spelled(name: str | os.PathLike[str]) -> str:
    r"""A file name as UTF-8 can hold it, its other bytes spelled out.

    >>> spelled(os.fsdecode(b"caf\xe9.png"))
    'caf\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
