"""The verbs train and evaluate: a run in its folder."""

from __future__ import annotations

import functools
import math
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging

from sphemb import training
from sphemb.cli._configs import read_config
from sphemb.cli._names import writing_results
from sphemb.cli._predict import limit_line
from sphemb.cli._verbs import Predict, Train
from sphemb.evaluation import draw_pictures, evaluate, write_report

# All scores are in summary.json; these are printed.
_SHOWN = re.compile(
    r"mean_best_iou|(recall@0\.5|average_recall)(@\d+)?|matched_precision@0\.5"
    r"|accuracy|mean_iou|iou_(in|out)side@5|ap_r\w*(@0\.5)?"
)
_EXTREMES = 3  # of the worst images, and of the best, in a report


def train_run(flags: Train) -> None:
    """Trains, evaluates and draws."""
    logging.set_verbosity(logging.ERROR)  # JAX's and Orbax's notes at INFO
    training.join_processes(
        flags.coordinator, num_processes=flags.processes, process_id=flags.process
    )
    config = read_config(flags.config, flags.overrides)
    config.loader.skip_bad |= flags.skip_bad
    with training.noticing_lost():  # scores are summed over processes, too
        run_training(config, flags.workdir or default_workdir(flags.config))


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
    """Trains by a configuration, evaluates and draws; returns ``summary.json``."""
    workdir = pathlib.Path(workdir)

    def score(trained: training.Trained, split: str) -> dict[str, float]:
        return evaluate(trained, split, num_samples=1).scores

    trained = training.train(config, workdir, evaluate=score)
    return run_evaluation(workdir, "test", trained)


def run_evaluation(
    workdir: pathlib.Path,
    split: str,
    trained: training.Trained | None = None,
    *,
    report: bool = False,
) -> dict[str, Any]:
    """Evaluates a split of a run, draws, and returns the ``summary.json`` written.

    Args:
        workdir: the run's folder.
        split: ``"validation"`` or ``"test"``.
        trained: the network, if it is loaded already.
        report: write ``report.html``, too.
    """
    trained = trained or training.load_run(workdir)
    pictures = workdir / "pictures"
    if split != "test":
        pictures /= split
    training.check_inside(workdir, pictures)
    evaluation = evaluate(trained, split, num_extremes=_EXTREMES if report else 0)
    number = evaluation.num_images
    limits = limit_lines(trained.experiment, split, evaluation.scores, number)
    records = training.read_log(workdir)
    costs = workdir / "training.json"
    summary = {
        **evaluation.scores,
        "split": split,
        "num_images": number,
        "step": trained.step,
        "train_seconds": records[-1]["seconds"] if records else None,
        **(training.read_json(costs) if costs.is_file() else {}),
    }
    if jax.process_index() != 0:
        return summary
    tail = "" if split == "test" else f"_{split}"
    path = workdir / f"report{tail}.html"
    with writing_results(f"{workdir} cannot be written to"):
        training.write_json(workdir / f"summary{tail}.json", summary)
        pictures.mkdir(parents=True, exist_ok=True)
        say = functools.partial(print, file=sys.stderr)
        draw_pictures(trained, evaluation, records, pictures, say=say)
        if report:
            fact = f"{workdir.name}: {number} {split} images, after step {trained.step}"
            facts = [fact, *limits]
            write_report(trained, evaluation, records, path, split=split, facts=facts)
            print(f"report: {path}")
    for name, score in evaluation.scores.items():
        if _SHOWN.fullmatch(name):
            print(f"{name:21} {score:.3f}")
    for line in limits:
        print(f"warning: {line}", file=sys.stderr)
    print(f"on {number} {split} images, after step {trained.step}; see {pictures}")
    sys.stdout.flush()
    return summary


def limit_lines(
    experiment: training.Experiment,
    split: str,
    scores: Mapping[str, float],
    images: int,
) -> list[str]:
    """Warnings about limits that scored images reached, and about large images."""
    lines = [
        limit_line(experiment.task, name, int(number), images)
        for kind, _, name in (key.partition("/") for key in scores)
        if kind == "num_reached" and (number := scores[f"{kind}/{name}"])
    ]
    source, seen = experiment.source(split), Predict.tile
    # A tile is counted in pixels as the network sees them.
    tile = math.ceil(seen / getattr(experiment.task, "image_scale", 1.0))
    indices = experiment.usable(split, experiment.config.evaluation[f"num_{split}"])
    large = sum(math.prod(source.size(i)) > tile**2 for i in indices)
    if large:
        lines.append(
            f"{large} of {len(indices)} images have more than {tile} x {tile} pixels "
            "and are scored whole: sphemb predict takes them in tiles, unless --tile "
            "is larger, and may find something else"
        )
    return lines
