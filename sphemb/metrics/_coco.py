"""COCO's own scores of masks, computed on the host by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError, check_floating, check_integer, check_shape

# The order in which COCOeval.summarize leaves them in COCOeval.stats.
_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR@1",
    "AR@10",
    "AR@100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def coco_scores(
    label_maps: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
) -> dict[str, float]:
    """Average precision and recall as COCO defines them, all objects of one class.

    Not the recall of :class:`ProposalRecall`: here detections compete for objects one
    to one, at most 100 of an image are looked at, and void pixels are handed over as a
    crowd region, so that a detection that lies in it is neither right nor wrong.

    Args:
        label_maps: of every image int [H, W] or [K, H, W]; images may differ in size.
        truth: of every image int [H, W]; -1 void, 0 background, 1.. objects.
        scores: of every image float [G] or [K, G]; ``scores[k, g]`` is the confidence
            in the pixels labelled g in map k as an object, -inf where they are none.
            An empty group is none.

    Returns:
        ``AP`` (mean over .5:.05:.95), ``AP50``, ``AP75``, ``AR@1``, ``AR@10``,
        ``AR@100``, and ``AP_`` and ``AR_`` with ``small``, ``medium``, ``large``; NaN
        where there is no such object.

    Raises:
        InputError: pycocotools is missing, numbers of images or shapes that do not go
            together, scores that are NaN, a label without a score.

    References:
        Lin et al. (2014), "Microsoft COCO", and cocodataset.org/#detection-eval.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError(
            "coco_scores needs pycocotools, which is missing: pip install pycocotools"
        ) from error
    for name, given in (("truth", truth), ("scores", scores)):
        if len(given) != len(label_maps):
            raise InputError(
                f"{name} must have one entry per image ({len(label_maps)}), got "
                f"{len(given)}"
            )
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for i, (maps, true, score) in enumerate(
        zip(label_maps, truth, scores, strict=True)
    ):
        true, maps, score = _checked(i, maps, true, score)
        for q in np.unique(true[true != 0]):
            objects.append(_annotation(i, true == q) | {"iscrowd": int(q < 0)})
        for k, g in np.argwhere(np.isfinite(score)):
            mask = maps[k] == g
            if mask.any():
                found = _annotation(i, mask) | {"iscrowd": 0}
                detections.append(found | {"score": float(score[k, g])})

    images = [
        {"id": i, "height": true.shape[0], "width": true.shape[1]}
        for i, true in enumerate(truth)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (objects, detections):
            side = COCO()
            # pycocotools takes the number 0 for "no annotation".
            numbered = [a | {"id": n} for n, a in enumerate(annotations, start=1)]
            dataset: Any = {
                "images": images,
                "annotations": numbered,
                "categories": [{"id": 1}],
            }
            side.dataset = dataset
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = np.asarray(evaluation.stats, np.float64)
    values = np.where(values < 0, np.nan, values)  # -1 is COCO's word for none
    return dict(zip(_NAMES, values.tolist(), strict=True))


def _checked(
    i: int, maps: np.ndarray, true: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image's truth [H, W], maps [K, H, W] and scores [K, G]."""
    check_integer(f"truth[{i}]", true)
    check_integer(f"label_maps[{i}]", maps)
    check_floating(f"scores[{i}]", score)
    true, maps, score = np.asarray(true), np.asarray(maps), np.asarray(score)
    dims = check_shape(f"truth[{i}]", true, "H W")
    maps = maps[None] if maps.ndim == 2 else maps
    score = score[None] if score.ndim == 1 else score
    dims |= check_shape(
        f"label_maps[{i}]", maps, "K H W", dims=dims, beside=f"truth[{i}]"
    )
    check_shape(f"scores[{i}]", score, "K G", dims=dims, beside=f"label_maps[{i}]")
    if np.isnan(score).any() or np.isposinf(score).any():
        raise InputError(f"scores[{i}] must be numbers or -inf, got NaN or inf")
    if maps.max(initial=-1) >= score.shape[1]:
        raise InputError(
            f"scores[{i}] must have a score for every label, got {score.shape[1]} for "
            f"labels up to {maps.max()}: -inf says that a label is no object"
        )
    return true, maps, score


def _annotation(image: int, mask: np.ndarray) -> dict[str, Any]:
    from pycocotools.mask import encode

    return {
        "image_id": image,
        "category_id": 1,
        "segmentation": encode(np.asfortranarray(mask, np.uint8)),
        "area": int(mask.sum()),
    }
