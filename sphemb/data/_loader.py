"""From a random-access source to batches: shuffled, augmented, sharded, resumable.

B batch, A annotators, H W image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from sphemb._checks import InputError, check_count
from sphemb.data._examples import network_ready

_PADDING = -1
_AS_THEY_ARE = ("mask", "boundaries")


class ExampleSource(Protocol):
    """Anything with a length that yields an example by its number."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Returns one example."""
        ...

    def size(self, index: int, /) -> tuple[int, int]:
        """Returns an example's (H, W), without decoding its image where it can."""
        ...


Transform = (
    grain.transforms.RandomMap
    | grain.transforms.Map
    | Callable[[dict[str, Any]], dict[str, Any]]
)


def make_loader(
    source: ExampleSource,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = False,
    repeat: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
    drop_remainder: bool = False,
    transforms: Sequence[Transform] = (),
    num_threads: int = 2,
) -> grain.IterDataset:
    """Makes a stream of batches that is the same for the same settings.

    With ``repeat`` the stream never ends and epochs follow each other without a gap,
    each in a new order if ``shuffle``. Without, it is one pass, and the last batches
    are filled up with zeros that are marked as not valid. Batch b of all shards
    together holds the examples that one shard with a batch of shard_count * batch_size
    would have; all shards have the same number of batches.

    The iterator has ``get_state`` and ``set_state`` and goes into an Orbax checkpoint
    as ``grain.checkpoint.CheckpointSave(iterator)``.

    Args:
        source: the examples: image [H, W, 3], uint8 or floating point in [0, 1];
            integer instances [H, W]; name.
        batch_size: B, examples per batch on this shard.
        seed: for the order and the transforms.
        shuffle: mix the examples, differently in every epoch.
        repeat: go on for ever.
        shard_index: which part this process reads.
        shard_count: how many processes read.
        drop_remainder: without ``repeat``, leave out what does not fill a batch on
            every shard.
        transforms: grain's Map or RandomMap, or functions, from example to example;
            entries that they do not know must pass. Chance depends on the seed and the
            position in the stream alone.
        num_threads: threads that prepare batches ahead; 0 prepares none.

    Returns:
        A dataset of dictionaries: ``"image"``, float32 [B, H, W, 3] in [0, 1];
        ``"instances"``, int32 [B, H, W]; ``"valid"``, bool [B]; ``"index"``, int64 [B],
        the position in the source, -1 where not valid. Where examples have them,
        ``"semantic"``, int32
        [B, H, W], and ``"boundaries"``, int8 [B, A, H, W], come too, and so does
        ``"mask"``, bool [B, H, W], where a transform gives it.

    Raises:
        InputError: a setting does not fit; while iterating: an image with NaN or
            values outside [0, 1], impossible instances, or unequal sizes in a batch.

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
        raise InputError(
            f"shard_index must be below shard_count = {shard_count}, got {shard_index}"
        )
    number, step = len(source), batch_size * shard_count
    if number == 0:
        raise InputError("source must hold at least one example, got none")
    if drop_remainder and not repeat and number < step:
        raise InputError(
            f"source must fill one batch on every shard ({step} examples) with "
            f"drop_remainder, got {number}"
        )

    positions = grain.MapDataset.range(number).seed(seed)
    if shuffle:
        positions = positions.shuffle()
    if repeat:
        positions = positions.repeat()
    elif drop_remainder:
        positions = positions[: number - number % step]
    elif number % step:
        padding = grain.MapDataset.source([_PADDING] * (step - number % step))
        positions = grain.MapDataset.concatenate([positions, padding])

    examples = positions.map(_Fetch(source)).seed(seed)
    for transform in transforms:
        if isinstance(transform, grain.transforms.RandomMap):
            examples = examples.random_map(transform)
        else:
            examples = examples.map(transform)
    # The shards part only here, so that chance in the transforms follows the position
    # in the common stream and no two shards repeat each other's draws.
    shard = examples.map(_finish)[shard_index::shard_count]
    batches = shard.batch(batch_size, drop_remainder=True, batch_fn=_stack)
    return batches.to_iter_dataset(
        grain.ReadOptions(
            num_threads=num_threads, prefetch_buffer_size=2 * max(1, num_threads)
        )
    )


class _Fetch:
    """Reads the example at a position; padding borrows the first one's shape."""

    def __init__(self, source: ExampleSource) -> None:
        self._source = source

    def __call__(self, position: int) -> dict[str, Any]:
        example = self._source[max(int(position), 0)]
        return {**example, "index": np.int64(position)}


def _finish(example: dict[str, Any]) -> dict[str, Any]:
    ready = network_ready(example)
    valid = bool(example["index"] != _PADDING)
    if not valid:
        ready = {key: np.zeros_like(array) for key, array in ready.items()}
    return {key: example[key] for key in _AS_THEY_ARE if key in example} | {
        **ready,
        "valid": np.bool_(valid),
        "index": example["index"],
    }


def _stack(examples: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    first = examples[0]
    for other in examples[1:]:
        if other["image"].shape != first["image"].shape:
            raise InputError(
                "a batch must hold images of one size, got "
                f"{first['image'].shape[:2]} at index {first['index']} and "
                f"{other['image'].shape[:2]} at index {other['index']}: crop or resize "
                "them in a transform, or use batch_size=1"
            )
    return {key: np.stack([example[key] for example in examples]) for key in first}
