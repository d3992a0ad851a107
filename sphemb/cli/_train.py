"""Train, then score and draw: what ``train.py`` does."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any

import jax
import ml_collections

from sphemb.cli._limits import score_lines, whole_lines
from sphemb.evaluation import draw_pictures, evaluate, write_report
from sphemb.training import (
    Trained,
    check_inside,
    load_run,
    read_json,
    read_log,
    train,
    write_json,
)

# All scores are in summary.json; these are shown.
_SHOWN = re.compile(
    r"mean_best_iou|(recall@0\.5|average_recall)(@\d+)?|matched_precision@0\.5"
    r"|accuracy|mean_iou|iou_(in|out)side@5|ap_r\w*(@0\.5)?"
)
_EXTREMES = 3  # of the worst images, and of the best, in a report


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
    workdir: pathlib.Path,
    split: str,
    trained: Trained | None = None,
    *,
    report: bool = False,
) -> dict[str, Any]:
    """Evaluates a run, draws, and writes ``summary.json``.

    Args:
        workdir: the run's folder.
        split: ``"validation"`` or ``"test"``.
        trained: the network, if it is at hand.
        report: write ``report.html``, too.

    Returns:
        What was written to ``summary.json``.
    """
    trained = trained or load_run(workdir)
    pictures = workdir / "pictures"
    if split != "test":
        pictures /= split
    check_inside(workdir, pictures)
    extremes = _EXTREMES if report else 0
    evaluation = evaluate(trained, split, num_extremes=extremes)
    task, number = trained.experiment.task, evaluation.num_images
    limits = score_lines(task, evaluation.scores, number)
    limits += whole_lines(trained.experiment, split)
    records = read_log(workdir)
    told = workdir / "training.json"
    summary = {
        **evaluation.scores,
        "split": split,
        "num_images": evaluation.num_images,
        "step": trained.step,
        "train_seconds": records[-1]["seconds"] if records else None,
        **(read_json(told) if told.is_file() else {}),
    }
    if jax.process_index() == 0:
        name = "summary.json" if split == "test" else f"summary_{split}.json"
        write_json(workdir / name, summary)
        pictures.mkdir(parents=True, exist_ok=True)
        draw_pictures(
            trained,
            evaluation,
            records,
            pictures,
            say=lambda line: print(line, file=sys.stderr),
        )
        if report:
            name = "report.html" if split == "test" else f"report_{split}.html"
            fact = (
                f"{workdir.name}: {evaluation.num_images} {split} images, after step "
                f"{trained.step}"
            )
            path = workdir / name
            write_report(
                trained, evaluation, records, path, split=split, facts=[fact, *limits]
            )
            print(f"report: {path}")
        for name, score in evaluation.scores.items():
            if _SHOWN.fullmatch(name):
                print(f"{name:21} {score:.3f}")
        for line in limits:
            print(f"warning: {line}", file=sys.stderr)
        print(
            f"on {evaluation.num_images} {split} images, after step {trained.step}; "
            f"see {pictures}"
        )
        sys.stdout.flush()
    return summary
