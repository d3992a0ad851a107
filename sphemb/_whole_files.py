"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a file to write beside another, which takes its place in the end.

    What breaks off leaves nothing behind, and what was there before as it was. Where
    ``path`` is a link it is replaced, and what it leads to stays. Several processes may
    write the same file, on different machines too. A pipe or a device is written to as
    it is.

    Args:
        path: the file that there shall be; its folder is there.

    Yields:
        The file to write.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "scores.csv")
    ...     with written_whole(path) as unfinished:
    ...         _ = unfinished.write_text("1")
    ...     [file.name for file in pathlib.Path(folder).iterdir()]
    ['scores.csv']
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    # A name of its own, not longer than a disk allows, and of no link that is there.
    token = secrets.token_hex(4)
    unfinished = path.with_name(f".{path.name[:40]}.{token}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
