"""A self-contained page of HTML: no file beside it, no address in it."""

from __future__ import annotations

import base64
import html
import importlib.resources
import io
import json
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sphemb._checks import check_shape
from sphemb.viz._arrays import float_array, image_array
from sphemb.viz._figures import figure_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Example", "Scene", "html_page"]


class Example(NamedTuple):
    """An image: a heading, a line below it, and caption -> uint8 or float [H, W, 3]."""

    name: str
    note: str
    pictures: Mapping[str, np.ndarray]


class Scene(NamedTuple):
    """Points on the sphere at every step of a mean shift, a heading and a line below.

    ``points`` are float [T+1, N, 3] unit vectors, ``colors`` name -> float [N, 3] in
    [0, 1]; the first is shown initially.
    """

    name: str
    note: str
    points: np.ndarray
    colors: Mapping[str, np.ndarray]


def html_page(
    title: str,
    *,
    facts: Sequence[str] = (),
    scores: Mapping[str, float] | None = None,
    figures: Mapping[str, Figure] | None = None,
    examples: Mapping[str, Iterable[Example]] | None = None,
    scenes: Sequence[Scene] = (),
) -> str:
    """Writes scores, pictures and rotatable spheres as one page of HTML.

    ``facts`` are lines below the title; a score that is NaN is written as "none";
    ``figures`` and ``examples`` have headings; spheres are shown one at a time.

    >>> page = html_page("digits", scores={"recall": 0.5})
    >>> page.startswith("<!DOCTYPE html>"), "<td>0.5000</td>" in page
    (True, True)
    """
    parts = [f"<h1>{_text(title)}</h1>"]
    parts += (f'<p class="facts">{_text(fact)}</p>' for fact in facts)
    if scores:
        rows = "".join(
            f"<tr><th>{_text(name)}</th><td>{_number(value)}</td></tr>"
            for name, value in scores.items()
        )
        parts.append(f'<h2>Scores</h2><div class="columns"><table>{rows}</table></div>')
    if scenes:
        parts.append(_file("sphere.html"))
    for heading, group in (examples or {}).items():
        parts.append(f"<h2>{_text(heading)}</h2>")
        parts += [_example(example) for example in group]
    for heading, figure in (figures or {}).items():
        source = _address("png", figure_bytes(figure, dpi=90))
        shown = f'<img class="chart" alt="{_text(heading)}" src="{source}">'
        parts.append(f"<h2>{_text(heading)}</h2>{shown}")
    data = json.dumps([_scene(scene) for scene in scenes]).replace("<", "\\u003c")
    return string.Template(_file("page.html")).substitute(
        title=_text(title),
        style=_file("report.css"),
        body="\n".join(parts),
        data=data,
        script=_file("report.js"),
    )


def _text(text: str) -> str:
    return html.escape(str(text))


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    counted = value == int(value) and abs(value) > 1
    return f"{int(value):,}" if counted else f"{value:.4f}"


def _file(name: str) -> str:
    return importlib.resources.files(__name__).joinpath(name).read_text("utf-8")


def _example(example: Example) -> str:
    shown = "".join(
        f'<figure><img alt="{_text(caption)}" src="{_picture(picture)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for caption, picture in example.pictures.items()
    )
    return (
        f"<h3>{_text(example.name)}</h3>"
        f'<p class="note">{_text(example.note)}</p><div class="row">{shown}</div>'
    )


def _picture(picture: np.ndarray) -> str:
    """The smaller of PNG (for flat colors) and JPEG (for photographs)."""
    from PIL import Image

    image = Image.fromarray(_bytes(image_array("picture", picture)))
    found = []
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **settings)
        found.append(_address(kind, buffer.getvalue()))
    return min(found, key=len)


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{_base64(content)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _scene(scene: Scene) -> dict[str, object]:
    dims = check_shape("points", scene.points, "T N 3")
    points = np.clip(float_array("points", scene.points, "T N 3"), -1, 1)
    for colors in scene.colors.values():
        check_shape("colors", colors, "N 3", dims={"N": dims["N"]}, beside="points")
    return {
        "name": scene.name,
        "note": scene.note,
        "steps": dims["T"],
        "number": dims["N"],
        "points": _base64(np.rint(32767 * points).astype("<i2").tobytes()),
        "colors": {
            name: _base64(_bytes(np.asarray(colors)).tobytes())
            for name, colors in scene.colors.items()
        },
    }


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)
