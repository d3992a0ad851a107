"""The verb advise: settings for a folder or after a run, what they cost, and why."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import shlex
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from sphemb import training
from sphemb._checks import InputError, check_count
from sphemb.cli._configs import read_config
from sphemb.cli._names import check_results, make_folder, progress, writing_results
from sphemb.cli._verbs import Advise, FolderFlags
from sphemb.data import InstanceSizes, measure_instances, open_folder
from sphemb.sphere import concentration_from_margin, margin_for, min_dimension
from sphemb.tasks import Objects, embed_pixels
from sphemb.viz import draw_instance_sizes, save_figure

_RECORD, _PICTURE = "advice.json", "instances.png"
_SPLITS = ("validation", "test", "train")
_MARGIN, _DIM = 0.5, 64  # of the paper
_LOST = 0.01  # share of the instances that may vanish on the map
_CELLS = 32  # pixels of an object that has eight cells of the map of photographs
_COLORED = (20, 16, 0.1)  # images; between channels of a pixel; share of the pixels
_CROP = (1.5, 32)  # lengths of a large instance; a multiple of pixels
_EMBEDDED, _POINTS = 8, 1000  # images and points of each, whose pairs are compared
_PULL = 0.01  # of other groups, relative to that of the own instance


class Advice(NamedTuple):
    """A setting such as ``"config.task.margin"``, its value, the reason in words."""

    setting: str
    value: Any
    reason: str

    @property
    def text(self) -> str:
        """The value as a flag has it."""
        value = self.value
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def give_advice(flags: Advise) -> dict[str, Any]:
    """Prints settings with their reasons, and returns ``advice.json``."""
    logging.set_verbosity(logging.ERROR)  # JAX's and Orbax's notes at INFO
    fixed = _fixed(flags)
    trained = training.load_run(flags.workdir) if flags.workdir is not None else None
    readoff = trained.experiment.task.readoff if trained else None
    if trained and readoff is None:
        name = type(trained.experiment.task).__name__
        wanted = "a run that groups an embedding by mean shift (Proposals, Instances)"
        raise InputError(f"--workdir must be {wanted}, got {name}")
    folder = {"dir": flags.dir, **flags.folder}
    given = [*flags.overrides, *(f"--config.data.{k}={v}" for k, v in folder.items())]
    experiment, config = trained.experiment if trained else None, flags.config
    if config is not None:
        experiment = _read_experiment(config, flags.overrides, given)
    data = experiment or open_folder(**folder)
    sizes = _measure_instances(data, flags.images)
    record: dict[str, Any] = {"data": _spreads(sizes)}
    print("\n".join(_data_lines(record["data"])))
    advice = []
    if trained and readoff:
        record["similarities"] = found = _measure_similarities(trained)
        print(
            f"similarities in {found['num_images']} images: within instances "
            f"{found['within']:.3f}, nine tenths from {found['within_low']:.3f} "
            f"on, between them {found['between']:.3f} at most"
        )
        advice.append(_advise_on_run(found, readoff.concentration))
        fixed |= {advice[0].setting}
    if experiment is None:
        advice.append(_choose_config(sizes, _share_in_color(data)))
        config = advice[0].value
        experiment = _read_experiment(config, flags.overrides, given)
    advice += _advise_on_data(sizes, experiment, fixed)
    print()
    for found in advice:
        print(f"{found.setting} = {found.text}: {found.reason}", flush=True)
    record["advice"] = [a._asdict() for a in advice]
    settings, changed = ml_collections.ConfigDict(experiment.config.to_dict()), []
    for change in advice:
        section, _, name = change.setting.removeprefix("config.").partition(".")
        if name and settings[section].get(name) != change.value:
            settings[section][name] = change.value
            changed.append(f"--{change.setting}={change.text}")
    if flags.costs:
        record["costs"] = _measure_step(settings)
    if not trained:
        command = ["sphemb", "train", f"--config={config}", *given, *changed]
        record["command"] = shlex.join(command)
        print(f"\n{record['command']}", flush=True)
    if flags.out is not None:
        make_folder(flags.out)
        with writing_results():
            figure = draw_instance_sizes(sizes.counts, sizes.areas, sizes.vanishing)
            save_figure(figure, flags.out / _PICTURE)
            training.write_json(flags.out / _RECORD, record)
    return record


def _fixed(flags: Advise) -> frozenset[str]:
    """The settings of the user; refuses flags that contradict each other."""
    if (flags.dir is None) == (flags.workdir is None):
        raise InputError("give a folder of images and masks, or --workdir of a run")
    if flags.workdir is not None and (flags.config or flags.overrides):
        raise InputError("--workdir brings its own configuration: leave out --config")
    check_count("--images", flags.images, at_least=1)
    check_results(flags.out, (_RECORD, _PICTURE), overwrite=flags.overwrite)
    fixed = frozenset(o.split("=")[0].lstrip("-") for o in flags.overrides)
    names = (field.name for field in dataclasses.fields(FolderFlags))
    for name in ("dir", *names):
        if (flag := f"config.data.{name}") in fixed:
            raise InputError(f"give {name} as an argument, not as --{flag}")
    return fixed


def _read_experiment(
    config: str, overrides: Sequence[str], given: Sequence[str]
) -> training.Experiment:
    """That of a configuration for folders, changed by all flags that are given."""
    name = training.Experiment(read_config(config, overrides)).config.data.name
    if name != "folder":
        got = f"{config} with config.data.name {name}"
        raise InputError(f"--config must be for folders, as folder is, got {got}")
    return training.Experiment(read_config(config, given))


def _sources(data: Any) -> dict[str, Any]:
    """The examples of each split that has any, as the train split must."""
    data.source("train")  # what is wrong with all data is raised here
    sources: dict[str, Any] = {}
    for split in _SPLITS:
        with contextlib.suppress(InputError):  # so few images that a split has none
            source = data.source(split)
            # A folder's test split may be its validation split.
            if not any(source is other for other in sources.values()):
                sources[split] = source
    return sources


def _measure_instances(data: Any, number: int) -> InstanceSizes:
    """Measures evenly spaced images of every split."""
    sizes = None
    for split, source in _sources(data).items():
        chosen = np.linspace(0, len(source) - 1, min(number, len(source))).astype(int)
        found = measure_instances(source, indices=progress(chosen.tolist(), split))
        sizes = sizes.merge(found) if sizes else found
    if sizes is None or not sizes.areas.size:
        hint = "sphemb check-data lists the errors and what the masks hold"
        raise InputError(f"no usable image has instances: {hint}")
    return sizes


def _spreads(sizes: InstanceSizes) -> dict[str, Any]:
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
        "vanishing": {str(k): float(np.mean(v)) for k, v in sizes.vanishing.items()},
    }


def _data_lines(data: dict[str, Any]) -> list[str]:
    lines = [f"{data['images']:,} images with {data['instances']:,} instances"]
    if data["unusable"]:
        lines[0] += f"; {data['unusable']} more cannot be used, see sphemb check-data"
    titles = {"instances_of_an_image": "instances of an image"}
    for name, title in {**titles, "area": "pixels of an instance"}.items():
        values = (f"{k} {v:,.0f}" for k, v in data[name].items())
        lines.append(f"{title}: {', '.join(values)}")
    lost = (f"{100 * v:.1f} % at {k}" for k, v in data["vanishing"].items())
    lines.append(f"vanish at a stride of the map: {', '.join(lost)}")
    return [*lines, f"touch another instance: {100 * data['touching']:.0f} %"]


def _share_in_color(data: Any) -> float:
    """The share of some images in which many pixels have channels that differ."""
    number, least, share = _COLORED
    found = []
    for source in _sources(data).values():
        chosen = np.linspace(0, len(source) - 1, min(number, len(source))).astype(int)
        for i in chosen.tolist():
            with contextlib.suppress(InputError):  # as those that are not measured
                ranges = np.ptp(source[i]["image"], axis=-1)
                found.append(np.mean(ranges > least) > share)
    return float(np.mean(found)) if found else 0.0


def _choose_config(sizes: InstanceSizes, colored: float) -> Advice:
    """The variant of ``configs/folder.py``, from scratch or for photographs."""
    reason = f"{100 * colored:.0f} % of the images are in color, and a typical object "
    reason += (
        f"has a diameter of {sizes.diameter:.0f} pixels; photographs are those in "
    )
    reason += f"color whose objects have {_CELLS} or more"
    photographs = colored > 0.5 and sizes.diameter >= _CELLS
    return Advice("config", "folder:photographs" if photographs else "folder", reason)


def limits_for(most: int) -> dict[str, int]:
    """Limits of a task, with a reserve, for a fullest image of ``most`` instances."""
    return {
        "max_components": _up(1.5 * most, 50),
        "max_groups": _power_of_two(2 * (most + 1)),
        "max_objects": _up(1.25 * most, 16),
    }


def _with_defaults(experiment: training.Experiment) -> dict[str, Any]:
    """The configuration, with the defaults of what network and task leave out."""
    config = experiment.config.to_dict()
    for section in ("model", "task"):
        known = inspect.signature(type(getattr(experiment, section))).parameters
        defaults = {k: p.default for k, p in known.items() if p.default is not p.empty}
        config[section] = defaults | config[section]
    return config


def _advise_on_data(
    sizes: InstanceSizes, experiment: training.Experiment, fixed: frozenset[str]
) -> list[Advice]:
    """Derives the settings that a configuration has and that are not fixed."""
    config, advice = _with_defaults(experiment), []
    model, task = config["model"], config["task"]
    made: Any = experiment.task
    objects = isinstance(made, Objects)

    def is_free(section: str, name: str) -> bool:  # no flag adds an entry
        there = name in experiment.config[section]
        return there and f"config.{section}.{name}" not in fixed

    def advise(section: str, name: str, value: Any, reason: str) -> None:
        if is_free(section, name):
            advice.append(Advice(f"config.{section}.{name}", value, reason))
            config[section][name] = value

    if "decoder_stride" in model and not objects:
        coarsest = model.get("output_stride") or 16
        lost = {k: np.mean(v) for k, v in sizes.vanishing.items() if k < coarsest}
        stride = max((k for k, share in lost.items() if share <= _LOST), default=1)
        shares = ", ".join(f"{100 * v:.1f} % at stride {k}" for k, v in lost.items())
        reason = f"of {sizes.areas.size:,} instances, {shares} vanish"
        advise("model", "decoder_stride", int(stride), reason)

    seen = 1.0
    if objects:
        diameter = task["diameter"]
        if diameter is None:
            diameter = round(sizes.diameter, 1)
            reason = "the median over images of the median instance"
            advise("task", "diameter", diameter, reason)
        seen = dataclasses.replace(made, diameter=diameter).image_scale
        large = seen * float(np.quantile(sizes.sides, 0.95))
        image = seen * float(np.median(sizes.images.max(axis=1)))
        longest = task["periods"][0]
        if longest < min(1.5 * large, image):
            periods = tuple(float(_up(2 * large, 32)) / k for k in (1, 2, 4))
            reason = "where the network sees them, 19 of 20 instances are at most "
            advise("task", "periods", periods, f"{reason}{large:.0f} pixels long")

    crop = config["augmentation"].get("size")
    if crop:
        large = seen * float(np.quantile(sizes.sides, 0.95))
        image = int(seen * np.median(sizes.images.min(axis=1)))
        factor, step = _CROP
        if objects and not is_free("task", "window"):  # windows fill a crop
            step = math.lcm(step, task["window"])
        side = min(_up(max(factor * large, min(crop)), step), _up(image, step))
        reason = f"19 of 20 instances are at most {large:.0f} pixels long, and half of "
        reason += f"the images have a side of at most {image}"
        reason += f", where the network sees them at {seen:.3g} times their size" * (
            seen != 1.0
        )
        advise("augmentation", "size", (side, side), reason)
        if objects:
            windows = max(math.gcd(*crop) // task["window"], 1)  # along a side
            crop = config["augmentation"]["size"]
            reason = f"at least {windows} x {windows} windows in a crop"
            side = math.gcd(*crop)
            fits = (side // k for k in range(windows, side + 1) if side % k == 0)
            advise("task", "window", next(fits), reason)
        crop = config["augmentation"]["size"]

    most = int(sizes.counts.max())
    if objects:
        limits = limits_for(most)
        reason = f"the fullest of {len(sizes.counts)} images has {most} instances"
        for name, least in (("max_groups", "max_components"), ("max_objects",) * 2):
            advise("task", name, max(task[name], limits[least]), reason)
        return advice
    groups = most + 1  # with the background
    reason = f"the fullest image has {most} instances"
    if task.get("max_components"):  # one loss sees the instances of a crop
        window = crop or tuple(sizes.images.max(axis=0))
        shares = np.minimum(1.0, np.prod(window) / np.prod(sizes.images, axis=1))
        groups = int(np.ceil((sizes.counts * shares).max())) + 1
        side = " x ".join(map(str, window))
        reason = f"the fullest crop of {side} pixels has about {groups - 1} instances"
    margin, dim = task.get("margin", _MARGIN), _DIM
    if "embedding_dim" in model:
        dim, need = model["embedding_dim"], min_dimension(groups, margin)
        reason += f"; with the background, these {groups} groups can have zero loss at "
        reason += f"margin {margin} from {need} dimensions on"
        reason += ", and perhaps in fewer" * (margin > 0.5 and need > 3)
        wide = dim if dim >= need else _power_of_two(need)
        advise("model", "embedding_dim", wide, reason)
        dim = model["embedding_dim"]
    least = margin_for(groups, dim).margin
    reason = f"{groups} groups in {dim} dimensions can have zero loss from a margin of "
    advise("task", "margin", margin, f"{reason}{least:.3f} on")
    rule = round(float(concentration_from_margin(margin)), 2)
    now = task.get("concentration", rule)
    near = 0.6 <= now / rule <= 1 / 0.6
    reason = f"(3 / (1 - margin))^2, the supplement's rule, is {rule:g}"
    reason += f", and {now:g} is near" * (near and now != rule)
    reason += "; a trained run gives a better estimate (--workdir)"
    value = now if near else type(now)(rule)  # a flag keeps the type of an entry
    advise("task", "concentration", value, reason)

    limits = limits_for(most)
    reason = f"the fullest of {len(sizes.counts)} images has {most} instances, and "
    of_groups = "max_components" if task.get("max_components") else "max_groups"
    for name, more in {
        of_groups: "predictions may find more",
        "max_objects": "all are scored",
    }.items():
        advise("task", name, max(task.get(name, 1), limits[name]), reason + more)
    return advice


def _up(value: float, step: int) -> int:
    return int(-(-value // step) * step)


def _power_of_two(value: int) -> int:
    return 1 << (int(value) - 1).bit_length()


def _measure_similarities(trained: training.Trained) -> dict[str, float]:
    """Measures calibrated similarities of a run's embeddings, and sizes of its groups.

    ``within`` is the median of pairs of one instance, of which a tenth is below
    ``within_low``; a twentieth of the pairs of two instances exceed ``between``; pairs
    weigh as in Eq. 2. ``instance`` and ``largest`` are the points that mean shift moves
    of a typical and of the largest group.
    """
    experiment = trained.experiment
    readoff: Any = experiment.task.readoff
    pairs: dict[bool, list[np.ndarray]] = {True: [], False: []}
    typical, largest = [], []
    split = next(iter(_sources(experiment)))
    chosen = list(experiment.usable(split, _EMBEDDED))
    for batch in experiment.one_pass(split, chosen, batch_size=1):
        labels = np.asarray(batch["instances"]).reshape(-1)
        valid = np.flatnonzero(labels >= 0)
        numbers, sizes = np.unique(labels[valid], return_counts=True)
        if len(numbers) < 2:
            continue
        cell = 1 if readoff.predict_pixels else _cell(experiment, batch["image"].shape)
        typical.append(np.median(sizes[numbers > 0]) / cell)
        largest.append(sizes.max() / cell)
        sample = np.random.default_rng(0).permutation(valid)[:_POINTS]
        points = np.asarray(embed_pixels(trained.apply, batch))
        points, labels = points.reshape(len(labels), -1)[sample], labels[sample]
        one, other = np.triu_indices(len(labels), 1)
        similarity = 0.5 * (1.0 + points @ points.T)[one, other]
        _, ranks, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        weights = 1.0 / (sizes[ranks[one]] * sizes[ranks[other]])
        same = labels[one] == labels[other]
        for kind, mask in ((True, same), (False, ~same)):
            share = weights[mask] / max(weights[mask].sum(), 1e-30)
            pairs[kind].append(np.stack([similarity[mask], share]))
    if not all(kind and all(p.size for p in kind) for kind in pairs.values()):
        wanted = "images with two instances, or an instance and a background"
        raise InputError(f"the {split} split must have {wanted}, got none usable")

    def quantile(kind: bool, share: float) -> float:
        values, weights = np.concatenate(pairs[kind], axis=1)
        found = np.quantile(values, share, weights=weights, method="inverted_cdf")
        return float(found)

    return {
        "within": quantile(True, 0.5),
        "within_low": quantile(True, 0.1),
        "between": quantile(False, 0.95),
        "instance": float(np.median(typical)),
        "largest": float(np.median(largest)),
        "num_images": len(typical),
    }


def _cell(experiment: training.Experiment, shape: tuple[int, ...]) -> int:
    """Pixels of a cell of the embedding map of images [1, H, W, 3]."""
    own, image = experiment.abstract_state, jax.ShapeDtypeStruct(shape, jnp.float32)
    maps = jax.eval_shape(experiment.network, own.params, own.batch_stats, image)
    return math.prod(shape[:3]) // math.prod(maps["embedding"].shape[:3])


def concentration_bounds(
    *, within: float, within_low: float, between: float, instance: float, largest: float
) -> tuple[float, float]:
    r"""Between which concentrations a mean shift separates what a network has learned.

    By the kernel :math:`e^{2\kappa(s - 1)}` of two points at a calibrated similarity s,
    a group of R times as many points pulls :math:`R\, e^{-2 \kappa (s_{within} -
    s_{between})}` times as much as the own instance: a hundredth at the lower bound. An
    instance of n points pulls a point at its edge :math:`n\, e^{-2\kappa(1 - s_{low})}`
    times as much as itself: once at the upper bound.
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


