"""A page in a real browser: run as a script, since a browser wants its own process.

    python tests/browser.py PAGE PICTURE

Loads the page, turns the sphere by dragging, moves the slider, and prints as JSON what
the page then says; the picture is what is seen. Needs PySide6 (``.[browser]``).
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--disable-gpu")

ACTIONS = """
(function () {
  const canvas = document.getElementById("sphere");
  const look = () => canvas.toDataURL();
  const sum = (text) => {
    let total = 0;
    for (const letter of text) total = (31 * total + letter.charCodeAt(0)) | 0;
    return total;
  };
  const found = {scenes: document.getElementById("scene").length};
  found.colorings = [...document.getElementById("coloring").options].map(o => o.text);
  window.found = found;
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const pointer = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(
    kind, {clientX: x, clientY: y, pointerId: 1, buttons: 1, bubbles: true}));
  canvas.setPointerCapture = () => {};  // of a pointer that no hand holds
  (async () => {
    await wait(300);
    found.before = sum(look());
    pointer("pointerdown", 100, 100);
    pointer("pointermove", 160, 120);
    pointer("pointerup", 160, 120);
    await wait(300);
    found.turned = sum(look());
    const slider = document.getElementById("step");
    slider.value = slider.max;
    slider.dispatchEvent(new Event("input"));
    await wait(1500);
    found.shifted = sum(look());
    found.progress = document.getElementById("progress").textContent;
    const coloring = document.getElementById("coloring");
    coloring.selectedIndex = coloring.length - 1;
    coloring.dispatchEvent(new Event("change"));
    await wait(300);
    found.recolored = sum(look());
    found.pictures = [...document.images].map((i) => i.naturalWidth);
    found.done = true;
  })();
})()
"""


def main(page_path: str, picture_path: str) -> None:
    # Here, for whoever has no PySide6 and only collects tests.
    from PySide6 import QtCore, QtWebEngineCore, QtWebEngineWidgets, QtWidgets

    complaints: list[str] = []
    addresses: list[str] = []

    class Page(QtWebEngineCore.QWebEnginePage):
        def javaScriptConsoleMessage(self, level, message, line, source):
            complaints.append(f"{line}: {message}")

    class Requests(QtWebEngineCore.QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info):
            addresses.append(info.requestUrl().toString())

    application = QtWidgets.QApplication(sys.argv[:1])
    view = QtWebEngineWidgets.QWebEngineView()
    requests, page = Requests(), Page(view)
    page.setUrlRequestInterceptor(requests)
    view.setPage(page)
    view.resize(1000, 1500)
    view.show()

    def look(text: str | None) -> None:
        found = json.loads(text or "{}")
        if not found.get("done"):
            QtCore.QTimer.singleShot(300, ask)
            return
        found["complaints"] = complaints
        found["requests"] = [a for a in addresses if not a.startswith("data:")]
        view.grab().save(picture_path)
        print(json.dumps(found))
        application.quit()

    def ask() -> None:
        page.runJavaScript("JSON.stringify(window.found || {})", look)

    def loaded(fine: bool) -> None:
        page.runJavaScript(ACTIONS)
        ask()

    view.loadFinished.connect(loaded)
    QtCore.QTimer.singleShot(60_000, lambda: application.exit(3))
    view.load(QtCore.QUrl.fromLocalFile(os.path.abspath(page_path)))
    status = application.exec()
    view.setPage(None)
    page.deleteLater()
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
