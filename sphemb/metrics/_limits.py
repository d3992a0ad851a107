"""How many images reached a limit of what can be found: B images."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from sphemb._checks import check_boolean, check_shape
from sphemb.metrics._sums import Sums, valid_images


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReachedLimit(Sums):
    """The images in which a limit has left something out.

    Attributes:
        num_reached: int, their number.
        name: of the limit; static.

    >>> reached = jnp.array([True, False, True])
    >>> ReachedLimit.from_batch(reached, name="max_groups").compute()
    {'num_reached/max_groups': 2.0}
    """

    num_reached: jax.Array
    name: str = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_batch(
        cls, reached: jax.Array, *, name: str, valid: jax.Array | None = None
    ) -> Self:
        """Counts the images of a batch.

        Args:
            reached: bool [B].
            name: of the limit; static.
            valid: bool [B], False for images that only fill up the batch.

        Returns:
            The metric of this batch.

        Raises:
            InputError: shapes that differ, values that are not bool.
        """
        check_boolean("reached", reached)
        images = check_shape("reached", reached, "B")["B"]
        counts = jnp.asarray(reached) & valid_images(valid, images, "reached")
        return cls(num_reached=jnp.sum(counts, dtype=jnp.int32), name=name)

    def compute(self) -> dict[str, float]:
        """The number of images, ``num_reached/{name}``."""
        return {f"num_reached/{self.name}": float(self.num_reached)}