def _advise_on_run(found: dict[str, float], now: float) -> Advice:
    """The concentration for a run's embeddings; one in the bounds stays."""
    measured = {k: v for k, v in found.items() if k != "num_images"}
    low, high = concentration_bounds(**measured)
    value = now
    reason = f"above {low:.0f} other groups pull a pixel less than a hundredth as much "
    reason += (
        f"as its own, and below {high:.0f} an instance pulls the points at its edge"
    )
    if math.isinf(low):
        reason = "points are no more similar within instances than between them, so "
        reason += "that no concentration separates them: train longer, or on a finer "
        reason += "map, first"
    elif low > high:
        reason += ", so that none does both: train longer, or on a finer map, first"
    elif not low <= now <= high:
        value = type(now)(round(math.sqrt(low * high), 1))
        reason += f", which {now:g} is not between"
    return Advice("config.task.concentration", value, reason)


def _measure_step(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Compiles a training step, runs it if its memory is free, and prints its costs."""
    experiment, free = training.Experiment(config), _free_bytes()
    step: Any = training.data_parallel(
        experiment.train_step, replicated_output=True, donate_state=True
    )
    batch = next(experiment.train_batches())
    split = training.split_batch(batch)
    compiled = step.lower(experiment.abstract_state, split).compile()
    plan = compiled.memory_analysis()
    needed = plan.argument_size_in_bytes + plan.output_size_in_bytes
    needed += plan.temp_size_in_bytes - plan.alias_size_in_bytes
    number, height, width, _ = batch["image"].shape
    line = f"training: {number} images of {height} x {width} take "
    line += f"{needed / 2**30:.3g} GiB"
    if free is not None:
        line += f" of the {free / 2**30:.3g} GiB that are free"
    seconds = math.nan
    if free is not None and needed > free:
        line += ": set config.loader.images_per_device to fewer"
    else:
        state = training.replicate(experiment.init_state())
        for _ in range(2):  # the first call has costs of its own
            start = time.perf_counter()
            state, scalars = compiled(state, split)
            jax.block_until_ready((state, scalars))
            seconds = time.perf_counter() - start
        total = training.duration(seconds * experiment.num_steps)
        line += f", and {seconds:.2f} s; {experiment.num_steps:,} steps take about "
        line += f"{total} on {training.devices()}, without reading and scoring"
    print(f"\n{line}", flush=True)
    return {"needed": int(needed), "free": free, "seconds": seconds}


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
