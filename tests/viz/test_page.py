"""A page that holds all it shows, and what a browser makes of it."""

import base64
import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sphemb import InputError
from sphemb.viz import Example, Scene, draw_curves, html_page, onto_sphere

BROWSER = pathlib.Path(__file__).parents[1] / "browser.py"


def unit_rows(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    colors = {"truth": rng.random((40, 3)), "image": rng.random((40, 3))}
    return [
        Scene("first", "κ = 25", unit_rows(rng, 4, 40, 3), colors),
        Scene("</script> second", "one step", unit_rows(rng, 1, 40, 3), colors),
    ]


@pytest.fixture(scope="module")
def page(scenes):
    rng = np.random.default_rng(1)
    noise, flat = rng.random((20, 30, 3)), np.zeros((20, 30, 3))
    return html_page(
        "Proposals & more",
        facts=["six <test> images"],
        scores={"recall": 0.25, "num_objects": 1204.0, "of nothing": float("nan")},
        figures={"The training": draw_curves([{"step": 1, "loss": 2.0}])},
        examples={"Worst": [Example("a.png", "0.1", {"image": noise, "found": flat})]},
        scenes=scenes,
    )


class Reader(html.parser.HTMLParser):
    """The elements of a page, each with its attributes and the text right in it."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in ("meta", "img", "input"):
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1]["text"] += data

    def all(self, tag):
        return [e for e in self.elements if e["tag"] == tag]


class TestPage:
    def test_every_element_is_closed_and_what_was_given_is_there(self, page):
        reader = Reader(page)
        assert reader.open == []
        assert [e["text"] for e in reader.all("h1")] == ["Proposals & more"]
        assert "six <test> images" in [e["text"] for e in reader.all("p")]
        cells = [e["text"] for e in reader.all("td")]
        assert cells == ["0.2500", "1,204", "none"]
        assert [e["text"] for e in reader.all("figcaption")] == ["image", "found"]

    def test_nothing_is_fetched_from_anywhere(self, page):
        assert not re.search(r"https?:|[\"'(]//|@import|url\(", page)
        reader = Reader(page)
        assert reader.all("link") == []
        sources = [e["src"] for e in reader.elements if "src" in e]
        assert len(sources) == 3
        assert all(source.startswith("data:image/") for source in sources)

    def test_the_points_are_in_the_page(self, page, scenes):
        script = next(e for e in Reader(page).all("script") if e.get("id") == "spheres")
        found = json.loads(script["text"])
        assert [scene["name"] for scene in found] == ["first", "</script> second"]
        for scene, wanted in zip(found, scenes, strict=True):
            points = np.frombuffer(base64.b64decode(scene["points"]), "<i2") / 32767
            shape = (scene["steps"], scene["number"], 3)
            np.testing.assert_allclose(
                points.reshape(shape), wanted.points, atol=1 / 32767
            )
            for name, colors in wanted.colors.items():
                coded = base64.b64decode(scene["colors"][name])
                given = np.frombuffer(coded, np.uint8).reshape(-1, 3) / 255
                np.testing.assert_allclose(given, colors, atol=0.5 / 255 + 1e-9)

    def test_the_script_is_javascript(self, page, tmp_path):
        node = shutil.which("node")
        if node is None:
            pytest.skip("no node to read the script with")
        script = Reader(page).all("script")[-1]["text"]
        (tmp_path / "page.js").write_text(script)
        done = subprocess.run(
            [node, "--check", tmp_path / "page.js"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_without_points_there_is_no_sphere(self):
        page = html_page("empty")
        assert "canvas" not in {e["tag"] for e in Reader(page).elements}

    def test_colors_of_other_points_are_refused(self, scenes):
        bad = scenes[0]._replace(colors={"truth": np.zeros((39, 3))})
        with pytest.raises(InputError, match="colors must have shape"):
            html_page("bad", scenes=[bad])

    def test_a_browser_turns_shifts_and_recolors_the_points(self, page, tmp_path):
        pytest.importorskip(
            "PySide6.QtWebEngineCore",
            reason="no browser: pip install '.[browser]'",
            exc_type=ImportError,  # also where the system lacks a library of Qt
        )
        path, picture = tmp_path / "report.html", tmp_path / "seen.png"
        path.write_text(page, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, BROWSER, path, picture],
            env={k: v for k, v in os.environ.items() if k != "DISPLAY"},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["complaints"] == []
        assert found["requests"] == [path.as_uri()]
        assert found["scenes"] == 2
        assert found["colorings"] == ["truth", "image"]
        assert found["progress"] == "step 3 of 3"
        looks = [found[k] for k in ("before", "turned", "shifted", "recolored")]
        assert len(set(looks)) == 4
        assert min(found["pictures"]) > 0
        assert picture.read_bytes().startswith(b"\x89PNG")


class TestOntoSphere:
    def test_three_dimensions_stay(self):
        points = unit_rows(np.random.default_rng(0), 2, 9, 3)
        np.testing.assert_allclose(onto_sphere(points), points, atol=1e-12)

    def test_more_are_the_principal_ones_at_length_one(self):
        rng = np.random.default_rng(0)
        points = unit_rows(rng, 2, 30, 3) @ np.linalg.qr(rng.normal(size=(7, 7)))[0][:3]
        found = onto_sphere(points)
        # The points lie in three dimensions: the cosines between them are all kept.
        np.testing.assert_allclose(
            found @ found.swapaxes(1, 2), points @ points.swapaxes(1, 2), atol=1e-9
        )
        spread = unit_rows(rng, 1, 50, 6)
        lengths = np.linalg.norm(onto_sphere(spread), axis=-1)
        np.testing.assert_allclose(lengths, 1.0)

    def test_labels_that_are_all_void_are_refused(self):
        with pytest.raises(InputError, match="labels must name at least one point"):
            onto_sphere(np.eye(3)[None], labels=np.full(3, -1))
