"""Tasks: what is learned, predicted and measured; `Stateless` is a base for own ones.

A configuration names a task by its class, ``config.task.name = "Proposals"`` or
``"my_package.tasks:MyTask"``; the other entries of ``config.task`` are its settings.
"""

from sphemb.tasks._boundaries import Boundaries, boundary_levels
from sphemb.tasks._groups import ROUNDINGS, Proposals, Spectral
from sphemb.tasks._instances import Instances
from sphemb.tasks._objects import Objects
from sphemb.tasks._picie import Picie
from sphemb.tasks._picie_clusters import PicieState
from sphemb.tasks._pixels import embed_pixels, placed_map
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._semantic import Semantic
from sphemb.tasks._task import (
    Apply,
    Batch,
    BoundaryMap,
    ClassMap,
    Clusters,
    Detections,
    Groups,
    LabelMap,
    Maps,
    Predictions,
    Stateless,
    Task,
    TaskState,
    compute_scores,
    groups_of,
    maps_of,
    measures_on_host,
    named_arrays,
    predict_and_measure,
)

__all__ = [
    "ROUNDINGS",
    "Apply",
    "Batch",
    "Boundaries",
    "BoundaryMap",
    "ClassMap",
    "Clusters",
    "Detections",
    "Groups",
    "Instances",
    "LabelMap",
    "Maps",
    "Objects",
    "Picie",
    "PicieState",
    "Predictions",
    "Proposals",
    "Readoff",
    "Semantic",
    "Spectral",
    "Stateless",
    "Task",
    "TaskState",
    "boundary_levels",
    "compute_scores",
    "embed_pixels",
    "groups_of",
    "maps_of",
    "measures_on_host",
    "named_arrays",
    "placed_map",
    "predict_and_measure",
]
