"""What an example is, where prepared ones are read, and what makes one unusable.

An example is ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``
with -1 for pixels that do not count, 0 for background and 1, 2, .. for instances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import InputError, InputTypeError, check_shape
from sphemb._labels import VOID

_HIGHEST_INSTANCE = np.iinfo(np.int32).max


class BuilderExamples:
    """The examples of one split of a prepared TFDS builder, by random access.

    Args:
        builder: a prepared builder with the features image, instances and name, in a
            format that is readable without TensorFlow, such as array_record.
        split: ``"train"``, or a part such as ``"train[:10%]"``.

    Raises:
        InputError: the split does not exist, or needs TensorFlow to be read.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        """Opens the split; see the class."""
        try:
            self._records = builder.as_data_source(split)
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
        record: dict[str, Any] = self._records[index]
        return {
            "image": record["image"],
            "instances": record["instances"][..., 0].astype(np.int32),
            "name": record["name"].decode(),
        }


def network_ready(example: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Checks an example and returns what a network takes.

    Args:
        example: image, uint8 or floating point in [0, 1], integer instances, a name.

    Returns:
        float32 [H, W, 3] in [0, 1] and int32 [H, W].

    Raises:
        InputError: a shape, dtype or value is impossible; the name is in the message.
    """
    image, instances = np.asarray(example["image"]), np.asarray(example["instances"])
    who = f"example {example.get('name', '')!r}"
    sizes = check_shape(f"image of {who}", image, "H W 3")
    sizes = {letter: sizes[letter] for letter in "HW"}
    check_shape(f"instances of {who}", instances, "H W", dims=sizes, beside="its image")
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
    if not np.issubdtype(instances.dtype, np.integer):
        raise InputTypeError(
            f"instances of {who} must be integers, got {instances.dtype}"
        )
    if instances.size:
        low, high = int(instances.min()), int(instances.max())
        if low < VOID or high > _HIGHEST_INSTANCE:
            raise InputError(
                f"instances of {who} must be -1 (void), 0 (background) or 1, 2, .., "
                f"got values from {low} to {high}"
            )
    return image, instances.astype(np.int32)
