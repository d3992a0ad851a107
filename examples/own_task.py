"""A task outside the package, with its configuration in the same file.

    python train.py --config=examples/own_task.py
    python -m sphemb evaluate --workdir=runs/own_task
    python -m sphemb predict --model=runs/own_task --out=found photos

The task learns instances by their means on the sphere, after De Brabandere et al.,
"Semantic instance segmentation with a discriminative loss function", 2017.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sphemb.configs import digits
from sphemb.metrics import AverageRecall
from sphemb.sphere import l2_normalize
from sphemb.tasks import (
    Groups,
    LabelMap,
    Readoff,
    Stateless,
    embed_pixels,
    maps_of,
    placed_map,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Means(Readoff, Stateless):
    """Pulls the pixels of an instance to their mean, and pushes the means apart."""

    margin: float = 0.5
    max_objects: int = 16
    label_maps: ClassVar = (LabelMap("instances"),)  # what loss and metrics read
    prediction: ClassVar = Groups  # so files, pictures, tiles and reports are known

    def loss(self, apply, state, batch, key):
        """The mean over the images of pull and push."""
        vectors = embed_pixels(apply, batch)
        # Void pixels, whose label is negative, have a row of zeros.
        members = jax.nn.one_hot(batch["instances"], self.max_objects + 1)
        sums = jnp.einsum("bhwk,bhwd->bkd", members, vectors)
        means = l2_normalize(sums)
        own = jnp.einsum("bhwk,bkd,bhwd->bhw", members, means, vectors)
        valid = members.sum(axis=-1)
        pull = jnp.sum(valid * (1 - own)) / jnp.maximum(valid.sum(), 1)
        present = members.any(axis=(1, 2))
        cosine = jnp.einsum("bkd,bld->bkl", means, means)
        others = ~jnp.eye(means.shape[1], dtype=bool)
        pairs = present[:, :, None] & present[:, None] & others
        excess = jnp.where(pairs, jax.nn.relu(cosine - (1 - 2 * self.margin)), 0)
        push = excess.sum() / jnp.maximum(pairs.sum(), 1)
        return pull + push, {"loss/pull": pull, "loss/push": push}

    def predict(self, apply, state, batch):
        """The groups of the mean shift, by the settings of `Readoff`."""
        return self.read(placed_map(maps_of(apply, batch), "embedding", batch), batch)

    def metrics(self, predictions, batch):
        """Recall of the instances."""
        recall = AverageRecall.from_batch(
            predictions.labels,
            batch["instances"],
            max_predicted=self.num_labels,
            max_true=self.max_objects,
            valid=batch["valid"],
        )
        return {"average_recall": recall}


def get_config():
    """Drawn digits, and the network of ``configs/digits.py``."""
    config = digits.get_config()
    config.task = {"name": "examples.own_task:Means", "concentration": 36.0}
    return config
