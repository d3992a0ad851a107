"""A page of HTML that holds all it shows: no file beside it, no address in it.

Letters: T steps, N points.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sphemb._checks import check_shape
from sphemb.viz._arrays import float_array, image_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Example(NamedTuple):
    """An image and what belongs to it.

    Attributes:
        name: a heading.
        note: a line below it.
        pictures: caption -> uint8 or float in [0, 1], [H, W, 3].
    """

    name: str
    note: str
    pictures: Mapping[str, np.ndarray]


class Scene(NamedTuple):
    """Points on the sphere at every step of a mean shift.

    Attributes:
        name: what people choose it by.
        note: a line below it.
        points: float [T+1, N, 3] unit vectors.
        colors: name -> float in [0, 1], [N, 3]; the first is shown at first.
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
    """Writes numbers, pictures and spheres that can be turned as one page of HTML.

    Args:
        title: of the page.
        facts: lines below the title.
        scores: name -> number; of NaN the page says "none".
        figures: heading -> a chart.
        examples: heading -> images.
        scenes: spheres, one of which is shown at a time.

    Returns:
        The text of the page.

    Raises:
        InputError: arrays of another shape.

    >>> page = html_page("digits", scores={"recall": 0.5})
    >>> page.startswith("<!DOCTYPE html>"), "<td>0.5000</td>" in page
    (True, True)
    """
    parts = [f"<h1>{_text(title)}</h1>"]
    parts += [f'<p class="facts">{_text(fact)}</p>' for fact in facts]
    if scores:
        rows = "".join(
            f"<tr><th>{_text(name)}</th><td>{_number(value)}</td></tr>"
            for name, value in scores.items()
        )
        parts.append(f'<h2>Scores</h2><div class="columns"><table>{rows}</table></div>')
    if scenes:
        parts.append(_SPHERE)
    for heading, group in (examples or {}).items():
        parts.append(f"<h2>{_text(heading)}</h2>")
        parts += [_example(example) for example in group]
    for heading, figure in (figures or {}).items():
        shown = f'<img class="chart" alt="{_text(heading)}" src="{_chart(figure)}">'
        parts.append(f"<h2>{_text(heading)}</h2>{shown}")
    data = json.dumps([_scene(scene) for scene in scenes]).replace("<", "\\u003c")
    return _PAGE.format(
        title=_text(title),
        style=_file("report.css"),
        body="\n".join(parts),
        data=data,
        script=_file("report.js"),
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
<script type="application/json" id="spheres">{data}</script>
<script>
{script}</script>
</body>
</html>
"""
_SPHERE = """<h2>Embeddings on the sphere</h2>
<div class="controls">
<label>image <select id="scene"></select></label>
<label>colors <select id="coloring"></select></label>
<span id="steps" class="controls">
<label>mean shift
<input id="step" type="range" min="0" max="0" value="0" step="1"></label>
<output id="told" for="step"></output>
<button id="play" type="button">play</button>
</span>
</div>
<canvas id="sphere" tabindex="0" role="img"
aria-label="Points on a sphere; drag or use the arrow keys to turn it"></canvas>
<p class="note">Drag, or use the arrow keys, to turn the sphere; the wheel brings it
nearer. Points behind the center are fainter.</p>
<p class="note" id="scene-note"></p>"""


def _text(text: str) -> str:
    return html.escape(str(text))


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    counted = value == int(value) and abs(value) > 1
    return f"{int(value):,}" if counted else f"{value:.4f}"


def _file(name: str) -> str:
    return importlib.resources.files("sphemb.viz").joinpath(name).read_text("utf-8")


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
    """The smaller of PNG, which flat colors want, and JPEG, which photographs want."""
    from PIL import Image

    image = Image.fromarray(_bytes(image_array("picture", picture)))
    found = []
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **settings)
        found.append(_address(kind, buffer.getvalue()))
    return min(found, key=len)


def _chart(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return _address("png", buffer.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _scene(scene: Scene) -> dict[str, object]:
    dims = check_shape("points", scene.points, "T N 3")
    points = np.rint(
        32767 * np.clip(float_array("points", scene.points, "T N 3"), -1, 1)
    )
    coded = {}
    for name, colors in scene.colors.items():
        wanted = {"N": dims["N"]}
        check_shape("colors", colors, "N 3", dims=wanted, beside="points")
        coded[name] = base64.b64encode(_bytes(np.asarray(colors)).tobytes()).decode()
    return {
        "name": scene.name,
        "note": scene.note,
        "steps": dims["T"],
        "number": dims["N"],
        "points": base64.b64encode(points.astype("<i2").tobytes()).decode(),
        "colors": coded,
    }


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)
