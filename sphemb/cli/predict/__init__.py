"""The verb predict: image files in; label images, pictures and lists out."""

from sphemb.cli.predict._files import (
    DetectionFiles,
    PredictionFiles,
    files_for,
    regions_of,
    save_labels,
    save_overlay,
)
from sphemb.cli.predict._predict import (
    Predict,
    check_targets,
    image_targets,
    limit_line,
    with_smaller_tiles,
)

__all__ = [
    "DetectionFiles",
    "Predict",
    "PredictionFiles",
    "check_targets",
    "files_for",
    "image_targets",
    "limit_line",
    "regions_of",
    "save_labels",
    "save_overlay",
    "with_smaller_tiles",
]
