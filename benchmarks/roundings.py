"""Several roundings of the same embeddings, side by side.

    python -m benchmarks.roundings --workdir RUN [--split test] [--images 100]

Takes a run of the spectral loss (``configs/digits_spectral.py``) or of the margin loss
(``configs/digits.py``), and scores what every rounding makes of its held-out images.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from sphemb.cli import one_line_errors
from sphemb.evaluation import Evaluation, evaluate
from sphemb.tasks import Spectral
from sphemb.training import Experiment, Trained, load_run

_TRIES = 8
_REPEATS = 5
ROUNDINGS = {
    "KwikCluster, one order": {"rounding": "kwik_cluster", "min_size": 1},
    "KwikCluster, best of {}": {"rounding": "kwik_cluster", "min_size": 1, "tries": 0},
    "the same, small ones dissolved": {"rounding": "kwik_cluster", "tries": 0},
    "orthogonal, one start": {"rounding": "orthogonal"},
    "orthogonal, best of {}": {"rounding": "orthogonal", "tries": 0},
    "mean shift, label_modes": {"rounding": "mean_shift"},
}
_COLUMNS = {
    "accuracy": "pair_accuracy",
    "precision": "pair_precision",
    "recall": "pair_recall",
    "ARI": "adjusted_rand_index",
    "ARI, mean": "adjusted_rand_index/image",
    "mean best IoU": "mean_best_iou",
    "count exact": "count_exact",
    "ms an image": "milliseconds",
}


def task_settings(run: ml_collections.ConfigDict, **changes) -> dict:
    """Settings of `Spectral` that round as a run's task says, but for the changes.

    Args:
        run: ``config.task`` of a run of `Spectral` or of `Proposals`.
        **changes: settings of `Spectral`.
    """
    known = {field.name for field in dataclasses.fields(Spectral)}
    settings = {k: v for k, v in run.items() if k in known}
    if run.name != "Spectral":
        # There it is a cosine to modes; KwikCluster's own is one half.
        settings["mode_threshold"] = settings.pop("threshold")
        for setting in ("num_samples", "weight_power"):
            settings.pop(setting, None)
    return settings | {"name": "Spectral"} | changes


def score_roundings(
    trained: Trained,
    split: str,
    *,
    names: Iterable[str] = tuple(ROUNDINGS),
    images: int | None = None,
    tries: int = _TRIES,
) -> dict[str, dict[str, float]]:
    """Scores every rounding on the same images, see `score_rounding`.

    Args:
        trained: a run of `Spectral` or `Proposals`.
        split: of its data.
        names: of `ROUNDINGS`.
        images: the first so many of it; by default as many as the run is scored on.
        tries: orders, or starts, where the best of several is kept.

    Returns:
        rounding -> score -> value.
    """
    rows = {}
    for name in names:
        settings = ROUNDINGS[name]
        changes = settings | ({"tries": tries} if "tries" in settings else {})
        rows[name.format(tries)] = score_rounding(trained, split, changes, images)
    return rows


def score_rounding(
    trained: Trained, split: str, changes: dict, images: int | None = None
) -> dict[str, float]:
    """Scores a rounding by the metrics of `Spectral`.

    Args:
        trained: a run of `Spectral` or `Proposals`.
        split: of its data.
        changes: of the settings, see `task_settings`.
        images: see `score_roundings`.

    Returns:
        score -> value. ``milliseconds`` is the time of the rounding alone, of one image
        at full size, the best of several.
    """
    config = trained.experiment.config.copy_and_resolve_references().unlock()
    config.task = task_settings(config.task, **changes)
    if images:
        config.evaluation[f"num_{split}"] = images
    rounded = dataclasses.replace(trained, experiment=Experiment(config), task_state=())
    evaluation = evaluate(rounded, split, num_samples=1)
    taken = _milliseconds(rounded.experiment.task, evaluation)
    return evaluation.scores | {"milliseconds": taken}


def _milliseconds(task: Any, evaluation: Evaluation) -> float:
    samples, found = evaluation.samples, evaluation.predictions
    batch = {name: jnp.asarray(samples[name][:1]) for name in ("image", "mask")}

    @jax.jit
    def labels(embedding):
        return task.predict(lambda image: {"embedding": embedding}, (), batch).labels

    times = []
    for _ in range(1 + _REPEATS):  # the first compiles
        start = time.perf_counter()
        labels(found.embedding[:1]).block_until_ready()
        times.append(time.perf_counter() - start)
    return 1000.0 * min(times[1:])


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """The scores as a table in Markdown."""
    lines = [
        f"| rounding | {' | '.join(_COLUMNS)} |",
        f"|---|{'---:|' * len(_COLUMNS)}",
    ]
    for name, scores in rows.items():
        cells = (
            f"{scores[key]:.1f}" if key == "milliseconds" else f"{scores[key]:.3f}"
            for key in _COLUMNS.values()
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--images", type=int)
    parser.add_argument("--tries", type=int, default=_TRIES)
    flags = parser.parse_args()
    with one_line_errors():
        rows = score_roundings(
            load_run(flags.workdir), flags.split, images=flags.images, tries=flags.tries
        )
        print(format_table(rows))


if __name__ == "__main__":
    main()
