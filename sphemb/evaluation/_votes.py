"""The class and the score of an instance of which several tiles see a part.

Shape letters: M instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from sphemb.data import Tile
from sphemb.evaluation._findings import Found
from sphemb.instances import Piece, Stitched


class Votes:
    """What each tile says of the instances that it sees.

    Attributes:
        classes: of the labels of every tile, from the background's on.
    """

    def __init__(self) -> None:
        """No tile has said anything yet."""
        self.classes: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []

    def pieces(self, every: Iterable[tuple[Tile, Found]]) -> Iterator[Piece]:
        """The label maps, while classes and scores are kept."""
        for tile, found in every:
            labels = found["labels"]
            number = int(labels.max(initial=0))
            none = np.zeros(number)
            core = labels[tile.core.within(tile.outer).slices]
            sizes = np.bincount(core.ravel(), minlength=number + 1)
            self._sizes.append(sizes[1:])
            self._scores.append(found.get("instance_scores", none)[:number])
            classes = found.get("instance_classes", none.astype(int))[:number]
            self.classes.append(np.concatenate([[0], classes]))
            yield Piece(labels, (tile.outer.top, tile.outer.left), tuple(tile.core))

    def of_instances(self, stitched: Stitched) -> Found:
        """The class of all parts, and the mean of their scores by pixels.

        Args:
            stitched: of the pieces.

        Returns:
            ``instance_classes`` and ``instance_scores`` [M].
        """
        number = len(stitched.sizes) - 1
        names = stitched.names[1:]
        sizes = np.concatenate(self._sizes)
        scores = np.concatenate(self._scores)
        classes = np.concatenate([c[1:] for c in self.classes])
        total = np.bincount(names, sizes, number + 1)[1:]
        scored = np.bincount(names, sizes * scores, number + 1)[1:]
        of_all = np.zeros(number + 1, int)
        of_all[names] = classes
        return {
            "instance_classes": of_all[1:],
            "instance_scores": scored / np.maximum(total, 1),
        }
