"""Files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary file that replaces ``path`` when the block ends.

    After an error the temporary file is gone and ``path`` is unchanged. A link is
    replaced, not its target. Several processes may write the same file, on different
    machines too. A pipe or a device is written directly.

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
    # A new name, within the length that file systems allow, and not that of a link.
    token = secrets.token_hex(4)
    unfinished = path.with_name(f".{path.name[:40]}.{token}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
