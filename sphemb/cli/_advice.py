"""From what instances are like to settings, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb.data import InstanceSizes
from sphemb.sphere import concentration_from_margin, margin_for, min_dimension

MARGIN = 0.5
_PAPER_DIM = 64  # of the paper: what more instances want is no single direction each
_LOST = 0.01  # of the instances may vanish on the map
_LEAST_SAMPLED = 4  # pixels of an instance
_SAMPLES = (512, 4096)
_CROP_OF_OBJECT = 1.5
_CROP_STEP = 32


class Advice(NamedTuple):
    """One setting.

    Attributes:
        setting: such as ``"config.task.margin"``.
        value: of it.
        reason: in one sentence.
    """

    setting: str
    value: Any
    reason: str

    @property
    def flag(self) -> str:
        """As a flag of ``sphemb train``."""
        value = self.value
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        return f"--{self.setting}={value}"


def choose_config(sizes: InstanceSizes) -> Advice:
    """The configuration to start from: one for few instances, or one for many."""
    most = _most(sizes)
    if most + 1 > 2 * _PAPER_DIM:
        return Advice(
            "config",
            "nuclei",
            f"the fullest image has {most} instances, more than the "
            f"{2 * _PAPER_DIM - 1} that {_PAPER_DIM} dimensions keep apart at margin "
            f"{MARGIN}, so that only neighbours can be told apart",
        )
    return Advice(
        "config",
        "folder",
        f"the fullest image has {most} instances, each of which can have a direction "
        "of its own",
    )


def advise_on_data(
    sizes: InstanceSizes, config: Mapping[str, Any], *, fixed: frozenset[str]
) -> list[Advice]:
    """What the instances of a data set say about the settings.

    Args:
        sizes: from `sphemb.data.measure_instances`.
        config: that training would start from.
        fixed: settings that were given and stay.

    Returns:
        The settings that this configuration has and that are not fixed; those that are
        right as they are, too.

    Raises:
        InputError: no instances; or a margin that no dimension allows.
    """
    if not sizes.areas.size:
        raise InputError(
            "the images must have instances to advise on, got none: sphemb check-data "
            "tells what their masks hold"
        )
    found: list[Advice] = []
    for rule in (_stride, _crop, _margin, _room, _smallest, _samples):
        for advice in rule(sizes, config):
            _, section, name = advice.setting.split(".")
            if name in config[section] and advice.setting not in fixed:
                found.append(advice)
                config = _changed(config, section, name, advice.value)
    return found


def _changed(
    config: Mapping[str, Any], section: str, name: str, value: Any
) -> dict[str, Any]:
    # Later rules build on earlier ones.
    return {**config, section: {**config[section], name: value}}


def _most(sizes: InstanceSizes) -> int:
    return int(sizes.counts.max(initial=0))


def _stride(sizes: InstanceSizes, config: Mapping[str, Any]) -> Iterator[Advice]:
    model = config["model"]
    if "decoder_stride" not in model:
        return
    coarsest = model.get("output_stride") or 8
    lost = {s: float(np.mean(v)) for s, v in sizes.vanishing.items() if s <= coarsest}
    kept = max((s for s, share in lost.items() if share <= _LOST), default=1)
    told = ", ".join(f"{100 * share:.1f} % at stride {s}" for s, share in lost.items())
    reason = f"of {sizes.areas.size:,} instances there vanish {told}"
    now = model["decoder_stride"] or coarsest
    if config["task"].get("erosion") and now < kept:
        reason += ", and outlines are only a few pixels wide"
        kept = now
    yield Advice("config.model.decoder_stride", int(kept), reason)


def _crop(sizes: InstanceSizes, config: Mapping[str, Any]) -> Iterator[Advice]:
    size = config["augmentation"].get("size")
    if not size:
        return
    large = float(np.quantile(sizes.sides, 0.95))
    image = int(np.median(sizes.images.min(axis=1)))
    wanted = max(_CROP_OF_OBJECT * large, min(size))
    side = min(_up(wanted, _CROP_STEP), _up(image, _CROP_STEP))
    told = f"19 of 20 instances are at most {large:.0f} pixels long"
    yield Advice(
        "config.augmentation.size",
        (side, side),
        f"{told}, and half of the images have a side of at most {image}",
    )


def _margin(sizes: InstanceSizes, config: Mapping[str, Any]) -> Iterator[Advice]:
    margin = config["task"].get("margin", MARGIN)
    groups, told = _groups_at_once(sizes, config)
    if "embedding_dim" in config["model"]:
        need, dim = min_dimension(groups, margin), config["model"]["embedding_dim"]
        value = dim if dim >= need else _power_of_two(need)
        yield Advice(
            "config.model.embedding_dim",
            value,
            f"{told}; with the background, these {groups} groups can have zero loss at "
            f"margin {margin} from {need} dimensions on"
            + (", and perhaps in fewer" if margin > 0.5 and need > 3 else ""),
        )
        dim = value
    else:
        dim = _PAPER_DIM
    least = margin_for(groups, dim).margin
    yield Advice(
        "config.task.margin",
        margin,
        f"{groups} groups in {dim} dimensions can have zero loss from a margin of "
        f"{least:.3f} on",
    )
    rule = round(float(concentration_from_margin(margin)), 2)
    now = config["task"].get("concentration", rule)
    near = 0.6 <= now / rule <= 1 / 0.6
    yield Advice(
        "config.task.concentration",
        now if near else rule,
        f"(3 / (1 - margin))^2, the supplement's rule, is {rule:g}"
        + (f", and {now:g} is near" if near and now != rule else "")
        + "; a trained run can tell better (--workdir)",
    )


def _groups_at_once(sizes: InstanceSizes, config: Mapping[str, Any]) -> tuple[int, str]:
    """How many groups the theory has to place, the background included."""
    most = _most(sizes)
    if not config["task"].get("max_components"):
        return most + 1, f"the fullest image has {most} instances"
    # Parts of a group are told apart by place: what one loss sees must have room.
    crop = config["augmentation"].get("size") or tuple(sizes.images.max(axis=0))
    shares = np.minimum(1.0, np.prod(crop) / np.prod(sizes.images, axis=1))
    seen = int(np.ceil((sizes.counts * shares).max()))
    side = " x ".join(map(str, crop))
    return seen + 1, f"the fullest crop of {side} pixels has about {seen} instances"


def room_for(most: int) -> dict[str, int]:
    """Limits of a task that leave room where the fullest image has so many instances.

    Args:
        most: instances of the fullest image.

    Returns:
        ``max_components``, ``max_groups`` and ``max_objects``.
    """
    return {
        "max_components": _up(1.5 * most, 50),
        "max_groups": _power_of_two(2 * (most + 1)),
        "max_objects": _up(1.25 * most, 16),
    }


def _room(sizes: InstanceSizes, config: Mapping[str, Any]) -> Iterator[Advice]:
    most, task = _most(sizes), config["task"]
    room = room_for(most)
    told = f"the fullest of {len(sizes.counts)} images has {most} instances"
    if task.get("max_components"):
        yield Advice(
            "config.task.max_components",
            max(task["max_components"], room["max_components"]),
            f"{told}, and a prediction may find more",
        )
    else:
        yield Advice(
            "config.task.max_groups",
            max(task.get("max_groups", 1), room["max_groups"]),
            f"{told}, and a prediction may find more; the background is a group, too",
        )
    yield Advice(
        "config.task.max_objects",
        max(task.get("max_objects", 1), room["max_objects"]),
        f"{told}, and scores must be able to count those of the fullest",
    )


def _smallest(sizes: InstanceSizes, config: Mapping[str, Any]) -> Iterator[Advice]:
    if config["task"].get("erosion"):
        return  # outlines are taken off first, and what is left depends on the shape
    small = float(np.quantile(sizes.areas, 0.01))
    yield Advice(
        "config.task.min_size",
        max(1, int(small / 4)),
        f"99 of 100 instances have at least {small:.0f} pixels, and what has not a "
        "quarter of that is a chance finding",
    )


def _samples(sizes: InstanceSizes, config: Mapping[str, Any]) -> Iterator[Advice]:
    crop = config["augmentation"].get("size") or tuple(np.median(sizes.images, axis=0))
    pixels = int(np.prod(crop))
    small = max(1.0, float(np.quantile(sizes.areas, 0.05)))
    wanted = _up(_LEAST_SAMPLED * pixels / small, 256)
    low, high = (min(bound, pixels) for bound in _SAMPLES)
    value = int(np.clip(max(wanted, config["task"].get("num_samples", 1)), low, high))
    expected = value * small / pixels
    yield Advice(
        "config.task.num_samples",
        value,
        f"19 of 20 instances have at least {small:.0f} pixels, of which {expected:.1f} "
        f"are then drawn from {pixels:,}"
        + (", and pairs grow with the square" if wanted > high else ""),
    )


def _up(value: float, step: int) -> int:
    return int(-(-value // step) * step)


def _power_of_two(value: int) -> int:
    return 1 << (int(value) - 1).bit_length()
