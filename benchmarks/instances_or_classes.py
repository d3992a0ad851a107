"""The same network for classes and for instances (Barnes & Dubrawski 2018, Table 1).

    python -m benchmarks.instances_or_classes --coco_dir DIR [--runs runs]

Trains ``configs/voc_spectral.py:coco_softmax`` and ``:coco_spectral`` on the same
images, VOC's classes of a few images of COCO, and prints the table. Runs that are there
already go on, or are scored as they are.
"""

from __future__ import annotations

import argparse
import pathlib

from sphemb.cli import one_line_errors, run_training
from sphemb.configs import voc_spectral

VARIANTS = ("coco_softmax", "coco_spectral")
# Row -> the variant it is of, and the prefix of its scores.
_ROWS = {
    "softmax, classes against classes": ("coco_softmax", "classes/"),
    "softmax, class regions against instances": ("coco_softmax", "regions/"),
    "softmax, their connected parts against instances": ("coco_softmax", "parts/"),
    "spectral, clusters against instances": ("coco_spectral", ""),
}
_PUBLISHED = {
    "published, FCN-8 on VOC, classes": (0.859, 0.864, 0.915),
    "published, deep spectral on VOC, instances": (0.852, 0.848, 0.919),
}
_SCORES = ("pair_accuracy", "pair_precision", "pair_recall", "adjusted_rand_index")


def format_table(summaries: dict[str, dict[str, float]]) -> str:
    """The table, from the ``summary.json`` of each of `VARIANTS`."""
    lines = ["| | accuracy | precision | recall | ARI |", "|---|---:|---:|---:|---:|"]
    for name, (variant, prefix) in _ROWS.items():
        found = [summaries[variant][prefix + score] for score in _SCORES]
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in found)} |")
    for name, published in _PUBLISHED.items():
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in published)} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coco_dir", required=True)
    parser.add_argument("--data_dir", help="where prepared data sets are kept")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with one_line_errors():
        summaries = {}
        for variant in VARIANTS:
            config = voc_spectral.get_config(variant)
            config.seed = flags.seed
            config.data.coco_dir = flags.coco_dir
            config.data.data_dir = flags.data_dir
            if flags.steps:
                config.train.num_steps = flags.steps
            workdir = flags.runs / f"voc_spectral-{variant}-{flags.seed}"
            summaries[variant] = run_training(config, workdir)
        print(format_table(summaries))


if __name__ == "__main__":
    main()
