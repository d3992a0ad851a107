"""From groups of pixels to object instances.

* :func:`overlap_table`: how many pixels every pair of labels shares.
* :func:`relabel`: group ids to instance ids, with 0 for the background.

A label map holds -1 (:data:`sphemb.VOID`) where nothing counts, 0 for the background
and 1, 2, ... for the instances.
"""

from sphemb.instances._group_ids import relabel
from sphemb.instances._overlap import overlap_table

__all__ = [
    "overlap_table",
    "relabel",
]
