"""Advise: settings for a folder or after a run, what they cost, and why."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from sphemb._checks import InputError, check_count
from sphemb.cli._advice import Advice, advise_on_data, choose_config
from sphemb.cli._advice_report import (
    RECORD,
    SIMILARITIES,
    SIZES,
    data_lines,
    data_record,
    similarity_line,
    similarity_record,
    write_advice,
)
from sphemb.cli._concentration_advice import advise_on_run
from sphemb.cli._config_flags import read_config
from sphemb.cli._cost_report import estimate_costs
from sphemb.cli._results import check_results, progress
from sphemb.cli._similarities import Similarities, measure_similarities
from sphemb.data import (
    FolderDataset,
    ImageValues,
    InstanceSizes,
    image_files,
    measure_instances,
    open_folder,
)
from sphemb.training import Trained, load_run

_SPLITS = ("train", "validation", "test")
_EMBEDDED = 8  # images whose embeddings are looked at


def run_advice(
    dir: pathlib.Path | None = None,
    *,
    workdir: pathlib.Path | None = None,
    config: str | None = None,
    overrides: Sequence[str] = (),
    images: int = 500,
    costs: bool = True,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
    **folder: Any,
) -> dict[str, Any]:
    """Measures a folder or a run, and prints settings with their reasons.

    Args:
        dir: a folder of images and masks, see `sphemb.data.open_folder`.
        workdir: a run, in its place: then its data and its embeddings are measured, and
            the settings are for the next run.
        config: that training would start from; chosen by the number of instances if
            not said.
        overrides: changes of the configuration, see `read_config`; these stay.
        images: of each split that are looked at, at most.
        costs: compile a step and a prediction, for their memory and their time.
        out: gets ``advice.json``, ``instances.png`` and, of a run,
            ``similarities.png``.
        overwrite: replace results that are there.
        **folder: settings of `sphemb.data.open_folder`.

    Returns:
        What ``advice.json`` holds.

    Raises:
        InputError: not one of dir and workdir, no such thing, a setting that does not
            fit, no instances, or results that are there.
    """
    if (dir is None) == (workdir is None):
        raise InputError("give a folder of images and masks, or --workdir of a run")
    if workdir is not None and (config or overrides):
        raise InputError("--workdir brings its own configuration: leave out --config")
    check_count("--images", images, at_least=1)
    check_results(out, (RECORD, SIZES, SIMILARITIES), overwrite=overwrite)
    fixed = frozenset(o.split("=")[0].lstrip("-") for o in overrides)
    for name in ("dir", *folder):
        if f"config.data.{name}" in fixed:
            raise InputError(f"give {name} as an argument, not as --config.data.{name}")
    trained = load_run(workdir) if workdir is not None else None
    data = trained.experiment if trained else open_folder(dir, **folder)
    sizes = _measure(data, images)
    record: dict[str, Any] = {"data": data_record(sizes)}
    doubts = _doubts(data, images)
    record["warnings"] = doubts
    lines, advice, similarities = [*data_lines(sizes), *doubts], [], None
    if trained:
        settings = ml_collections.ConfigDict(trained.experiment.config.to_dict())
        similarities = _embeddings(trained)
        found, bounds = advise_on_run(similarities, settings.task.concentration)
        lines.append(similarity_line(similarities, bounds))
        record["similarities"] = similarity_record(similarities, bounds)
        advice.append(found)
        fixed |= {found.setting}
    else:
        if config is None:
            advice.append(choose_config(sizes))
        settings = _of_folders(config or advice[0].value, overrides)
    advice += advise_on_data(sizes, settings.to_dict(), fixed=fixed)
    print("\n".join([*lines, ""]))
    _say(advice)

    given = {} if trained else {"dir": str(dir), **folder}
    data_flags = [Advice(f"config.data.{k}", v, "") for k, v in given.items()]
    changes = _apply(settings, [*data_flags, *advice])
    if costs:
        estimate = estimate_costs(settings, workdir)
        record["costs"] = estimate.record
        print("\n".join(["", *estimate.lines]))
        _say(estimate.advice)
        advice += estimate.advice
        changes += _apply(settings, estimate.advice)
    record["advice"] = [a._asdict() for a in advice]
    if not trained:
        flags = [f"--config={config or advice[0].value}", *overrides]
        flags += [change.flag for change in changes]
        record["command"] = shlex.join(["sphemb", "train", *flags])
        print(f"\n{record['command']}", flush=True)
    if out is not None:
        write_advice(out, record, sizes, similarities, settings.task.get("margin"))
    return record


def _say(advice: Sequence[Advice]) -> None:
    for found in advice:
        value = found.flag.partition("=")[2]
        print(f"{found.setting} = {value}: {found.reason}", flush=True)


def _measure(data: Any, number: int) -> InstanceSizes:
    """The instances of the first splits that are there, evenly chosen."""
    sizes = None
    for split, source, chosen in _chosen(data, number):
        found = measure_instances(source, indices=progress(chosen, split))
        sizes = sizes.merge(found) if sizes else found
    if sizes is None or not len(sizes.counts):
        raise InputError(
            "there must be images that can be used, got none: sphemb check-data tells "
            "what is wrong with them"
        )
    return sizes


def _doubts(data: Any, number: int) -> list[str]:
    """What is doubtful about the same images, and which splits have none."""
    lacks = []
    for split in _SPLITS if isinstance(data, FolderDataset) else ():
        try:
            data.source(split)
        except InputError as error:
            lacks.append(f"warning: {error}")
    images = ImageValues(data.reading)
    for _, source, chosen in _chosen(data, number):
        files = image_files(source)
        for i in chosen if files else ():
            images.add(files[i])
    return lacks + [f"warning: {found.message}" for found in images.findings]


def _chosen(data: Any, number: int) -> Iterator[tuple[str, Any, list[int]]]:
    """The splits that are there, their examples, and so many places in them."""
    sources: list[Any] = []
    for split in _SPLITS:
        try:
            source = data.source(split)
        except InputError:  # so few images that a split has none
            continue
        if any(source is other for other in sources):
            continue  # a folder's test split may be its validation split
        sources.append(source)
        last, wanted = len(source) - 1, min(number, len(source))
        yield split, source, np.linspace(0, last, wanted).astype(int).tolist()


def _embeddings(trained: Trained) -> Similarities:
    experiment = trained.experiment
    for split in ("validation", "test", "train"):
        try:
            chosen = experiment.usable(split, _EMBEDDED)
        except InputError:
            continue
        if chosen:
            return measure_similarities(trained, split, chosen)
    raise InputError("the run's data must have images that can be used, got none")


def _of_folders(config: str, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    settings = read_config(config, overrides)
    if settings.data.name != "folder":
        raise InputError(
            f"--config must be one for folders, such as folder or nuclei, got {config} "
            f"with config.data.name {settings.data.name}"
        )
    return settings


def _apply(config: ml_collections.ConfigDict, advice: Sequence[Advice]) -> list[Advice]:
    """Changes a configuration, and returns what was different before."""
    changes = []
    for found in advice:
        if found.setting == "config":
            continue
        _, section, name = found.setting.split(".")
        if config[section][name] != found.value:
            config[section][name] = found.value
            changes.append(found)
    return changes
