"""What an example is, where prepared ones are read, and what makes one unusable.

An example is ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``
with -1 for pixels that do not count, 0 for background and 1, 2, .. for instances. Some
have ``"semantic"`` as well: int32 [H, W], -1 void, 0 background, 1, 2, .. classes.
Those of BSDS500 have ``"boundaries"``: int8 [A, H, W], 1, 0, or -1 where an annotator
is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import InputError, InputTypeError, check_shape
from sphemb._labels import VOID
from sphemb.data.files import Header, decode_image, decode_labels, read_header

LABEL_MAPS = ("instances", "semantic")
"""The entries of an example that number its pixels, the second one optional."""

PIXEL_MAPS = (*LABEL_MAPS, "boundaries", "mask")
"""The entries of an example that describe its pixels, [..., H, W], where present."""

_HIGHEST_LABEL = np.iinfo(np.int32).max


class BuilderExamples:
    """The examples of one split of a prepared TFDS builder, by random access.

    An image comes as uint8 [H, W, 3] even where it is kept in grey. Every other image
    of one channel is taken for a label map and comes as int32 [H, W], in which the
    largest number that its bits hold (255 or 65535) has become -1, void. Whatever other
    features there are pass as they are.

    Args:
        builder: a prepared builder with the features image, instances and name, in a
            format that is readable without TensorFlow, such as array_record.
        split: ``"train"``, or a part such as ``"train[:10%]"``.

    Attributes:
        class_names: what the numbers in ``"semantic"`` stand for, from 0 on; empty
            where the builder's metadata do not say.

    Raises:
        InputError: the split does not exist, or needs TensorFlow to be read.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        """Opens the split; see the class."""
        metadata: Any = builder.info.metadata or {}
        self.class_names: tuple[str, ...] = tuple(metadata.get("class_names", ()))
        self._images = [
            key
            for key, feature in dict(builder.info.features or {}).items()
            if isinstance(feature, tfds.features.Image)
        ]
        try:
            self._records = builder.as_data_source(
                split,
                decoders={key: tfds.decode.SkipDecoding() for key in self._images},
            )
        except (ValueError, KeyError, NotImplementedError) as error:
            have = ", ".join(builder.info.splits) or "none"
            raise InputError(
                f"split {split!r} of {builder.info.full_name} cannot be opened (its "
                f"splits: {have}): {' '.join(str(error).split())}"
            ) from error

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads and decodes one example."""
        record = self.encoded(index)
        example = dict(record)
        for key in self._images:
            decode = decode_image if key == "image" else decode_labels
            example[key] = decode(record[key], who=f"{key} of {record['name']!r}")
        header = self.header(record)
        for key in set(LABEL_MAPS) & set(self._images):
            example[key] = header.turn(example[key])
        return example

    def instances(self, index: int) -> np.ndarray:
        """Reads the instances of one example alone, as they are stored."""
        record = self.encoded(index)
        return decode_labels(
            record["instances"], who=f"instances of {record['name']!r}"
        )

    def encoded(self, index: int) -> dict[str, Any]:
        """Reads one example and leaves its images as the bytes that are kept."""
        record: dict[str, Any] = self._records[index]
        return {**record, "name": record["name"].decode()}

    def size(self, index: int) -> tuple[int, int]:
        """Returns (H, W) of one example without decoding its pixels."""
        return self.header(self.encoded(index)).size

    def header(self, record: dict[str, Any]) -> Header:
        """Returns the header of the image of what :meth:`encoded` gives."""
        return read_header(record["image"], who=f"image of {record['name']!r}")


def move_pixels(
    example: dict[str, Any],
    *,
    image: Callable[[np.ndarray], np.ndarray],
    maps: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Any]:
    """Changes where the pixels of an example are, in its image and in all its maps.

    Every transform that moves pixels calls it, so that no map keeps its old places.

    Args:
        example: ``"image"`` [H, W, C], and any of `PIXEL_MAPS`, [..., H, W].
        image: moves the image.
        maps: moves the last two axes of a map in the same way.

    Returns:
        The example with moved pixels; other entries pass.

    Raises:
        InputError: a map does not have the size of the image.

    >>> example = {"image": np.eye(2)[..., None], "mask": np.eye(2, dtype=bool)}
    >>> moved = move_pixels(example, image=np.flipud, maps=lambda m: m[..., ::-1, :])
    >>> bool((moved["image"][..., 0] == moved["mask"]).all())
    True
    """
    size = np.shape(example["image"])[:2]
    present = {key: np.asarray(example[key]) for key in PIXEL_MAPS if key in example}
    for key, array in present.items():
        if array.shape[-2:] != size or array.ndim != 2 + (key == "boundaries"):
            wanted = "[A, H, W]" if key == "boundaries" else "[H, W]"
            raise InputError(
                f"{key} of example {example.get('name', '')!r} must have shape "
                f"{wanted} of its image {size}, got {array.shape}"
            )
    return {
        **example,
        "image": image(np.asarray(example["image"])),
        **{key: maps(array) for key, array in present.items()},
    }


def network_ready(example: dict[str, Any]) -> dict[str, np.ndarray]:
    """Checks an example and returns what a network takes.

    Args:
        example: image, uint8 or floating point in [0, 1], integer instances, perhaps
            integer ``"semantic"``, a name.

    Returns:
        ``"image"`` float32 [H, W, 3] in [0, 1]; the label maps int32 [H, W].

    Raises:
        InputError: a shape, dtype or value is impossible; the name is in the message.
    """
    image = np.asarray(example["image"])
    who = f"example {example.get('name', '')!r}"
    sizes = check_shape(f"image of {who}", image, "H W 3")
    sizes = {letter: sizes[letter] for letter in "HW"}
    if image.dtype == np.uint8:
        image = image.astype(np.float32) / 255.0
    elif np.issubdtype(image.dtype, np.floating):
        if not np.isfinite(image).all():
            raise InputError(f"image of {who} must be finite, got NaN or infinity")
        if image.size and (image.min() < 0.0 or image.max() > 1.0):
            raise InputError(
                f"image of {who} must lie in [0, 1] when it is floating point, got "
                f"values from {image.min():g} to {image.max():g}"
            )
        image = image.astype(np.float32)
    else:
        raise InputTypeError(
            f"image of {who} must be uint8 or floating point, got {image.dtype}"
        )
    maps = {key: np.asarray(example[key]) for key in LABEL_MAPS if key in example}
    for key, labels in maps.items():
        check_shape(f"{key} of {who}", labels, "H W", dims=sizes, beside="its image")
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputTypeError(f"{key} of {who} must be integers, got {labels.dtype}")
        if labels.size:
            low, high = int(labels.min()), int(labels.max())
            if low < VOID or high > _HIGHEST_LABEL:
                raise InputError(
                    f"{key} of {who} must be -1 (void), 0 (background) or 1, 2, .., "
                    f"got values from {low} to {high}"
                )
    return {
        "image": image,
        **{key: labels.astype(np.int32) for key, labels in maps.items()},
    }
