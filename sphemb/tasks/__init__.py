"""Tasks: which stations of the data meet. One file each, all a `Task`.

* `Boundaries`: boundaries by margin loss, logistic loss, or one after the other;
  `boundary_levels`: their map in 16 bits.
* `Picie`: classes without labels, by k-means and its labels; `PicieState`.
* `Proposals`: instances by margin loss and recurrent mean shift.
* `Semantic`: a class for each pixel, with or without an embedding loss.
* `Instances`: proposals with a class and a score.
* `Spectral`: instances by spectral loss, rounded by one of `ROUNDINGS`.
* `REACHED`, `reached_names`: the limits of what is found in predictions, see `Maps`.
* `LabelMap`: what a task reads of the data's labels.
* `predict_and_measure`: what is compiled of a prediction that is scored, metrics
  among it unless `measures_on_host`; `compute_scores` of them.

A configuration names a task by its class: ``config.task.name = "Proposals"``; the other
entries of ``config.task`` are its settings.
"""

from sphemb.tasks._boundaries import Boundaries, boundary_levels
from sphemb.tasks._instances import Instances
from sphemb.tasks._picie import Picie
from sphemb.tasks._picie_state import PicieState
from sphemb.tasks._proposals import Proposals
from sphemb.tasks._semantic import Semantic
from sphemb.tasks._spectral import ROUNDINGS, Spectral
from sphemb.tasks._task import (
    REACHED,
    Apply,
    Batch,
    LabelMap,
    Maps,
    Task,
    TaskState,
    compute_scores,
    measures_on_host,
    predict_and_measure,
    reached_names,
)

__all__ = [
    "REACHED",
    "ROUNDINGS",
    "Apply",
    "Batch",
    "Boundaries",
    "Instances",
    "LabelMap",
    "Maps",
    "Picie",
    "PicieState",
    "Proposals",
    "Semantic",
    "Spectral",
    "Task",
    "TaskState",
    "boundary_levels",
    "compute_scores",
    "measures_on_host",
    "predict_and_measure",
    "reached_names",
]
