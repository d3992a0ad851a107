"""A network with its parameters, as what tasks are handed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from sphemb.tasks import Maps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundNetwork:
    """A network with its parameters: called with images, and a pytree to be kept.

    Attributes:
        params: the network's parameters.
        batch_stats: the moments of its batch normalisation.
        network: of parameters, moments, images and masks; static.
    """

    params: Any
    batch_stats: Any
    network: Callable[..., Maps] = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array, mask: jax.Array | None = None) -> Maps:
        """The maps of images [B, H, W, 3], with a mask [B, H, W] if they are padded."""
        return self.network(self.params, self.batch_stats, image, mask)
