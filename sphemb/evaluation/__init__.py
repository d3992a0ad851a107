"""Evaluation: a split through predict and the metrics, and the pictures of it.

* `evaluate`, `Evaluation`, `ScoredImage`: scores, also of single images, and samples.
* `draw_pictures`: what an evaluation saw.
* `PixelGrid`: the pixels of an image, their mean shift and gradients; `fullest_first`.
* `write_report`: the same and more as one page that a browser shows.
* `TiledPrediction`: what a run finds in images of any size, a tile at a time;
  `found_in_image`: a prediction for one image, on the host.
"""

from sphemb.evaluation._findings import Found, found_in_image
from sphemb.evaluation._pictures import draw_pictures
from sphemb.evaluation._report import write_report
from sphemb.evaluation._score import Evaluation, ScoredImage, evaluate
from sphemb.evaluation._shifted import PixelGrid, fullest_first
from sphemb.evaluation._tiled import TiledPrediction

__all__ = [
    "Evaluation",
    "Found",
    "PixelGrid",
    "ScoredImage",
    "TiledPrediction",
    "draw_pictures",
    "evaluate",
    "found_in_image",
    "fullest_first",
    "write_report",
]
