"""The scores of groups as proposals for objects.

Shape letters: B images, H rows, W columns, K label maps.
"""

from __future__ import annotations

from typing import Any

from sphemb.instances import pool_proposals
from sphemb.metrics import (
    AverageRecall,
    InstanceCount,
    MatchedPrecision,
    ProposalRecall,
    ReachedLimit,
)
from sphemb.tasks._predictions import Groups
from sphemb.tasks._task import Batch


def group_scores(
    predictions: Groups, batch: Batch, *, num_labels: int, max_objects: int
) -> dict[str, Any]:
    """Recall of the objects by groups, their number, and what reached a limit.

    Args:
        predictions: the groups.
        batch: ``instances`` [B, H, W] and ``valid`` [B].
        num_labels: that a prediction can have.
        max_objects: of an image that can be counted.
    """
    truth, valid = batch["instances"], batch["valid"]
    return {
        "average_recall": AverageRecall.from_batch(
            predictions.labels,
            truth,
            max_predicted=num_labels,
            max_true=max_objects,
            valid=valid,
        ),
        "instance_count": InstanceCount.from_batch(
            predictions.num_groups - 1,  # the background is no instance
            truth,
            max_true=max_objects,
            valid=valid,
        ),
        **{
            f"limit_{name}": ReachedLimit.from_batch(reached, name=name, valid=valid)
            for name, reached in predictions.reached.items()
        },
    }


def matched_scores(
    predictions: Groups, batch: Batch, *, max_components: int, max_objects: int
) -> dict[str, Any]:
    """Parts against objects, one to one; settings as for `group_scores`."""
    return {
        "matched_precision": MatchedPrecision.from_batch(
            predictions.labels,
            batch["instances"],
            max_predicted=max_components,
            max_true=max_objects,
            valid=batch["valid"],
        )
    }


def budget_scores(
    predictions: Groups,
    batch: Batch,
    *,
    num_labels: int,
    max_objects: int,
    budgets: tuple[int, ...],
    max_iou: float,
    min_size: int,
) -> dict[str, Any]:
    """Recall by so many proposals, of all concentrations together.

    Args:
        predictions: with ``proposals`` [B, K, H, W].
        batch: as for `group_scores`.
        num_labels: as for `group_scores`.
        max_objects: as for `group_scores`.
        budgets: numbers of proposals.
        max_iou: see `sphemb.instances.pool_proposals`.
        min_size: see there.
    """
    maps: Any = predictions.proposals
    pool = pool_proposals(
        maps.reshape(*maps.shape[:2], -1),
        max_groups=num_labels,
        max_iou=max_iou,
        min_size=min_size,
    )
    return {
        "proposals": ProposalRecall.from_batch(
            maps,
            pool,
            batch["instances"],
            max_true=max_objects,
            budgets=budgets,
            valid=batch["valid"],
        )
    }
