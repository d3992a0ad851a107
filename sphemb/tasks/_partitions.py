"""Classes as a partition of the pixels, to be scored by pairs as instances are.

Shape letters: B images, H rows, W columns, C classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import VOID
from sphemb.instances import split_components
from sphemb.metrics import PairScores


def class_pairs(
    classes: jax.Array,
    true_classes: jax.Array,
    instances: jax.Array,
    *,
    num_classes: int,
    max_objects: int,
    valid: jax.Array | None = None,
) -> dict[str, PairScores]:
    """Pair scores of a semantic segmentation (Barnes & Dubrawski, Table 1).

    It is called on the host, where the number of connected parts is known.

    Args:
        classes: int [B, H, W], found, 0..C-1, `VOID` where masked.
        true_classes: int [B, H, W], `VOID` for void.
        instances: int [B, H, W], with the background 0, `VOID` for void.
        num_classes: C.
        max_objects: the largest number of an instance.
        valid: bool [B].

    Returns:
        ``class_pairs``, with the prefix ``classes/`` of the scores: regions of one
        class against those of the truth, the paper's semantic half of the table;
        ``region_pairs``, ``regions/``: the same regions against instances;
        ``part_pairs``, ``parts/``: their connected parts, the background whole, against
        instances.
    """
    # As many parts as there are; a power of two, not to compile for every number.
    every = int(np.prod(classes.shape[1:]))
    parts = split_components(classes, 0, max_components=every)
    most = 1 << int(jnp.max(parts, initial=1)).bit_length()
    # What is void in either counts in none, for the rows to be of the same pixels.
    void = (true_classes < 0) | (instances < 0)
    true_classes, instances = (
        jnp.where(void, VOID, labels) for labels in (true_classes, instances)
    )

    def scores(name: str, found: jax.Array, truth: jax.Array, groups: int, true: int):
        return PairScores.from_batch(
            found,
            truth,
            max_predicted=groups,
            max_true=true,
            valid=valid,
            prefix=f"{name}/",
        )

    return {
        "class_pairs": scores(
            "classes", classes, true_classes, num_classes, num_classes - 1
        ),
        "region_pairs": scores("regions", classes, instances, num_classes, max_objects),
        "part_pairs": scores("parts", parts, instances, most, max_objects),
    }
