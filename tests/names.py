"""File names that a disk allows and that programs trip over."""

from __future__ import annotations

import os

ODD_NAMES = [
    os.fsdecode(name)
    for name in (
        b"two\nlines",
        b"a\ttab",
        b'"quoted", with a comma',
        b"it's",
        b"caf\xe9",  # Latin-1, which is no UTF-8
        "größe 大".encode(),
        b"-x",
        b"--out",
        b" spaces ",
        b"\x1b[2J clears the screen",
        b"=1+1",
        b"<script>alert(1)",
        b"{}",
        b"100%d",
    )
]
