# ruff: noqa: F401 (the imports are what is public)
"""Evaluation: a split through predict and the metrics, and the pictures of it.

* `evaluate`, `Evaluation`, `ScoredImage`: scores, also of single images, and samples.
* `draw_pictures`, `write_report`: pictures of an evaluation, and a page in a browser.
* `PixelGrid`, `fullest_first`: the pixels of an image under mean shift.
* `TiledPrediction`, `SizedPrediction`, `found_in_image`: predictions for images of any
  size, on the host; `segment`, for an image in memory.
"""

from sphemb.evaluation._large import (
    Found,
    SizedPrediction,
    TiledPrediction,
    found_in_image,
)
from sphemb.evaluation._pictures import (
    PixelGrid,
    draw_pictures,
    fullest_first,
    write_report,
)
from sphemb.evaluation._score import Evaluation, ScoredImage, evaluate
from sphemb.evaluation._segment import segment
