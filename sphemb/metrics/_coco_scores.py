"""COCO's own scores of masks, computed on the host by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb._coco import encode_mask, evaluate_coco
from sphemb.metrics._metric import check_names
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

    Unlike in :class:`ProposalRecall`, detections and objects are matched one to one,
    and only 100 of an image are used. Void is a crowd region of every class: a
    detection in it is neither right nor wrong.

    Args:
        label_maps: of every image int [H, W] or [K, H, W]; images may differ in size.
        truth: of every image int [H, W]; -1 void, 0 background, 1.. objects.
        scores: of every image float [G] or [K, G]; ``scores[k, g]`` is the confidence
            of the pixels labelled g in map k, -inf if they are no object. Empty groups
            are ignored.
        classes: of every image int [G] or [K, G]; groups of class 0 or below are
            ignored. By default all are of class 1.
        true_classes: of every image int [Q + 1], the class of every object; the first
            is not read. Objects of class 0 or below are void. Given with ``classes``.
        names: of the classes, the background's first, for one entry each.

    Returns:
        ``AP`` (mean over .5:.05:.95), ``AP50``, ``AP75``, ``AR@1``, ``AR@10``,
        ``AR@100``, and ``AP_`` and ``AR_`` with ``small``, ``medium``, ``large``; all
        are means over the classes that have such objects, NaN without any;
        ``AP/{name}``.

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
    none = [None] * number
    own_classes = none if classes is None else classes
    object_classes = none if true_classes is None else true_classes
    given = {"truth": truth, "scores": scores}
    given |= {"classes": own_classes, "true_classes": object_classes}
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
    number = 1 + max([*used, len(names) - 1, 1])
    check_names(names, number)
    titles = names or [str(c) for c in range(number)]
    sizes = [dict(zip(("height", "width"), np.shape(t), strict=True)) for t in truth]
    content = {
        "images": [{"id": i, **size} for i, size in enumerate(sizes)],
        "annotations": objects,
        "categories": [{"id": c, "name": titles[c]} for c in range(1, number)],
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
