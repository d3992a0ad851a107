"""Which files a run's predictions are written to."""

from __future__ import annotations

from sphemb.cli._prediction_files import (
    BoundaryFiles,
    ClassFiles,
    ClusterFiles,
    PredictionFiles,
)
from sphemb.cli._result_files import ResultFiles
from sphemb.tasks import BoundaryMap, ClassMap, Clusters, Detections
from sphemb.training import Trained


def prediction_files(trained: Trained) -> PredictionFiles:
    """The files of a run's predictions, by their type."""
    for kind, files in {
        BoundaryMap: BoundaryFiles,
        Clusters: ClusterFiles,
        ClassMap: ClassFiles,
        Detections: ResultFiles,
    }.items():
        if issubclass(trained.experiment.task.prediction, kind):
            return files(trained)
    return PredictionFiles(trained)
