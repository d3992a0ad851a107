"""What tasks predict: four types, on which files, pictures and tiles dispatch.

Shape letters: B images, H W image size, D embedding dimension, K label maps, G groups,
C classes, F features, S branches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any  # of JAX, or of NumPy on the host


class Groups(NamedTuple):
    """Instances without classes: the groups of the pixels.

    Attributes:
        labels: int32 [B, H, W], groups 0, 1, ..; `VOID` where masked.
        num_groups: int32 [B], the background among them.
        embedding: float32 [B, H, W, D], unit vectors.
        reached: name of a setting of the task that limits the number of groups -> bool
            [B], True where the limit was reached, so that there may be more.
        background: int32 [B], the group that is the background; None if every group is
            an instance.
        proposals: int32 [B, K, H, W], further label maps whose groups are proposals;
            None if there are none.
    """

    labels: Array
    num_groups: Array
    embedding: Array
    reached: dict[str, Array]
    background: Array | None = None
    proposals: Array | None = None


class ClassMap(NamedTuple):
    """A class of the data set for each pixel.

    Attributes:
        classes: int32 [B, H, W], 0..C-1; `VOID` where masked.
        embedding: float32 [B, H, W, D], unit vectors, or None.
    """

    classes: Array
    embedding: Array | None = None


class Clusters(ClassMap):
    """A class map whose classes have no names: clusters that were found.

    Their numbers carry no meaning, and none of them is the background.
    """

    __slots__ = ()


class BoundaryMap(NamedTuple):
    """How much each pixel looks like a boundary.

    Attributes:
        boundary: float32 [B, H, W] in [0, 1]; 0 where masked.
        branches: float32 [B, S, H, W, D], unit vectors of each branch, or None.
    """

    boundary: Array
    branches: Array | None = None


class Detections(NamedTuple):
    """Instances with a class and a score.

    Attributes:
        groups: the groups, with ``proposals`` [B, K, H, W].
        classes: int32 [B, H, W], the class of each pixel; `VOID` where masked.
        proposal_classes: int32 [B, K, G], of each group of the proposals.
        proposal_scores: float32 [B, K, G], -inf for a group that is not a detection.
        proposal_features: float32 [B, K, G, F], what the scores are computed from, or
            None.
    """

    groups: Groups
    classes: Array
    proposal_classes: Array
    proposal_scores: Array
    proposal_features: Array | None = None


Predictions = Groups | ClassMap | BoundaryMap | Detections


def groups_of(predictions: Predictions) -> Groups | None:
    """The groups of a prediction, None if it has none."""
    if isinstance(predictions, Detections):
        return predictions.groups
    return predictions if isinstance(predictions, Groups) else None


def named_arrays(predictions: Predictions) -> dict[str, Any]:
    """The arrays of a prediction by their names, as an export returns them.

    Those of ``reached`` are called ``reached/NAME``.
    """
    arrays: dict[str, Any] = {}
    for name, value in predictions._asdict().items():
        if isinstance(value, Groups):
            arrays |= named_arrays(value)
        elif isinstance(value, dict):
            arrays |= {f"{name}/{key}": array for key, array in value.items()}
        elif value is not None:
            arrays[name] = value
    return arrays
