"""Trains on few images, from scratch and from a network of the package.

    python -m benchmarks.few_images DIR --out runs/few

DIR is a folder of images and masks with a test split. Of the validation images, which
the network has not seen if DIR is the folder that it is from, some are drawn by the
seed, the same for both starts, and ``configs/nuclei.py`` is trained on them; void
counts as background. Each line has the AP on all test images.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import numpy as np

from benchmarks._folders import write_folder
from sphemb.cli import one_line_errors, run_training
from sphemb.configs import nuclei
from sphemb.training import Experiment

_SCORES = ("matched_precision@0.5", "matched_precision@0.7", "mean_best_iou")


def write_images(
    experiment: Experiment, split: str, chosen: list[int], to: pathlib.Path
) -> None:
    """Copies examples of a split to TO/images and TO/masks."""
    examples = map(experiment.source(split).__getitem__, chosen)
    write_folder(
        (
            (one["image"], np.maximum(one["instances"], 0).astype(np.uint16))
            for one in examples
        ),
        to,
    )


def train(options: argparse.Namespace, number: int, seed: int) -> None:
    """Trains from each start, and prints the scores."""
    config = nuclei.get_config()
    config.data.dir = options.dir
    given = Experiment(config)
    draw = np.random.default_rng(seed).permutation(len(given.source("validation")))
    root = options.out / f"{number}-{seed}"
    write_images(given, "validation", draw[:number].tolist(), root / "data" / "train")
    every = list(range(len(given.source("test"))))
    write_images(given, "test", every, root / "data" / "val")
    for start in (None, options.start):
        config = nuclei.get_config()
        config.seed = seed
        config.data.dir = str(root / "data")
        config.train.update(init_from=start, num_steps=options.steps, eval_every=0)
        config.data.intensity = "full"  # the copies are made from what was read
        config.evaluation.update(num_validation=1, num_test=len(every))
        began = time.process_time()
        summary = run_training(config, root / ("start" if start else "scratch"))
        scores = {name: round(summary[name], 3) for name in _SCORES if name in summary}
        minutes = round((time.process_time() - began) / 60, 1)
        record = {"images": number, "seed": seed, "from": start, "minutes": minutes}
        print(json.dumps(record | scores), flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dir")
    parser.add_argument("--start", default="nuclei", help="a name, a run or a file")
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    with one_line_errors():
        for seed in options.seeds:
            for number in options.images:
                train(options, number, seed)


if __name__ == "__main__":
    main()
