"""COCO's own scores of masks, computed on the host by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError, check_floating, check_integer, check_shape
from sphemb._coco import encode_mask, evaluate_coco


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

    Not the recall of :class:`ProposalRecall`: here detections compete for objects one
    to one, at most 100 of an image are looked at, and void pixels are handed over as a
    crowd region of every class, so that a detection that lies in it is neither right
    nor wrong. Without classes all objects are of one.

    Args:
        label_maps: of every image int [H, W] or [K, H, W]; images may differ in size.
        truth: of every image int [H, W]; -1 void, 0 background, 1.. objects.
        scores: of every image float [G] or [K, G]; ``scores[k, g]`` is the confidence
            in the pixels labelled g in map k as an object, -inf where they are none.
            An empty group is none.
        classes: of every image int [G] or [K, G], the class of each group; groups of
            class 0 or below are none.
        true_classes: of every image int [Q + 1], the class of every object; the first
            is not looked at. Objects of class 0 or below are void.
        names: of the classes, the background's first, for one entry each.

    Returns:
        ``AP`` (mean over .5:.05:.95), ``AP50``, ``AP75``, ``AR@1``, ``AR@10``,
        ``AR@100``, and ``AP_`` and ``AR_`` with ``small``, ``medium``, ``large``; all
        are means over the classes that have such objects, NaN where there is none;
        ``AP/{name}``.

    Raises:
        InputError: numbers of images or shapes that do not go
            together, scores that are NaN, a label without a score, classes of one side
            only.

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
    given = {"truth": truth, "scores": scores}
    if classes is not None and true_classes is not None:
        given |= {"classes": classes, "true_classes": true_classes}
    for name, values in given.items():
        if len(values) != len(label_maps):
            raise InputError(
                f"{name} must have one entry per image ({len(label_maps)}), got "
                f"{len(values)}"
            )
    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for i, (maps, true, score) in enumerate(
        zip(label_maps, truth, scores, strict=True)
    ):
        true, maps, score = _checked(i, maps, true, score)
        own, theirs = _classes(
            i,
            true,
            score,
            None if classes is None else classes[i],
            None if true_classes is None else true_classes[i],
        )
        found: list[dict[str, Any]] = []
        for k, g in np.argwhere(np.isfinite(score) & (own > 0)):
            mask = maps[k] == g
            if mask.any():
                found.append(
                    {**_annotation(i, own[k, g], mask), "score": float(score[k, g])}
                )
        void = (true < 0) | ((true > 0) & (theirs[true] <= 0))
        for q in np.unique(true[(true > 0) & ~void]):
            objects.append(_annotation(i, theirs[q], true == q))
        if void.any():
            # COCO's crowds are of a class: this one is of all that were found here.
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
    values, of_classes = evaluate_coco(content, detections)
    return values | (_prefixed(of_classes) if names else {})


def coco_file_scores(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The scores of :func:`coco_scores`, of what COCO's files hold, as it is.

    Args:
        annotations: of ``instances_*.json``: ``images``, ``annotations`` and
            ``categories``. An ``area`` that is missing is that of the mask.
        results: a list of ``image_id``, ``category_id``, ``segmentation`` and
            ``score``.

    Returns:
        As :func:`coco_scores`, with an ``AP/{name}`` for each category.

    Raises:
        InputError: an outline is missing or damaged, or its image is not listed.

    References:
        cocodataset.org/#format-results.
    """
    values, of_classes = evaluate_coco(annotations, results)
    return values | _prefixed(of_classes)


def _prefixed(of_classes: Mapping[str, float]) -> dict[str, float]:
    return {f"AP/{name}": value for name, value in of_classes.items()}


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


def _classes(
    i: int, true: np.ndarray, score: np.ndarray, own: Any, theirs: Any
) -> tuple[np.ndarray, np.ndarray]:
    """One image's classes of groups [K, G] and of objects [Q + 1]; 1 without any."""
    if own is None:
        return np.ones(score.shape, int), np.ones(int(true.max(initial=0)) + 1, int)
    check_integer(f"classes[{i}]", own)
    check_integer(f"true_classes[{i}]", theirs)
    own, theirs = np.asarray(own), np.asarray(theirs)
    own = own[None] if own.ndim == 1 else own
    sizes = {"K": score.shape[0], "G": score.shape[1]}
    check_shape(f"classes[{i}]", own, "K G", dims=sizes, beside=f"scores[{i}]")
    check_shape(f"true_classes[{i}]", theirs, "Q")
    if true.max(initial=0) >= len(theirs):
        raise InputError(
            f"true_classes[{i}] must have a class for every object, got {len(theirs)} "
            f"for labels up to {true.max()}: the first is of label 0"
        )
    return own, theirs


def _annotation(image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": int(category),
        "segmentation": encode_mask(mask),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }
