"""What an example, a source and a data set are, and how examples become batches.

B batch, A annotators, H W image size.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from sphemb._checks import VOID, InputError, InputTypeError, check_count, check_shape

SPLITS = ("train", "validation", "test")

LABEL_MAPS = ("instances", "semantic")
"""The entries of an example that label its pixels; the second is optional."""

PIXEL_MAPS = (*LABEL_MAPS, "boundaries", "mask")
"""The entries of an example that describe its pixels, [..., H, W], where present."""

_HIGHEST_LABEL = np.iinfo(np.int32).max
_PADDING = -1  # the index of an example that fills up a batch


class ExampleSource(Protocol):
    """The examples of one split, by random access.

    An example is ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``
    with -1 for void pixels, 0 for background and 1, 2, .. for instances. Optional are
    ``"semantic"``, int32 [H, W], -1 void, 0 background, 1, 2, .. classes; and
    ``"boundaries"``, int8 [A, H, W], 1, 0, or -1 where an annotator is absent.
    An unusable example raises an `InputError` that names its file. Optional attributes:
    ``class_names``, from class 0 on; and ``instances(index)``, read alone.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...

    def size(self, index: int, /) -> tuple[int, int]:
        """Returns an example's (H, W), if possible without decoding its image."""
        ...


class Dataset(Protocol):
    """What ``config.data.name`` names: a class or function whose result has `source`.

    It is called with the other entries of ``config.data`` as keyword arguments. A data
    set of your own is such a class (not a function), in a module that can be imported,
    and ``config.data.name = "package.module:Name"``. Optional attributes: ``reading``,
    the `Reading` of its image files; ``problems``, errors that `check_data` reports.
    """

    def source(self, split: str, /) -> ExampleSource:
        """Returns the examples of ``"train"``, ``"validation"`` or ``"test"``."""
        ...


def move_pixels(
    example: dict[str, Any],
    *,
    image: Callable[[np.ndarray], np.ndarray],
    maps: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Any]:
    """Moves the pixels of an image [H, W, C] and of all its maps [..., H, W] alike."""
    size = np.shape(example["image"])[:2]
    present = {key: np.asarray(example[key]) for key in PIXEL_MAPS if key in example}
    for key, array in present.items():
        if array.shape[-2:] != size or array.ndim != 2 + (key == "boundaries"):
            wanted = "[A, H, W]" if key == "boundaries" else "[H, W]"
            text = f"{key} of example {example.get('name', '')!r} must have shape"
            raise InputError(f"{text} {wanted} of its image {size}, got {array.shape}")
    return {
        **example,
        "image": image(np.asarray(example["image"])),
        **{key: maps(array) for key, array in present.items()},
    }


def network_ready(
    example: dict[str, Any], *, compact: bool = False
) -> dict[str, np.ndarray]:
    """Checks an example and returns float32 images in [0, 1] and int32 label maps.

    With ``compact``, images of 8 bits stay uint8, and label maps have the smallest
    signed type that holds them.
    """
    image = np.asarray(example["image"])
    who = f"example {example.get('name', '')!r}"
    sizes = check_shape(f"image of {who}", image, "H W 3")
    if image.dtype == np.uint8:
        image = image if compact else image.astype(np.float32) / 255.0
    elif np.issubdtype(image.dtype, np.floating):
        if not np.isfinite(image).all():
            raise InputError(f"image of {who} must be finite, got NaN or infinity")
        if image.size and (image.min() < 0.0 or image.max() > 1.0):
            text = f"image of {who} must lie in [0, 1] when it is floating point, got"
            raise InputError(f"{text} values from {image.min():g} to {image.max():g}")
        image = image.astype(np.float32)
    else:
        text = f"image of {who} must be uint8 or floating point"
        raise InputTypeError(f"{text}, got {image.dtype}")
    maps = {}
    for key in LABEL_MAPS:
        if key not in example:
            continue
        labels = np.asarray(example[key])
        check_shape(f"{key} of {who}", labels, "H W", dims=sizes, beside="its image")
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputTypeError(f"{key} of {who} must be integers, got {labels.dtype}")
        low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
        if low < VOID or high > _HIGHEST_LABEL:
            text = f"{key} of {who} must be -1 (void), 0 (background) or 1, 2, .., got"
            raise InputError(f"{text} values from {low} to {high}")
        smallest = np.min_scalar_type(-1 - max(int(high), 0)) if compact else np.int32
        maps[key] = labels.astype(smallest)
    return {"image": image, **maps}


class SkippingSource:
    """A source that replaces each example that cannot be used by the next usable one.

    ``skipped`` has index -> what was wrong, as far as read; it is printed once.
    """

    def __init__(self, source: ExampleSource) -> None:
        self.source, self._lock = source, threading.Lock()
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.source)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the size of what ``self[index]`` gives."""
        return self.source.size(self._usable(index)[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._usable(index)[1]

    def usable(self, count: int) -> list[int]:
        """Returns the indices of the first ``count`` examples that can be used."""
        self._usable(0)  # at least one
        readable = (i for i in range(len(self)) if self._read(i) is not None)
        return list(itertools.islice(readable, count))

    def _usable(self, index: int) -> tuple[int, dict[str, Any]]:
        for offset in range(len(self)):
            position = (index + offset) % len(self)
            example = self._read(position)
            if example is not None:
                return position, example
        raise InputError(f"none of the {len(self)} examples can be used")

    def _read(self, index: int) -> dict[str, Any] | None:
        with self._lock:
            if index in self.skipped:
                return None
        try:
            example = self.source[index]
            network_ready(example)
            return example
        except InputError as error:
            line = " ".join(str(error).split())
        with self._lock:
            if index not in self.skipped:
                self.skipped[index] = line
                print(f"skipped: {line}", file=sys.stderr, flush=True)
        return None


@dataclasses.dataclass(frozen=True)
class PadExample(grain.transforms.Map):
    """Extends an example at the bottom and the right to a size (H, W).

    The image is mirrored; maps are void in the padding, and ``"mask"`` is False.

    >>> example = {"image": np.ones((2, 3, 3)), "instances": np.ones((2, 3), int)}
    >>> PadExample((2, 4)).map(example)["instances"]
    array([[ 1,  1,  1, -1],
           [ 1,  1,  1, -1]])
    """

    size: tuple[int, int]

    # Grain declares its base method without a result.
    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the example with image [H, W, 3] and maps [..., H, W]."""
        height, width = element["image"].shape[:2]
        below, right = self.size[0] - height, self.size[1] - width
        if below < 0 or right < 0:
            text = f"example {element.get('name', '')!r} must be at most {self.size[0]}"
            raise InputError(f"{text} x {self.size[1]}, got {height} x {width}")
        border = ((0, below), (0, right))
        mask = element.get("mask", np.ones((height, width), bool))

        def pad(labels: np.ndarray) -> np.ndarray:
            outside = False if labels.dtype == bool else VOID
            sides = [(0, 0)] * (labels.ndim - 2) + list(border)
            return np.pad(labels, sides, constant_values=outside)

        return move_pixels(
            {**element, "mask": mask},
            image=lambda image: np.pad(image, (*border, (0, 0)), mode="symmetric"),
            maps=pad,
        )


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Rounds the sides of an image up to multiples, for evaluation and prediction.

    >>> padded_size((50, 64), 32)
    (64, 64)
    """
    height, width = (side + -side % multiple for side in size)
    return height, width


def size_buckets(
    source: ExampleSource, indices: list[int], *, multiple: int
) -> Mapping[tuple[int, int], list[int]]:
    """Groups examples by `padded_size`: (H, W) -> indices, the largest group first."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for i in indices:
        buckets.setdefault(padded_size(source.size(i), multiple), []).append(i)
    return dict(sorted(buckets.items(), key=lambda item: (-len(item[1]), item[0])))


def make_loader(
    source: ExampleSource,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = False,
    repeat: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
    transforms: Sequence[Any] = (),
    num_threads: int = 2,
    compact: bool = False,
) -> grain.IterDataset:
    """Makes a stream of batches that is the same for the same settings.

    With ``repeat`` the stream never ends, each epoch in a new order if ``shuffle``.
    Without, it is one pass, and the last batches are filled up with zeros that are not
    valid. Batch b of all shards together holds the examples that one shard with a batch
    of shard_count * batch_size would have; all shards have the same number of batches.
    The iterator is saved in an Orbax checkpoint as
    ``grain.checkpoint.CheckpointSave(iterator)``.

    Args:
        source: the examples; images may be floating point in [0, 1] as well.
        batch_size: B, examples per batch on this shard.
        seed: of the order and the transforms.
        shuffle: shuffle the examples, differently in every epoch.
        repeat: never end.
        shard_index: which part this process reads.
        shard_count: how many processes read.
        transforms: grain's Map or RandomMap, or functions, from example to example;
            their randomness depends on the seed and the position in the stream alone.
        num_threads: threads that prepare batches ahead; 0 prepares none.
        compact: see `network_ready`; `sphemb.training.split_batch` and `spread_batch`
            convert on the devices.

    Returns:
        A dataset of dictionaries: ``"image"``, float32 [B, H, W, 3] in [0, 1];
        ``"instances"``, int32 [B, H, W]; ``"valid"``, bool [B]; ``"index"``, int64 [B],
        the position in the source, -1 where not valid; where examples have them,
        ``"semantic"``, int32 [B, H, W], ``"boundaries"``, int8 [B, A, H, W], and
        ``"mask"``, bool [B, H, W]. An unusable example, or unequal sizes in a batch,
        raise an InputError while iterating.

    >>> drawing = {"image": np.zeros((8, 8, 3), np.uint8),
    ...            "instances": np.zeros((8, 8), np.int32), "name": "empty"}
    >>> for batch in make_loader([drawing] * 3, batch_size=2):
    ...     print(batch["image"].shape, batch["index"], batch["valid"])
    (2, 8, 8, 3) [0 1] [ True  True]
    (2, 8, 8, 3) [ 2 -1] [ True False]
    """
    check_count("batch_size", batch_size, at_least=1)
    check_count("seed", seed)
    check_count("shard_count", shard_count, at_least=1)
    check_count("shard_index", shard_index)
    check_count("num_threads", num_threads)
    if seed >= 2**32:
        raise InputError(f"seed must be below 2**32, got {seed}")
    if shard_index >= shard_count:
        text = f"shard_index must be below shard_count = {shard_count}"
        raise InputError(f"{text}, got {shard_index}")
    number, step = len(source), batch_size * shard_count
    if number == 0:
        raise InputError("source must hold at least one example, got none")
    positions = grain.MapDataset.range(number).seed(seed)
    if shuffle:
        positions = positions.shuffle()
    if repeat:
        positions = positions.repeat()
    elif number % step:
        padding = grain.MapDataset.source([_PADDING] * (step - number % step))
        positions = grain.MapDataset.concatenate([positions, padding])

    def fetch(position: int) -> dict[str, Any]:  # padding takes the first one's shape
        example = source[max(int(position), 0)]
        return {**example, "index": np.int64(position)}

    examples = positions.map(fetch).seed(seed)
    for transform in transforms:
        if isinstance(transform, grain.transforms.RandomMap):
            examples = examples.random_map(transform)
        else:
            examples = examples.map(transform)
    # Sharded after the transforms, so that their randomness follows the position in
    # the common stream and differs between shards.
    finish = functools.partial(_finish, compact=compact)
    shard = examples.map(finish)[shard_index::shard_count]
    batches = shard.batch(batch_size, drop_remainder=True, batch_fn=_stack)
    ahead = grain.ReadOptions(num_threads, prefetch_buffer_size=num_threads + 2)
    return batches.to_iter_dataset(ahead)


def _finish(example: dict[str, Any], *, compact: bool) -> dict[str, Any]:
    ready, index = network_ready(example, compact=compact), example["index"]
    valid = bool(index != _PADDING)
    if not valid:
        ready = {key: np.zeros_like(array) for key, array in ready.items()}
    others = {key: example[key] for key in ("mask", "boundaries") if key in example}
    return {**others, **ready, "valid": np.bool_(valid), "index": index}


def _stack(examples: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    sizes: dict[tuple[int, ...], Any] = {}
    for e in examples:
        sizes.setdefault(e["image"].shape[:2], e["index"])
    if len(sizes) > 1:
        found = " and ".join(f"{size} at index {i}" for size, i in sizes.items())
        raise InputError(
            f"a batch must hold images of one size, got {found}: crop or resize them "
            "in a transform, or use batch_size=1"
        )
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}
