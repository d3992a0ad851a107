"""Which files a run's predictions are written to."""

from __future__ import annotations

from sphemb.cli._prediction_files import (
    BoundaryFiles,
    ClassFiles,
    ClusterFiles,
    PredictionFiles,
)
from sphemb.cli._result_files import ResultFiles
from sphemb.tasks import Boundaries, Instances, Picie, Semantic
from sphemb.training import Trained


def prediction_files(trained: Trained) -> PredictionFiles:
    """The files of a run's task."""
    task = trained.experiment.task
    for kind, files in {
        Boundaries: BoundaryFiles,
        Semantic: ClassFiles,
        Instances: ResultFiles,
        Picie: ClusterFiles,
    }.items():
        if isinstance(task, kind):
            return files(trained)
    return PredictionFiles(trained)
