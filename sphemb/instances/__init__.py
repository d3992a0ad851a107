"""From groups of pixels to object instances.

* :func:`overlap_table`: how many pixels every pair of labels shares.
* :func:`labels_to_masks`, :func:`masks_to_labels`: label maps and stacks of masks.
* :func:`relabel`: group ids to instance ids, with 0 for the background.
* :func:`connected_parts`, :func:`drop_small`: clean-up of label images, on the host.

A label map holds -1 (:data:`sphemb.VOID`) where nothing counts, 0 for the background
and 1, 2, ... for the instances.
"""

from sphemb.instances._masks import labels_to_masks, masks_to_labels, relabel
from sphemb.instances._overlap import overlap_table
from sphemb.instances._parts import connected_parts, drop_small

__all__ = [
    "connected_parts",
    "drop_small",
    "labels_to_masks",
    "masks_to_labels",
    "overlap_table",
    "relabel",
]
