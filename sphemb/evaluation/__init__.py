"""Evaluation: a split through predict and the metrics, and the pictures of it.

* `evaluate`, `Evaluation`: scores and samples.
* `draw_pictures`: what an evaluation saw.
"""

from sphemb.evaluation._pictures import draw_pictures
from sphemb.evaluation._score import Evaluation, evaluate

__all__ = ["Evaluation", "draw_pictures", "evaluate"]
