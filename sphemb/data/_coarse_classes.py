"""The 27 coarse classes of COCO-Stuff, the 27 of Cityscapes, and how to get to them.

Papers on unsupervised segmentation score by these (Ji et al., ICCV 2019; Cho et al.,
CVPR 2021). In ``semantic`` the classes are 1 to 27, as in all data sets here; 0 is what
has no class, and -1 void.
"""

from __future__ import annotations

import numpy as np

from sphemb._checks import InputError, check_choice, check_integer
from sphemb._labels import VOID

COARSE_THINGS = (
    *("electronic", "appliance", "food", "furniture", "indoor", "kitchen"),
    *("accessory", "animal", "outdoor", "person", "sports", "vehicle"),
)
COARSE_STUFF = (
    *("ceiling", "floor", "food-stuff", "furniture-stuff", "raw-material", "textile"),
    *("wall", "window", "building", "ground", "plant", "sky", "solid", "structural"),
    "water",
)
COARSE_CLASSES = (*COARSE_THINGS, *COARSE_STUFF)
"""COCO-Stuff's 27 by COCO's own names; ``semantic`` is 1 for the first."""

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence"),
    *("guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light"),
    *("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car"),
    *("truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
"""Cityscapes' 27 classes that are no void, in the order of their ids, 7 to 33."""

CITYSCAPES_THINGS = CITYSCAPES_CLASSES[CITYSCAPES_CLASSES.index("person") :]
"""Those that have instances."""

_THING_RANGES = {  # first and last id of COCO's things
    "person": (1, 1),
    "vehicle": (2, 9),
    "outdoor": (10, 15),
    "animal": (16, 25),
    "accessory": (26, 33),
    "sports": (34, 43),
    "kitchen": (44, 51),
    "food": (52, 61),
    "furniture": (62, 71),
    "electronic": (72, 77),
    "appliance": (78, 83),
    "indoor": (84, 91),
}
# Of COCO-Stuff's ids from 92 on, places in COARSE_CLASSES.
_STUFF_PLACES = (
    *(17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21),
    *(15, 25, 13, 13, 13, 13, 13, 22, 26, 14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17),
    *(16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21, 24, 20),
    *(17, 14, 21, 26, 15, 23, 20, 21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18),
    *(18, 18, 18, 18, 18, 18, 26, 26, 19, 19, 24),
)
_FIRST_STUFF = 92
# Panoptic COCO merges some of the stuff, under ids of its own from 183 on. Rugs have
# carpets (a floor in COCO-Stuff) and mats in them, and are textile as a rug is.
_MERGED = {
    184: "plant",  # tree
    185: "structural",  # fence
    186: "ceiling",
    187: "sky",
    188: "furniture-stuff",  # cabinet
    189: "furniture-stuff",  # table
    190: "floor",
    191: "ground",  # pavement
    192: "solid",  # mountain
    193: "plant",  # grass
    194: "ground",  # dirt
    195: "raw-material",  # paper
    196: "food-stuff",
    197: "building",
    198: "solid",  # rock
    199: "wall",
    200: "textile",  # rug
}
_VOID_CODE = 255
_FIRST_CITYSCAPES, _LAST_CITYSCAPES = 7, 33

_COCO = {
    **{
        key: COARSE_CLASSES.index(name) + 1
        for name, (first, last) in _THING_RANGES.items()
        for key in range(first, last + 1)
    },
    **{key + _FIRST_STUFF: place + 1 for key, place in enumerate(_STUFF_PLACES)},
    **{key: COARSE_CLASSES.index(name) + 1 for key, name in _MERGED.items()},
}


def coarse_class(category_id: int) -> int:
    """The coarse class of a category of COCO, COCO-Stuff or panoptic COCO.

    Args:
        category_id: as in the annotation files: things from 1, stuff from 92, what
            panoptic annotations merge from 184.

    Returns:
        1 to 27; `COARSE_CLASSES` has the names.

    Raises:
        InputError: there is no such category.

    >>> COARSE_CLASSES[coarse_class(1) - 1], COARSE_CLASSES[coarse_class(184) - 1]
    ('person', 'plant')
    """
    if category_id not in _COCO:
        raise InputError(
            f"category_id must be one of COCO's or COCO-Stuff's, got {category_id}"
        )
    return _COCO[category_id]


def coarse_labels(codes: np.ndarray, *, of: str) -> np.ndarray:
    """Turns the fine label maps that data sets publish into coarse ones.

    Args:
        codes: integers of any shape. Of ``"coco_stuff"``: the PNGs of
            ``stuffthingmaps``, 0 to 181 (the category's id less 1), 255 void. Of
            ``"cityscapes"``: ``*_labelIds.png``, of which 7 to 33 are classes and the
            others void.
        of: which of them.

    Returns:
        int32, -1 void, 1 to 27; `COARSE_CLASSES` or `CITYSCAPES_CLASSES` by name.

    Raises:
        InputError: codes that are no integers, or none of the data set's.

    >>> coarse_labels(np.array([0, 181, 255]), of="coco_stuff").tolist()
    [10, 25, -1]
    >>> coarse_labels(np.array([0, 7, 33]), of="cityscapes").tolist()
    [-1, 1, 27]
    """
    check_choice("of", of, ("coco_stuff", "cityscapes"))
    check_integer("codes", codes)
    codes = np.asarray(codes).astype(np.int32)
    if of == "cityscapes":
        known = (codes >= _FIRST_CITYSCAPES) & (codes <= _LAST_CITYSCAPES)
        return np.where(known, codes - _FIRST_CITYSCAPES + 1, VOID).astype(np.int32)
    fine = _FIRST_STUFF + len(_STUFF_PLACES) - 1
    table = np.full(_VOID_CODE + 1, VOID - 1, np.int32)
    table[:fine] = [_COCO[key + 1] for key in range(fine)]
    table[_VOID_CODE] = VOID
    inside = (codes >= 0) & (codes <= _VOID_CODE)
    found = np.where(inside, table[np.clip(codes, 0, _VOID_CODE)], VOID - 1)
    strange = codes[found < VOID]
    if strange.size:
        raise InputError(
            f"codes must be 0 to {fine - 1} or {_VOID_CODE}, as stuffthingmaps have "
            f"them, got {strange.flat[0]}"
        )
    return found
