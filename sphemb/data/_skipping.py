"""Going on without the examples that cannot be used."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import Any

from sphemb._checks import InputError
from sphemb.data._examples import network_ready
from sphemb.data._loader import ExampleSource


class SkippingSource:
    """A source in which the next usable example stands in for one that is not.

    The number of examples and the place of all others stay what they were, so that the
    order of the data does not depend on what is wrong with some of it.

    Args:
        source: any examples.

    Attributes:
        source: the examples.
        skipped: index -> what was wrong, of those met so far; each is told once, on
            stderr.

    >>> import numpy as np
    >>> class Faulty:
    ...     def __len__(self):
    ...         return 2
    ...     def __getitem__(self, index):
    ...         if index == 0:
    ...             raise InputError("image 0.png cannot be read")
    ...         return {"image": np.zeros((8, 8, 3), np.uint8),
    ...                 "instances": np.zeros((8, 8), np.int32), "name": "1.png"}
    >>> source = SkippingSource(Faulty())
    >>> source[0]["name"], source.skipped
    ('1.png', {0: 'image 0.png cannot be read'})
    """

    def __init__(self, source: ExampleSource) -> None:
        """Wraps a source; see the class."""
        self.source = source
        self._lock = threading.Lock()
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        """Returns the number of examples, those that cannot be used included."""
        return len(self.source)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the size of an example, or of what stands in for it."""
        return self.source.size(self._usable(index)[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns an example, or the next one that can be used.

        Raises:
            InputError: no example can be used.
        """
        return self._usable(index)[1]

    def usable(self, count: int) -> list[int]:
        """Returns the indices of the first so many examples that can be used."""
        readable = (i for i in range(len(self)) if self._read(i) is not None)
        found = list(itertools.islice(readable, count))
        if not found:
            raise self._nothing()
        return found

    def _usable(self, index: int) -> tuple[int, dict[str, Any]]:
        for offset in range(len(self)):
            place = (index + offset) % len(self)
            example = self._read(place)
            if example is not None:
                return place, example
        raise self._nothing()

    def _nothing(self) -> InputError:
        return InputError(f"none of the {len(self)} examples can be used")

    def _read(self, index: int) -> dict[str, Any] | None:
        with self._lock:
            if index in self.skipped:
                return None
        try:
            example = self.source[index]
            network_ready(example)
        except InputError as error:
            line = " ".join(str(error).split())
            with self._lock:
                if index not in self.skipped:
                    self.skipped[index] = line
                    print(f"skipped: {line}", file=sys.stderr, flush=True)
            return None
        return example
