"""Score COCO results of instances against COCO annotations."""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections import defaultdict
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb.cli._results import check_results, make_folder, progress, write_table
from sphemb.data import draw_annotations
from sphemb.metrics import RegionPrecision
from sphemb.training import read_json, write_json

_SCORES, _CLASSES = "scores.json", "classes.csv"


def run_instance_scores(
    results: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores instances with class and score, and prints AP^r and COCO's AP.

    AP^r removes crowds from all masks; where objects overlap in the annotations, the
    smaller lies on top, as the reader of this library draws them. COCO's AP is
    computed by pycocotools from the files as they are.

    Args:
        results: COCO's results: a JSON list of ``image_id``, ``category_id``,
            ``segmentation`` (run lengths) and ``score``.
        groundtruth: COCO's ``instances_*.json``.
        out: gets ``scores.json`` and ``classes.csv``.
        overwrite: replace results that are there.

    Returns:
        What ``scores.json`` holds.

    Raises:
        InputError: a file that is something else, results for images or categories
            that the annotations do not have, results that are there. Nothing is
            written then.

    References:
        ``docs/semantic_benchmark.md``.
    """
    check_results(out, (_SCORES, _CLASSES), overwrite=overwrite)
    content, found = read_json(groundtruth), read_json(results)
    try:
        categories = {c["id"]: str(c["name"]) for c in content["categories"]}
        images = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
        true, detected = defaultdict(list), defaultdict(list)
        for annotation in content["annotations"]:
            true[annotation["image_id"]].append(annotation)
        for result in found:
            detected[result["image_id"]].append(result)
        ids = {result["category_id"] for result in found}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{results} must hold COCO's results, and {groundtruth} its annotations, "
            f"but one of them lacks {error}"
        ) from error
    for what, strange in (
        ("image_id", set(detected) - set(images)),
        ("category_id", ids - set(categories)),
    ):
        if strange:
            raise InputError(
                f"{results} must have what {groundtruth} has, but its {what} "
                f"{sorted(strange, key=str)[0]!r} is not there"
            )
    numbers = {c: n for n, c in enumerate(sorted(categories), start=1)}
    total = RegionPrecision.empty(num_classes=len(numbers) + 1)
    for image, size in progress(images.items(), "scoring", len(images)):
        truth, kinds = draw_annotations(true[image], size, path=groundtruth)
        masks = [
            draw_annotations([result], size, path=results)[0] > 0
            for result in detected[image]
        ]
        total = total.merge(
            RegionPrecision.from_image(
                np.stack(masks).astype(int) - 1 if masks else np.full((1, *size), -1),
                truth,
                scores=np.array(
                    [[float(r["score"])] for r in detected[image]] or [[-np.inf]]
                ),
                classes=np.array(
                    [[numbers[r["category_id"]]] for r in detected[image]] or [[1]]
                ),
                true_classes=np.array([0, *(numbers[c] for c in kinds)]),
                num_classes=len(numbers) + 1,
            )
        )
    names = ["background", *(categories[c] for c in sorted(categories))]
    record: dict[str, Any] = {
        **total.compute(names),
        **_coco(content, found),
        "num_images": len(images),
    }
    if out is not None:
        make_folder(out)
        volumes = total.class_precisions().mean(axis=1)
        write_table(
            out / _CLASSES,
            ("class", "ap_r@0.5", "ap_r_vol", "objects"),
            [
                (
                    name,
                    f"{record[f'ap_r@0.5/{name}']:.6f}",
                    f"{volumes[n]:.6f}",
                    int(total.num_objects[n]),
                )
                for n, name in enumerate(names)
                if n
            ],
        )
        write_json(out / _SCORES, record)  # last: where it is, the others are
    for name in ("ap_r@0.5", "ap_r@0.7", "ap_r_vol", "AP", "AP50", "AP75"):
        print(f"{name:9} {record[name]:.4f}")
    where = f"; see {out}" if out is not None else ""
    print(f"on {len(images)} images{where}", flush=True)
    return record


def _coco(content: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, float]:
    """COCO's own AP of the files as they are."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = ("AP", "AP50", "AP75")
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = content
        truth.createIndex()
        if not found or not content["annotations"]:
            return dict.fromkeys(names, float("nan" if found else 0.0))
        evaluation = COCOeval(truth, truth.loadRes([dict(r) for r in found]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    return {name: float(value) for name, value in zip(names, values, strict=False)}
