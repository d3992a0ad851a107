"""The pixels of images on a grid, and what mean shift does to them.

Shape letters: H rows, W columns, D dimensions, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb.grouping import gbms, gbms_trajectory
from sphemb.losses import margin_loss

_SIDE_COMPARED = 64  # pixels; that many squared are compared with each other


class PixelGrid(NamedTuple):
    """The pixels of an image, or of every so many rows and columns of a large one.

    Every pixel is compared with every other, which is for few of them.

    Attributes:
        image: float [H, W, 3].
        instances: int [H, W].
        embedding: [H, W, D] unit vectors.
    """

    image: np.ndarray
    instances: np.ndarray
    embedding: np.ndarray

    @classmethod
    def of_sample(cls, samples: Mapping[str, np.ndarray], index: int) -> Self:
        """One of the images of `Evaluation.samples`, at most 64 pixels a side."""
        step = -(-max(samples["instances"].shape[1:]) // _SIDE_COMPARED)
        return cls(
            *(
                samples[name][index][::step, ::step]
                for name in ("image", "instances", "embedding")
            )
        )

    def trajectory(self, *, concentration: float, num_steps: int) -> np.ndarray:
        """The pixels at every step of the mean shift, [T+1, H W, D]."""
        return np.asarray(
            gbms_trajectory(
                self._points, concentration=concentration, num_steps=num_steps
            )
        )

    def gradients(
        self, *, concentration: float, margin: float
    ) -> dict[str, np.ndarray]:
        """The margin loss's gradients in the embedding, [H, W, D].

        Args:
            concentration: of the kernel.
            margin: of the loss.

        Returns:
            What the loss has gone through, "no mean shift" or "one step of mean shift",
            -> gradient.
        """
        labels = jnp.asarray(self.instances.reshape(-1))

        def loss(points: jax.Array, num_steps: int) -> jax.Array:
            moved = gbms(points, concentration=concentration, num_steps=num_steps)
            return margin_loss(moved, labels, margin=margin, normalize="pairs")

        return {
            name: np.asarray(jax.grad(loss)(self._points, num_steps)).reshape(
                self.embedding.shape
            )
            for num_steps, name in enumerate(
                ("no mean shift", "one step of mean shift")
            )
        }

    @property
    def _points(self) -> jax.Array:
        return jnp.asarray(self.embedding.reshape(-1, self.embedding.shape[-1]))


def fullest_first(instances: np.ndarray) -> list[int]:
    """The images [B, H, W] by how many instances they have, the most first."""
    return np.argsort(
        [-len(np.unique(t[t >= 0])) for t in instances], kind="stable"
    ).tolist()
