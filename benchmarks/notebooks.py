"""Makes the notebooks of the tutorials from their pages, and runs them.

    python -m benchmarks.notebooks
    python -m benchmarks.notebooks digits

Writes ``docs/notebooks/NAME.ipynb`` with outputs and pictures; needs the extra
``docs``. A page marks what becomes a cell by comments that a reader does not see:

* ``<!-- tutorial -->`` before commands: a cell for each, but none for ``pip``. What
  follows a semicolon is about the notebook: ``in the notebook with FLAGS`` for those
  that train, or ``not in the notebook``.
* ``<!-- notebook -->`` before Python code: a cell.
* ``<!-- notebook``, lines of code, ``-->``: a cell that the page does not show. It
  replaces a picture directly above.

A notebook has the page's introduction, and its sections that have a cell.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from sphemb import InputError
from sphemb.cli import one_line_errors

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
PAGES = ("compose", "digits", "own_data", "picie")

_LIMIT = 1_000_000  # bytes of a notebook
_LINKED = ("benchmarks", "configs", "examples", "sphemb", "train.py")
_MARKED = re.compile(
    r"^(?:!\[[^\n]*\n\s*)?<!-- notebook\n(?P<hidden>.*?)^-->\n"
    r"|^<!-- notebook -->\n```python\n(?P<python>.*?)^```\n"
    r"|^<!-- tutorial(?:; (?P<about>[^\n]*))? -->\n```sh\n(?P<shell>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)
_SECTION = re.compile(r"^(?=## )", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)")
# An absolute path, or the address of a server.
_NAMES_MACHINE = re.compile(r"(?<![\w./])/(?:home|root|tmp|usr|work)\b|https?://")
_WITH = "in the notebook with "
_START = '''\
import io
import os
import pathlib
import sys

import PIL.Image
from IPython.display import Image

# Commands run in the clone, by the environment of this notebook.
here = pathlib.Path.cwd()
os.chdir(next(f for f in (here, *here.parents) if (f / "train.py").exists()))
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["PYTHONUNBUFFERED"] = "1"  # lines appear when they are printed
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", ".cache/jax")  # compiles once


def show(file, size=900):
    """Shows a picture, of at most so many pixels on a side."""
    picture, data = PIL.Image.open(file).convert("RGB"), io.BytesIO()
    picture.thumbnail((size, size))
    picture.save(data, "JPEG", quality=85)
    return Image(data.getvalue())
'''
_ABOUT = """
*This notebook is made from [the page](../{page}.md): the same commands, and what they
print and draw. Trainings are shorter. To run it, start Jupyter in a clone of the
repository with its environment ([tutorials](../tutorials.md)).*
"""


class Cell(NamedTuple):
    """A cell: ``"code"`` or ``"markdown"``, and its text."""

    kind: str
    source: str


def read_cells(text: str, page: str) -> list[Cell]:
    """The cells of the notebook of a page."""
    title, text = text.split("\n", 1)
    cells = [
        Cell("markdown", f"{title}\n{_ABOUT.format(page=page)}".strip()),
        Cell("code", _START.strip()),
    ]
    for number, section in enumerate(_SECTION.split(text)):
        marks = list(_MARKED.finditer(section))
        ends = [0, *(mark.end() for mark in marks)]
        starts = [*(mark.start() for mark in marks), len(section)]
        found = []
        for i, mark in enumerate([*marks, None]):
            found.append(Cell("markdown", _rebased(section[ends[i] : starts[i]], page)))
            found += _marked(mark) if mark else ()
        if not number or any(cell.kind == "code" for cell in found):
            cells += [cell for cell in found if cell.source]
    return cells


def _rebased(text: str, page: str) -> str:
    """Text of a page, whose links start one folder deeper."""
    return _LINK.sub("../", text.replace("](#", f"]({page}.md#")).strip()


def _marked(mark: re.Match[str]) -> Iterator[Cell]:
    if (code := mark["hidden"] or mark["python"]) is not None:
        yield Cell("code", code.strip())
        return
    about = mark["about"] or ""
    if about == "not in the notebook":
        return
    flags = about.removeprefix(_WITH).split()
    if flags and not about.startswith(_WITH):
        raise InputError(f"a tutorial's mark must not say {about!r}")
    for line in re.sub(r"\\\n *", "", mark["shell"]).splitlines():
        command, _, comment = line.partition("  #")
        words = [command.strip(), *(flags if "train.py" in command else ())]
        if command and not command.startswith("pip "):
            lines = [f"#{comment}"] if comment else []
            yield Cell("code", "\n".join(["%%bash", *lines, " \\\n  ".join(words)]))


def notebook(cells: list[Cell]) -> dict[str, Any]:
    """A notebook without outputs, in the format 4.5."""
    code = {"execution_count": None, "outputs": []}
    return {
        "cells": [
            {
                "cell_type": cell.kind,
                "id": f"cell-{number}",
                "metadata": {},
                "source": cell.source,
                **(code if cell.kind == "code" else {}),
            }
            for number, cell in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            }
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def execute(cells: list[Cell]) -> str:
    """Runs the cells in an empty folder with links to the code; returns the file."""
    import nbclient
    import nbformat

    with tempfile.TemporaryDirectory() as place:
        desk = pathlib.Path(place)
        for name in _LINKED:
            (desk / name).symlink_to(ROOT / name)
        given = nbformat.from_dict(notebook(cells))
        client = nbclient.NotebookClient(
            given,
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": place}},
        )
        own = {"IPYTHONDIR": f"{place}/.ipython", "TFDS_DATA_DIR": "prepared"}
        try:
            done = client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), **own})
        except nbclient.exceptions.CellExecutionError as error:
            raise InputError(f"a cell ended with an error: {error}") from error
    done.metadata.pop("language_info", None)
    content = nbformat.writes(done) + "\n"
    content = content.replace(f"{place}/", "")  # as a reader's clone has other names
    return content


def check_content(content: str) -> None:
    """Refuses a notebook that is large, or whose outputs name a place or a server."""
    if len(content.encode()) > _LIMIT:
        raise InputError(f"a notebook must have at most {_LIMIT} bytes: {len(content)}")
    cells = json.loads(content)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = [o.get("text", o.get("data", {}).get("text/plain", ())) for o in outputs]
    for line in (line for text in texts for line in text):
        if named := _NAMES_MACHINE.search(line):
            raise InputError(f"an output must not name {named[0]!r}: {line.strip()}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PAGES))
    names = parser.parse_args().names or PAGES
    with one_line_errors():
        FOLDER.mkdir(exist_ok=True)
        for name in names:
            page = ROOT / "docs" / f"{name}.md"
            content = execute(read_cells(page.read_text(), name))
            (FOLDER / f"{name}.ipynb").write_text(content)
            check_content(content)
            print(f"docs/notebooks/{name}.ipynb: {len(content) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
