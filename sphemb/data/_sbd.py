"""Masks of the Semantic Boundaries Dataset: MATLAB files, one for each image.

H W image size.
"""

from __future__ import annotations

import numpy as np

from sphemb._checks import InputError
from sphemb.data.files import Publication, load_variable, reading_matlab

SBD = Publication(
    what="the Semantic Boundaries Dataset",
    url="http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    "semantic_contours/benchmark.tgz",
    algorithm="md5",
    digest="82b4d87ceb2ed10f6038a1cba92111cb",
    root="benchmark_RELEASE/dataset",
    landmark="inst",
    folders=("inst",),
)


def read_sbd(data: bytes, *, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the instances of an ``inst/*.mat`` and the classes that they have.

    The file holds a structure ``GTinst`` with ``Segmentation``, [H, W] numbers of
    instances, and ``Categories``, the class of each. SBD has no void.

    Args:
        data: the file's bytes.
        who: what to call the file in a complaint.

    Returns:
        int32 [H, W] instances and int32 [H, W] classes; 0 is background in both.

    Raises:
        InputError: no such file, or an instance without a class.

    References:
        Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.
    """
    with reading_matlab(who, "a mask of SBD"):
        truth = load_variable(data, "GTinst")[0, 0]
        instances = np.asarray(truth["Segmentation"]).astype(np.int32)
        classes = np.asarray(truth["Categories"]).ravel().astype(np.int32)
    if instances.ndim != 2 or instances.size == 0:
        raise InputError(
            f"{who} must have GTinst.Segmentation [H, W], got {instances.shape}"
        )
    if instances.min() < 0 or instances.max() > len(classes):
        raise InputError(
            f"{who} must number its {len(classes)} GTinst.Categories in "
            f"GTinst.Segmentation, got numbers from {instances.min()} to "
            f"{instances.max()}"
        )
    return instances, np.concatenate([[0], classes]).astype(np.int32)[instances]
