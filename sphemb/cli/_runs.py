"""The verbs of a run's folder: train, evaluate, export."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import ml_collections
import tyro
from absl import logging

from sphemb import training
from sphemb._files import written_whole
from sphemb.cli._flags import (
    OptionalInt,
    OptionalPath,
    optional,
    read_config,
    shipped_configs,
)
from sphemb.cli._names import check_results, make_folder, writing_results
from sphemb.cli._predict import Predict, limit_line
from sphemb.evaluation import draw_pictures, evaluate, write_report

# All scores are in summary.json; these are printed.
_SHOWN = re.compile(
    r"mean_best_iou|(recall@0\.5|average_recall)(@\d+)?|matched_precision@0\.5"
    r"|accuracy|mean_iou|iou_(in|out)side@5|ap_r\w*(@0\.5)?"
)
_EXTREMES = 3  # of the worst images, and of the best, in a report
_FUNCTION, _DESCRIPTION = "predict.jaxexport", "export.json"


@dataclasses.dataclass(frozen=True)
class Train:
    """Train what a configuration says, or resume a run.

    A flag such as --config.train.num_steps=500 changes an entry of the configuration;
    configs/common.py lists its sections.

    Attributes:
        config: see `read_config`.
        workdir: the run's folder (default: runs/NAME).
        skip_bad: leave out images and masks that cannot be used.
        coordinator: HOST:PORT of process 0 of several, or auto on pods and Slurm.
        processes: their number, with HOST:PORT.
        process: the index of this process, from 0 on.
        overrides: changes of the configuration, see `read_config`.
    """

    interrupted: ClassVar[str] = (
        "stopped; the same command resumes from the last checkpoint"
    )

    config: Annotated[
        str,
        tyro.conf.arg(
            metavar="NAME[:VARIANT]",
            help=f"a Python file, or one of {', '.join(shipped_configs())}",
        ),
    ]
    workdir: OptionalPath = None
    skip_bad: bool = False
    coordinator: Annotated[str | None, optional(metavar="HOST:PORT")] = None
    processes: OptionalInt = None
    process: OptionalInt = None
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> None:
        """Trains, evaluates and draws."""
        logging.set_verbosity(logging.ERROR)  # JAX's and Orbax's notes at INFO
        training.join_processes(
            self.coordinator, num_processes=self.processes, process_id=self.process
        )
        config = read_config(self.config, self.overrides)
        config.loader.skip_bad |= self.skip_bad
        with training.noticing_lost():  # scores are summed over processes, too
            run_training(config, self.workdir or default_workdir(self.config))


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run and draw.

    Attributes:
        workdir: the folder of a run.
        split: which images are scored.
        report: write report.html, too.
    """

    workdir: pathlib.Path
    split: Literal["validation", "test"] = "test"
    report: bool = False

    def run(self) -> None:
        """Evaluates the run."""
        run_evaluation(self.workdir, self.split, report=self.report)


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


@dataclasses.dataclass(frozen=True)
class Export:
    """Write what a run predicts as one file that JAX alone can call.

    See docs/export.md.

    Attributes:
        workdir: the folder of a run.
        out: the folder for predict.jaxexport, which `jax.export.deserialize` reads, and
            export.json, which describes its inputs and outputs.
        smallest: side of the images at least, in pixels.
        largest: side of the images at most, in pixels.
        size: of all images, in place of two bounds.
        platforms: to run on.
        overwrite: replace files that exist.
    """

    workdir: pathlib.Path
    out: pathlib.Path
    smallest: int = 64
    largest: int = 512
    size: Annotated[tuple[int, int] | None, optional(metavar="HEIGHT WIDTH")] = None
    platforms: tuple[Literal["cpu", "cuda", "tpu"], ...] = training.PLATFORMS
    overwrite: bool = False

    def run(self) -> dict[str, Any]:
        """Writes the files, and returns the content of ``export.json``."""
        check_results(self.out, (_FUNCTION, _DESCRIPTION), overwrite=self.overwrite)
        trained = training.load_run(self.workdir)
        bounds = {"smallest": self.smallest, "largest": self.largest}
        exported = training.export_prediction(
            trained, **bounds, size=self.size, platforms=self.platforms
        )
        content = bytes(exported.serialize())
        description: dict[str, Any] = {"file": _FUNCTION}
        description |= training.describe_export(trained, exported)
        make_folder(self.out)
        path = self.out / _FUNCTION
        with writing_results():
            with written_whole(path) as unfinished:
                unfinished.write_bytes(content)
            training.write_json(
                self.out / _DESCRIPTION, description
            )  # last: it means all is
        shape = " x ".join(map(str, description["inputs"]["image"]["shape"]))
        where = f"{', '.join(exported.platforms)}, {len(content) / 1e6:.1f} MB"
        print(f"{path}: images {shape} on {where}", flush=True)
        return description


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
