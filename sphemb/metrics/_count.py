"""The number of instances found against the true number, per image."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_integer, check_shape
from sphemb.instances import overlap_table
from sphemb.metrics._overlaps import refuse_lost
from sphemb.metrics._sums import Sums, flatten_images, ratio, valid_images


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InstanceCount(Sums):
    """How many instances are found, against how many there are.

    Attributes:
        sum_absolute_error: the sum over images of abs(found - true).
        num_exact: the number of images with found = true.
        sum_found: the number of instances found.
        sum_true: the number of instances there are.
        num_images: the number of images.
        lost_true: the number of pixels of instances numbered above ``max_true``.

    >>> truth = jnp.array([[0, 1, 2, -1], [0, 0, 0, 1]])
    >>> InstanceCount.from_batch(
    ...     jnp.array([2, 3]), truth, max_true=4
    ... ).compute()["count_absolute_error"]
    1.0
    """

    sum_absolute_error: jax.Array
    num_exact: jax.Array
    sum_found: jax.Array
    sum_true: jax.Array
    num_images: jax.Array
    lost_true: jax.Array

    @classmethod
    def from_batch(
        cls,
        found: jax.Array,
        truth: jax.Array,
        *,
        max_true: int,
        valid: jax.Array | None = None,
    ) -> Self:
        """Compares the numbers found in a batch with its label maps.

        Args:
            found: int [B], the number of instances found in each image: the number of
                groups without the background's. Below 0 (no group at all, less the
                background) is 0.
            truth: int [B, H, W] or [B, N]; -1 void, 0 background, 1..max_true objects.
                Numbers need not be gapless; those with a pixel in the image count.
            max_true: the largest object number; static.
            valid: bool [B], False for images that only fill up the batch.

        Returns:
            The metric of this batch.

        Raises:
            InputError: shapes that do not go together, numbers that are no integers.
        """
        check_count("max_true", max_true, at_least=1)
        check_integer("found", found)
        truth = flatten_images("truth", truth)
        check_shape("found", found, "B", dims={"B": truth.shape[0]}, beside="truth")
        valid = valid_images(valid, truth.shape[0], "truth")

        table = overlap_table(
            jnp.zeros_like(truth),
            truth,
            num_predicted=1,
            num_true=max_true + 1,
            mask=jnp.broadcast_to(valid[:, None], truth.shape),
        )[:, 0]
        true = jnp.sum(table[:, 1:-1] > 0, axis=1, dtype=jnp.int32)
        found = jnp.where(valid, jnp.maximum(found, 0), 0).astype(jnp.int32)
        return cls(
            sum_absolute_error=jnp.sum(jnp.abs(found - true)),
            num_exact=jnp.sum((found == true) & valid, dtype=jnp.int32),
            sum_found=jnp.sum(found),
            sum_true=jnp.sum(true),
            num_images=jnp.sum(valid, dtype=jnp.int32),
            lost_true=jnp.sum(table[:, -1]),
        )

    def compute(self) -> dict[str, float]:
        """The scores, each a mean over images; NaN where there is none.

        Returns:
            ``count_absolute_error``: the mean of abs(found - true);
            ``count_signed_error``: the mean of found - true, below 0 where instances
            are merged or missed;
            ``count_exact``: the share of images with the right number;
            ``count_found`` and ``count_true``: the mean numbers.

        Raises:
            InputError: a label above ``max_true`` was met.
        """
        refuse_lost(max_true=self.lost_true)
        images = int(self.num_images)
        signed = int(self.sum_found) - int(self.sum_true)
        return {
            "count_absolute_error": ratio(self.sum_absolute_error, images),
            "count_signed_error": ratio(signed, images),
            "count_exact": ratio(self.num_exact, images),
            "count_found": ratio(self.sum_found, images),
            "count_true": ratio(self.sum_true, images),
        }
