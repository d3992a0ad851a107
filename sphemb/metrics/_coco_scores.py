"""COCO's own scores of masks, computed on the host by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb._coco import encode_mask, evaluate_coco
from sphemb.metrics._regions import check_detections


def coco_scores(
    label_maps: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    *,
    classes: Sequence[np.ndarray] | None = None,
    true_classes: Sequence[np.ndarray] | None = None,
    names: Sequence[str] = (),
) -> dict[str, float]:
    """Average precision and recall as COCO defines them, of label maps.

    Differs from :class:`ProposalRecall`: detections are matched with objects one to
    one, and only 100 of an image are used. Void is a crowd region of every class, so
    that a detection in it is neither right nor wrong. Without classes all objects are
    of one.

    Args:
        label_maps: of every image int [H, W] or [K, H, W]; images may differ in size.
        truth: of every image int [H, W]; -1 void, 0 background, 1.. objects.
        scores: of every image float [G] or [K, G]; ``scores[k, g]`` is the confidence
            of the pixels labelled g in map k, -inf if they are no object. Empty groups
            are ignored.
        classes: of every image int [G] or [K, G]; groups of class 0 or below are
            ignored.
        true_classes: of every image int [Q + 1], the class of every object; the first
            is not read. Objects of class 0 or below are void.
        names: of the classes, the background's first, for one entry each.

    Returns:
        ``AP`` (mean over .5:.05:.95), ``AP50``, ``AP75``, ``AR@1``, ``AR@10``,
        ``AR@100``, and ``AP_`` and ``AR_`` with ``small``, ``medium``, ``large``; all
        are means over the classes that have such objects, NaN without any;
        ``AP/{name}``.

    Raises:
        InputError: numbers of images or shapes that do not fit, scores that are NaN, a
            label without a score, classes of one side only.

    References:
        Lin et al. (2014), "Microsoft COCO", and cocodataset.org/#detection-eval.

    >>> truth, found = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[1, 1, 1, 2, 0, 0]])
    >>> scores = coco_scores(
    ...     [found], [truth], [np.array([-np.inf, 0.9, 0.8])],
    ...     classes=[np.array([0, 1, 2])], true_classes=[np.array([0, 1, 2])],
    ...     names=("background", "cat", "dog"),
    ... )
    >>> [round(scores[name], 3) for name in ("AP50", "AP/cat", "AP/dog")]
    [0.5, 1.0, 0.0]
    """
    if (classes is None) != (true_classes is None):
        raise InputError("classes and true_classes must be given together, got one")
    number = len(label_maps)
    given = {
        "truth": truth,
        "scores": scores,
        "classes": classes or [None] * number,
        "true_classes": true_classes or [None] * number,
    }
    for name, values in given.items():
        if len(values) != number:
            raise InputError(
                f"{name} must have one entry per image ({number}), got {len(values)}"
            )
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for i, image in enumerate(zip(label_maps, *given.values(), strict=True)):
        maps, true, score, own, theirs = check_detections(*image, at=f"[{i}]")
        found: list[dict[str, Any]] = []
        for k, g in np.argwhere(np.isfinite(score) & (own > 0)):
            mask = maps[k] == g
            if mask.any():
                item = _annotation(i, own[k, g], mask)
                found.append({**item, "score": float(score[k, g])})
        void = (true < 0) | ((true > 0) & (theirs[true] <= 0))
        for q in np.unique(true[(true > 0) & ~void]):
            objects.append(_annotation(i, theirs[q], true == q))
        if void.any():
            # COCO's crowds have a class: one crowd for each class that is found here.
            for c in {detection["category_id"] for detection in found}:
                objects.append(_annotation(i, c, void) | {"iscrowd": 1})
        detections += found
    used = {a["category_id"] for a in (*objects, *detections)}
    highest = max([*used, len(names) - 1, 1])
    if names and highest >= len(names):
        raise InputError(
            f"names must be those of {highest + 1} classes, got {len(names)}"
        )
    content = {
        "images": [
            {"id": i, "height": true.shape[0], "width": true.shape[1]}
            for i, true in enumerate(truth)
        ],
        "annotations": objects,
        "categories": [
            {"id": c, "name": names[c] if names else str(c)}
            for c in range(1, highest + 1)
        ],
    }
    values = evaluate_coco(content, detections)
    return {n: v for n, v in values.items() if names or not n.startswith("AP/")}


def coco_file_scores(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The scores of :func:`coco_scores`, from the content of COCO's files.

    Args:
        annotations: of ``instances_*.json``: ``images``, ``annotations`` and
            ``categories``. A missing ``area`` is that of the mask.
        results: a list of ``image_id``, ``category_id``, ``segmentation`` and
            ``score``.

    Returns:
        As :func:`coco_scores`, with an ``AP/{name}`` for each category.

    Raises:
        InputError: an outline is missing or damaged, or its image is not listed.

    References:
        cocodataset.org/#format-results.
    """
    return evaluate_coco(annotations, results)


def _annotation(image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": int(category),
        "segmentation": encode_mask(mask),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }
