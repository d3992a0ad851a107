"""The verb advise: settings for a folder or after a run, what they cost, and why."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tyro
from absl import logging

from sphemb._checks import InputError, check_count
from sphemb.cli._flags import FolderFlags, OptionalPath, read_config
from sphemb.cli._results import check_results, make_folder, progress, writing_results
from sphemb.data import (
    FolderDataset,
    ImageValues,
    InstanceSizes,
    image_files,
    measure_instances,
    open_folder,
)
from sphemb.grouping import gbms_trajectory
from sphemb.sphere import concentration_from_margin, margin_for, min_dimension
from sphemb.training import (
    Experiment,
    Trained,
    data_parallel,
    devices,
    duration,
    load_run,
    replicate,
    split_batch,
    write_json,
)
from sphemb.viz import draw_instance_sizes, draw_similarity_histograms, save_figure

_FILES = ("advice.json", "instances.png", "similarities.png")
_SPLITS = ("train", "validation", "test")
_MARGIN, _DIM = 0.5, 64  # of the paper
_LOST = 0.01  # share of the instances that may vanish on the map
_SAMPLED = 4  # pixels that the sample should have of an instance
_SAMPLES = (512, 4096)
_CROP = (1.5, 32)  # sides of a large instance; multiples of pixels
_EMBEDDED = 8  # images whose embeddings are measured
_POINTS = 1000  # of an image: all pairs of them are compared
_PULL = 0.01  # of other groups, relative to that of the own instance
_STEPS = 5  # of mean shift, in the picture of similarities


class Advice(NamedTuple):
    """One setting, its value and the reason in one sentence."""

    setting: str
    value: Any
    reason: str

    @property
    def text(self) -> str:
        """The value as a flag has it."""
        value = self.value
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclasses.dataclass(frozen=True)
class Advise(FolderFlags):
    """Advise on settings for a folder or after a run, with reasons and costs.

    A flag such as --config.task.margin=.4 changes an entry of the configuration, which
    is not advised on then.

    Attributes:
        dir: a folder of images and masks.
        workdir: a run, in place of the folder.
        config: the configuration to start from, as for train.
        images: images of a split that are measured.
        costs: leave out memory and time, for which a training step is compiled.
        out: the folder for advice.json and pictures.
        overwrite: replace results that exist.
        overrides: changes of the configuration, see `read_config`.
    """

    dir: tyro.conf.Positional[
        Annotated[
            pathlib.Path | None, tyro.conf.arg(metavar="[DIR]", help_behavior_hint="")
        ]
    ] = None
    workdir: OptionalPath = None
    config: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME[:VARIANT]",
            help_behavior_hint="(default: folder, or nuclei for many instances)",
        ),
    ] = None
    images: int = 500
    costs: bool = True
    out: OptionalPath = None
    overwrite: bool = False
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict[str, Any]:
        """Measures the folder or the run, and prints settings with their reasons.

        Returns:
            The content of ``advice.json``.

        Raises:
            InputError: not one of dir and workdir, a missing folder, a setting out of
                range, no instances, or results that exist.
        """
        logging.set_verbosity(logging.ERROR)  # JAX's and Orbax's notes at INFO
        fixed = self._fixed()
        trained = load_run(self.workdir) if self.workdir is not None else None
        data = trained.experiment if trained else open_folder(self.dir, **self.folder)
        sizes = _measure(data, self.images)
        warnings = _warnings(data, self.images)
        record: dict[str, Any] = {"data": _data_record(sizes), "warnings": warnings}
        print("\n".join([*_data_lines(record["data"]), *warnings]))
        advice, changes, similarities = [], [], None
        if trained:
            settings = ml_collections.ConfigDict(trained.experiment.config.to_dict())
            similarities = _measure_similarities(trained)
            found, bounds = advise_on_run(similarities, settings.task.concentration)
            record["similarities"] = similarities.record(bounds)
            print(similarities.line(bounds))
            advice.append(found)
            fixed |= {found.setting}
        else:
            if self.config is None:
                advice.append(_choose_config(sizes))
            settings = self._settings(self.config or advice[0].value)
            folder = {"dir": str(self.dir), **self.folder}
            changes = [Advice(f"config.data.{k}", v, "") for k, v in folder.items()]
        advice += _advise_on_data(sizes, settings.to_dict(), fixed)
        print()
        for found in advice:
            print(f"{found.setting} = {found.text}: {found.reason}", flush=True)
        changes = _apply(settings, [*changes, *advice])
        if self.costs:
            record["costs"] = _measure_step(settings)
            print("", *_cost_lines(record["costs"]), sep="\n", flush=True)
        record["advice"] = [a._asdict() for a in advice]
        if not trained:
            flags = [f"--config={self.config or advice[0].value}", *self.overrides]
            flags += [f"--{change.setting}={change.text}" for change in changes]
            record["command"] = shlex.join(["sphemb", "train", *flags])
            print(f"\n{record['command']}", flush=True)
        if self.out is not None:
            self._write(record, sizes, similarities, settings.task.get("margin"))
        return record

    def _fixed(self) -> frozenset[str]:
        """The settings that the user has given; refuses flags that contradict."""
        if (self.dir is None) == (self.workdir is None):
            raise InputError("give a folder of images and masks, or --workdir of a run")
        if self.workdir is not None and (self.config or self.overrides):
            raise InputError(
                "--workdir brings its own configuration: leave out --config"
            )
        check_count("--images", self.images, at_least=1)
        check_results(self.out, _FILES, overwrite=self.overwrite)
        fixed = frozenset(o.split("=")[0].lstrip("-") for o in self.overrides)
        for name in ("dir", *self.folder):
            if f"config.data.{name}" in fixed:
                raise InputError(
                    f"give {name} as an argument, not as --config.data.{name}"
                )
        return fixed

    def _settings(self, config: str) -> ml_collections.ConfigDict:
        settings = read_config(config, self.overrides)
        if settings.data.name != "folder":
            raise InputError(
                "--config must be one for folders, such as folder or nuclei, got "
                f"{config} with config.data.name {settings.data.name}"
            )
        return settings

    def _write(
        self,
        record: dict[str, Any],
        sizes: InstanceSizes,
        similarities: Similarities | None,
        margin: float | None,
    ) -> None:
        assert self.out is not None
        make_folder(self.out)
        with writing_results():
            figure = draw_instance_sizes(sizes.counts, sizes.areas, sizes.vanishing)
            save_figure(figure, self.out / _FILES[1])
            if similarities is not None:
                figure = draw_similarity_histograms(
                    similarities.trajectory, similarities.labels, margin=margin
                )
                save_figure(figure, self.out / _FILES[2])
            write_json(self.out / _FILES[0], record)  # last: it means all is written


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


def _chosen(data: Any, number: int) -> Iterator[tuple[str, Any, list[int]]]:
    """The splits that exist, their examples, and evenly spaced indices of them."""
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


def _measure(data: Any, number: int) -> InstanceSizes:
    sizes = None
    for split, source, chosen in _chosen(data, number):
        found = measure_instances(source, indices=progress(chosen, split))
        sizes = sizes.merge(found) if sizes else found
    if sizes is None or not len(sizes.counts):
        raise InputError(
            "the folder must have images that can be used, got none: sphemb check-data "
            "lists their errors"
        )
    if not sizes.areas.size:
        raise InputError(
            "the images must have instances to advise on, got none: sphemb check-data "
            "lists what their masks hold"
        )
    return sizes


def _warnings(data: Any, number: int) -> list[str]:
    """What is doubtful about the measured images, and the splits without any."""
    lines = []
    for split in _SPLITS if isinstance(data, FolderDataset) else ():
        try:
            data.source(split)
        except InputError as error:
            lines.append(f"warning: {error}")
    images = ImageValues(data.reading)
    for _, source, chosen in _chosen(data, number):
        files = image_files(source)
        for i in chosen if files else ():
            images.add(files[i])
    return lines + [f"warning: {found.message}" for found in images.findings]


def _data_record(sizes: InstanceSizes) -> dict[str, Any]:
    shares = {"least": 0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1}

    def spread(values: np.ndarray) -> dict[str, float]:
        return {name: float(np.quantile(values, q)) for name, q in shares.items()}

    return {
        "images": len(sizes.counts),
        "unusable": len(sizes.unusable),
        "instances": len(sizes.areas),
        "instances_of_an_image": spread(sizes.counts),
        "area": spread(sizes.areas),
        "side": spread(sizes.sides),
        "touching": float(np.mean(sizes.touching)),
        "vanishing": {
            str(stride): float(np.mean(lost))
            for stride, lost in sizes.vanishing.items()
        },
    }


def _data_lines(record: dict[str, Any]) -> list[str]:
    lines = [f"{record['images']:,} images with {record['instances']:,} instances"]
    if record["unusable"]:
        lines.append(
            f"{record['unusable']} more cannot be used: sphemb check-data says why"
        )
    for name, title in {
        "instances_of_an_image": "instances of an image",
        "area": "pixels of an instance",
    }.items():
        values = (f"{k} {v:,.0f}" for k, v in record[name].items())
        lines.append(f"{title}: {', '.join(values)}")
    lost = (f"{100 * v:.1f} % at {k}" for k, v in record["vanishing"].items())
    lines.append(f"vanish at a stride of the map: {', '.join(lost)}")
    return [*lines, f"touch another instance: {100 * record['touching']:.0f} %"]


def _choose_config(sizes: InstanceSizes) -> Advice:
    """The configuration for few instances of an image, or the one for many."""
    most = int(sizes.counts.max())
    reason = f"the fullest image has {most} instances"
    if most + 1 > 2 * _DIM:
        reason += (
            f", more than the {2 * _DIM - 1} that {_DIM} dimensions separate at margin "
            f"{_MARGIN}, so that only neighbors can be separated"
        )
        return Advice("config", "nuclei", reason)
    reason += ", each of which can have a direction of its own"
    return Advice("config", "folder", reason)


def room_for(most: int) -> dict[str, int]:
    """Limits of a task for a fullest image of ``most`` instances, with a reserve."""
    return {
        "max_components": _up(1.5 * most, 50),
        "max_groups": _power_of_two(2 * (most + 1)),
        "max_objects": _up(1.25 * most, 16),
    }


def _advise_on_data(
    sizes: InstanceSizes, config: dict[str, Any], fixed: frozenset[str]
) -> list[Advice]:
    """Derives settings from the instances of a data set.

    Args:
        sizes: of the instances; at least one.
        config: that training would start from; the advice is applied to it.
        fixed: settings that stay.

    Returns:
        The settings of this configuration that are not fixed; those that are right as
        they are, too.
    """
    model, task, advice = config["model"], config["task"], []

    def advise(section: str, name: str, value: Any, reason: str) -> None:
        setting = f"config.{section}.{name}"
        if name in config[section] and setting not in fixed:
            advice.append(Advice(setting, value, reason))
            config[section][name] = value

    if "decoder_stride" in model:
        coarsest = model.get("output_stride") or 8
        lost = {
            s: float(np.mean(v)) for s, v in sizes.vanishing.items() if s <= coarsest
        }
        stride = max((s for s, share in lost.items() if share <= _LOST), default=1)
        shares = ", ".join(f"{100 * v:.1f} % at stride {s}" for s, v in lost.items())
        reason = f"of {sizes.areas.size:,} instances, {shares} vanish"
        now = model["decoder_stride"] or coarsest
        if task.get("erosion") and now < stride:
            reason += ", and outlines are only a few pixels wide"
            stride = now
        advise("model", "decoder_stride", int(stride), reason)

    crop = config["augmentation"].get("size")
    if crop:
        large = float(np.quantile(sizes.sides, 0.95))
        image = int(np.median(sizes.images.min(axis=1)))
        factor, step = _CROP
        side = min(_up(max(factor * large, min(crop)), step), _up(image, step))
        advise(
            "augmentation",
            "size",
            (side, side),
            f"19 of 20 instances are at most {large:.0f} pixels long, and half of the "
            f"images have a side of at most {image}",
        )
        crop = config["augmentation"]["size"]

    most = int(sizes.counts.max())
    fullest = f"the fullest of {len(sizes.counts)} images has {most} instances"
    groups = most + 1  # with the background
    reason = f"the fullest image has {most} instances"
    if task.get("max_components"):  # of these, one loss sees those of a crop
        window = crop or tuple(sizes.images.max(axis=0))
        shares = np.minimum(1.0, np.prod(window) / np.prod(sizes.images, axis=1))
        groups = int(np.ceil((sizes.counts * shares).max())) + 1
        side = " x ".join(map(str, window))
        reason = f"the fullest crop of {side} pixels has about {groups - 1} instances"
    margin, dim = task.get("margin", _MARGIN), _DIM
    if "embedding_dim" in model:
        dim, need = model["embedding_dim"], min_dimension(groups, margin)
        dim = dim if dim >= need else _power_of_two(need)
        reason += (
            f"; with the background, these {groups} groups can have zero loss at "
            f"margin {margin} from {need} dimensions on"
        )
        if margin > 0.5 and need > 3:
            reason += ", and perhaps in fewer"
        advise("model", "embedding_dim", dim, reason)
    least = margin_for(groups, dim).margin
    reason = (
        f"{groups} groups in {dim} dimensions can have zero loss from a margin of "
        f"{least:.3f} on"
    )
    advise("task", "margin", margin, reason)
    rule = round(float(concentration_from_margin(margin)), 2)
    now = task.get("concentration", rule)
    near = 0.6 <= now / rule <= 1 / 0.6
    reason = f"(3 / (1 - margin))^2, the supplement's rule, is {rule:g}"
    if near and now != rule:
        reason += f", and {now:g} is near"
    reason += "; a trained run gives a better estimate (--workdir)"
    advise("task", "concentration", now if near else rule, reason)

    room = room_for(most)
    reason = f"{fullest}, and a prediction may find more"
    if task.get("max_components"):
        value = max(task["max_components"], room["max_components"])
        advise("task", "max_components", value, reason)
    else:
        value = max(task.get("max_groups", 1), room["max_groups"])
        advise("task", "max_groups", value, f"{reason}; the background is a group, too")
    value = max(task.get("max_objects", 1), room["max_objects"])
    advise("task", "max_objects", value, f"{fullest}, all of which are scored")

    if not task.get("erosion"):  # without it, areas are those of the masks
        small = float(np.quantile(sizes.areas, 0.01))
        reason = (
            f"99 of 100 instances have at least {small:.0f} pixels, and a group of "
            "less than a quarter of that is noise"
        )
        advise("task", "min_size", max(1, int(small / 4)), reason)

    pixels = int(np.prod(crop or tuple(np.median(sizes.images, axis=0))))
    small = max(1.0, float(np.quantile(sizes.areas, 0.05)))
    wanted = _up(_SAMPLED * pixels / small, 256)
    low, high = (min(bound, pixels) for bound in _SAMPLES)
    value = int(np.clip(max(wanted, task.get("num_samples", 1)), low, high))
    reason = (
        f"19 of 20 instances have at least {small:.0f} pixels, of which a sample from "
        f"{pixels:,} has {value * small / pixels:.1f} then"
    )
    if wanted > high:
        reason += ", and the number of pairs is quadratic"
    advise("task", "num_samples", value, reason)
    return advice


def _up(value: float, step: int) -> int:
    return int(-(-value // step) * step)


def _power_of_two(value: int) -> int:
    return 1 << (int(value) - 1).bit_length()


class Similarities(NamedTuple):
    """Calibrated similarities of a run's embeddings, and sizes of groups.

    Attributes:
        within: the median of pairs of one instance.
        within_low: a tenth of these pairs are below.
        between: a twentieth of the pairs of different instances are above.
        instance: points of a typical instance among those that mean shift moves.
        largest: points of the largest group, often the background.
        num_images: that were measured.
        trajectory: [T + 1, N, D], N points of the image with most instances.
        labels: [N], their instances.
    """

    within: float
    within_low: float
    between: float
    instance: float
    largest: float
    num_images: int
    trajectory: np.ndarray
    labels: np.ndarray

    def record(self, bounds: tuple[float, float]) -> dict[str, Any]:
        """The numbers, as JSON can hold them."""
        numbers = {k: v for k, v in self._asdict().items() if np.ndim(v) == 0}
        return {**numbers, "concentrations": list(bounds)}

    def line(self, bounds: tuple[float, float]) -> str:
        """The numbers in words."""
        low, high = bounds
        return (
            f"similarities in {self.num_images} images: within instances "
            f"{self.within:.3f}, nine tenths from {self.within_low:.3f} on, between "
            f"them {self.between:.3f} at most"
            + (f"; concentrations from {low:.0f} to {high:.0f}" if low <= high else "")
        )


def _measure_similarities(trained: Trained) -> Similarities:
    """Measures pairs of some images; they weigh as in Eq. 2: instances count alike.

    Raises:
        InputError: a task without a mean shift, or images without two instances.
    """
    experiment, task = trained.experiment, cast(Any, trained.experiment.task)
    if not (hasattr(task, "unit_vectors") and hasattr(task, "concentration")):
        raise InputError(
            "--workdir must be a run that learns instances by mean shift "
            f"(Proposals, Instances), got one of {type(task).__name__}"
        )
    split, indices = _usable(experiment)
    pairs: dict[bool, list[np.ndarray]] = {True: [], False: []}
    typical, largest, fullest = [], [], (0, np.zeros(0), np.zeros(0))
    for batch in experiment.one_pass(split, indices, batch_size=1):
        truth = np.asarray(batch["instances"])
        labels = truth.reshape(-1)
        valid = np.flatnonzero(labels >= 0)
        numbers, sizes = np.unique(labels[valid], return_counts=True)
        if len(numbers) < 2:
            continue
        embedding = np.asarray(task.unit_vectors(trained.apply, batch))
        cell = 1 if task.predict_pixels else _cell(trained, truth.shape[1:])
        typical.append(np.median(sizes[numbers > 0]) / cell)
        largest.append(sizes.max() / cell)
        sample = np.random.default_rng(0).permutation(valid)[:_POINTS]
        points = embedding.reshape(len(labels), -1)[sample]
        for same, kind in _pairs(points, labels[sample]).items():
            pairs[same].append(kind)
        if len(numbers) > fullest[0]:
            fullest = (len(numbers), points, labels[sample])
    if not all(kind and all(p.size for p in kind) for kind in pairs.values()):
        raise InputError(
            f"the {split} split must have images with two instances, or an instance "
            "and a background, got none of the usable ones"
        )
    within, between = (np.concatenate(pairs[kind], axis=1) for kind in (True, False))
    trajectory = gbms_trajectory(
        jnp.asarray(fullest[1]), concentration=task.concentration, num_steps=_STEPS
    )
    return Similarities(
        within=_quantile(within, 0.5),
        within_low=_quantile(within, 0.1),
        between=_quantile(between, 0.95),
        instance=float(np.median(typical)),
        largest=float(np.median(largest)),
        num_images=len(typical),
        trajectory=np.asarray(trajectory),
        labels=fullest[2],
    )


def _usable(experiment: Experiment) -> tuple[str, list[int]]:
    for split in ("validation", "test", "train"):
        try:
            chosen = experiment.usable(split, _EMBEDDED)
        except InputError:
            continue
        if chosen:
            return split, list(chosen)
    raise InputError("the run's data must have images that can be used, got none")


def _cell(trained: Trained, size: tuple[int, ...]) -> int:
    """Pixels of a cell of the embedding map of an image H x W."""
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    own = trained.experiment.abstract_state
    network = trained.experiment.network
    maps = jax.eval_shape(network, own.params, own.batch_stats, image)
    return math.prod(size) // math.prod(maps["embedding"].shape[1:3])


def _pairs(points: np.ndarray, labels: np.ndarray) -> dict[bool, np.ndarray]:
    """Similarities and weights [2, P] of the pairs of one instance, and of two."""
    one, other = np.triu_indices(len(labels), 1)
    similarity = 0.5 * (1.0 + points @ points.T)[one, other]
    _, ranks, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1.0 / (sizes[ranks[one]] * sizes[ranks[other]])
    same = labels[one] == labels[other]
    return {
        kind: np.stack(
            [similarity[mask], weights[mask] / max(weights[mask].sum(), 1e-30)]
        )
        for kind, mask in ((True, same), (False, ~same))
    }


def _quantile(kind: np.ndarray, share: float) -> float:
    """The weighted quantile of similarities and weights [2, P]."""
    order = np.argsort(kind[0])
    total = np.cumsum(kind[1, order])
    return float(kind[0, order][np.searchsorted(total, share * total[-1])])


def concentration_bounds(
    *,
    within: float,
    within_low: float,
    between: float,
    instance: float,
    largest: float,
) -> tuple[float, float]:
    r"""Between which concentrations a mean shift separates what a network has learned.

    The kernel of two points at a calibrated similarity s is
    :math:`e^{2\kappa(s - 1)}` of that of a point with itself. A group of R times as
    many points pulls :math:`R\, e^{-2 \kappa (s_{within} - s_{between})}` times as much
    as the own instance: more than a hundredth below the lower bound. An instance of n
    points pulls a point at its edge :math:`n\, e^{-2\kappa(1 - s_{low})}` times as much
    as that point itself: less than once above the upper bound, and instances may break.

    Args:
        within: a typical similarity within an instance.
        within_low: that of points at its edge.
        between: that of the most similar pairs of different instances.
        instance: n, points of a typical instance.
        largest: points of the largest group; R is their ratio.

    Returns:
        The two bounds; the lower one is infinite where instances are as similar to each
        other as within.

    >>> bounds = concentration_bounds(
    ...     within=0.98, within_low=0.95, between=0.5, instance=300, largest=3000
    ... )
    >>> [round(bound, 1) for bound in bounds]
    [7.2, 57.0]
    """
    gap = within - between
    ratio = max(1.0, largest / max(instance, 1.0))
    low = math.log(ratio / _PULL) / (2.0 * gap) if gap > 0 else math.inf
    return low, math.log(max(instance, 2.0)) / (2.0 * max(1.0 - within_low, 1e-6))


def advise_on_run(
    found: Similarities, now: float
) -> tuple[Advice, tuple[float, float]]:
    """The concentration for a run's embeddings, and the bounds that it comes from.

    Args:
        found: in the run.
        now: its concentration, which stays if it is within the bounds.
    """
    low, high = bounds = concentration_bounds(
        within=found.within,
        within_low=found.within_low,
        between=found.between,
        instance=found.instance,
        largest=found.largest,
    )
    reason = (
        f"above {low:.0f} other groups pull a pixel less than a hundredth as much as "
        f"its own, and below {high:.0f} an instance pulls the points at its edge"
    )
    value = now
    if math.isinf(low):
        reason = (
            "points are no more similar within instances than between them, so that no "
            "concentration separates them: train longer, or on a finer map, first"
        )
    elif low > high:
        reason += ", so that none does both: train longer, or on a finer map, first"
    elif not low <= now <= high:
        value = round(math.sqrt(low * high), 1)
        reason += f", which {now:g} is not between"
    return Advice("config.task.concentration", value, reason), bounds


def _measure_step(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Compiles a training step, and runs it twice if its memory is free."""
    experiment, free = Experiment(config), _free_bytes()
    step: Any = data_parallel(
        experiment.train_step, replicated_output=True, donate_state=True
    )
    batch = next(experiment.train_batches())
    split = split_batch(batch)
    compiled = step.lower(experiment.abstract_state, split).compile()
    plan = compiled.memory_analysis()
    needed = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes  # outputs that reuse the memory of arguments
        + plan.temp_size_in_bytes
    )
    seconds = None
    if free is None or needed <= free:
        state = replicate(experiment.init_state())
        for _ in range(2):  # the first call has costs of its own
            start = time.perf_counter()
            state, scalars = compiled(state, split)
            jax.block_until_ready((state, scalars))
            seconds = time.perf_counter() - start
    return {
        "device": devices(),
        "images": len(batch["image"]),
        "size": list(batch["image"].shape[1:3]),
        "device_bytes": int(needed),
        "free_bytes": free,
        "step_seconds": seconds,
        "steps": experiment.num_steps,
    }


def _free_bytes() -> int | None:
    """Memory that is free for one device; None where it is unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024 // jax.local_device_count()
    except (OSError, KeyError):
        return None


def _cost_lines(costs: Mapping[str, Any]) -> list[str]:
    images, free, seconds = (
        costs[name] for name in ("images", "free_bytes", "step_seconds")
    )
    sides = " x ".join(map(str, costs["size"]))
    line = (
        f"training: {images} image{'s' * (images != 1)} of {sides} take "
        f"{_memory(costs['device_bytes'])}"
    )
    if free is not None:
        line += f" of the {_memory(free)} that are free"
    if seconds is None:
        line += ": set config.loader.images_per_device to fewer"
    else:
        line += (
            f", and {seconds:.2f} s; {costs['steps']:,} steps take about "
            f"{duration(seconds * costs['steps'])}"
        )
    return [
        line,
        f"measured by a compiled step on {costs['device']}, with new weights; reading "
        "images and scoring come on top",
    ]


def _memory(number: float) -> str:
    return (
        f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.0f} MiB"
    )
