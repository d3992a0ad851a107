"""Train, then score and draw: what ``train.py`` does."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import sys
from typing import Any

import jax
import ml_collections

import sphemb
from sphemb.evaluation import draw_pictures, evaluate
from sphemb.training import (
    Trained,
    devices,
    duration,
    load_run,
    read_log,
    train,
    write_json,
)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def default_workdir(config_name: str) -> pathlib.Path:
    """The workdir of a configuration file.

    >>> default_workdir("configs/digits.py:mnist").as_posix()
    'runs/digits-mnist'
    """
    path, _, variant = config_name.partition(":")
    stem = pathlib.Path(path).stem
    return pathlib.Path("runs", f"{stem}-{variant}" if variant else stem)


def run_training(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> dict[str, Any]:
    """Trains, evaluates the test split and draws.

    Args:
        config: see ``configs/common.py``.
        workdir: the run's folder.

    Returns:
        What is written to ``summary.json``.
    """
    workdir = pathlib.Path(workdir)

    def score(trained: Trained, split: str) -> dict[str, float]:
        return evaluate(trained, split, num_samples=1).scores

    trained = train(config, workdir, evaluate=score)
    return run_evaluation(workdir, "test", trained)


def run_evaluation(
    workdir: pathlib.Path, split: str, trained: Trained | None = None
) -> dict[str, Any]:
    """Evaluates a run, draws, and writes ``summary.json``.

    Args:
        workdir: the run's folder.
        split: ``"validation"`` or ``"test"``.
        trained: the network, if it is at hand.

    Returns:
        What was written.
    """
    trained = trained or load_run(workdir)
    evaluation = evaluate(trained, split)
    records = read_log(workdir)
    pictures = workdir / "pictures"
    if split != "test":
        pictures /= split
    if jax.process_index() == 0:
        pictures.mkdir(parents=True, exist_ok=True)
        draw_pictures(trained, evaluation, records, pictures)
    seconds = records[-1]["seconds"]
    summary = {
        **evaluation.scores,
        "split": split,
        "num_images": evaluation.num_images,
        "step": trained.step,
        "train_seconds": seconds,
        "images_per_second": round(
            trained.step * trained.experiment.config.loader.batch_size / seconds, 2
        ),
        "device": devices(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            "sphemb": sphemb.__version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }
    if jax.process_index() == 0:
        name = "summary.json" if split == "test" else f"summary_{split}.json"
        write_json(workdir / name, summary)
        for name in ("mean_best_iou", "recall@0.5", "average_recall"):
            print(f"{name:15} {evaluation.scores[name]:.3f}")
        print(
            f"on {evaluation.num_images} {split} images, after "
            f"{duration(seconds)} of training; see {pictures}"
        )
        sys.stdout.flush()
    return summary
