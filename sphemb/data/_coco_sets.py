"""COCO, panoptic COCO and COCO-Stuff as TFDS data sets, and their coarse classes."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import VOID, InputError, check_choice, check_count, check_integer
from sphemb._coco import paint_annotations
from sphemb.data import files
from sphemb.data._prepared import Generated, LabeledBuilder, preparer
from sphemb.data._voc import BACKGROUND, VOC_CLASSES
from sphemb.data.files import Classes, FolderFiles, PaletteColors, PathLike

VOC_NAMES = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}
"""COCO's name -> VOC's name, of the classes that have two names."""

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
"""COCO-Stuff's 27 coarse classes by COCO's names; ``semantic`` is 1 for the first.

Papers on unsupervised segmentation score by these (Ji et al., ICCV 2019; Cho et al.,
CVPR 2021).
"""

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence"),
    *("guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light"),
    *("traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car"),
    *("truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
"""Cityscapes' 27 classes that are not void, in the order of their ids, 7 to 33."""

CITYSCAPES_THINGS = CITYSCAPES_CLASSES[CITYSCAPES_CLASSES.index("person") :]
"""The classes of Cityscapes that have instances."""

# Of COCO's things, ids from 1 on: each class and its number of ids.
_THINGS = (
    *(("person", 1), ("vehicle", 8), ("outdoor", 6), ("animal", 10)),
    *(("accessory", 8), ("sports", 10), ("kitchen", 8), ("food", 10)),
    *(("furniture", 10), ("electronic", 6), ("appliance", 6), ("indoor", 8)),
)
# Of COCO-Stuff's ids from 92 on, indices in COARSE_CLASSES.
_STUFF_INDICES = (
    *(17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21),
    *(15, 25, 13, 13, 13, 13, 13, 22, 26, 14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17),
    *(16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21, 24, 20),
    *(17, 14, 21, 26, 15, 23, 20, 21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18),
    *(18, 18, 18, 18, 18, 18, 26, 26, 19, 19, 24),
)
# Panoptic COCO merges some of the stuff, under ids of its own from 184 on. Its "rug"
# contains carpets (a floor in COCO-Stuff) and mats, and is textile as a rug is.
_FIRST_MERGED = 184
_MERGED = (
    *("plant", "structural", "ceiling", "sky"),  # tree, fence, ceiling, sky
    *("furniture-stuff", "furniture-stuff", "floor"),  # cabinet, table, floor
    *("ground", "solid", "plant", "ground"),  # pavement, mountain, grass, dirt
    *("raw-material", "food-stuff", "building"),  # paper, food, building
    *("solid", "wall", "textile"),  # rock, wall, rug
)
_VOID_CODE = 255
_FIRST_CITYSCAPES, _LAST_CITYSCAPES = 7, 33

_NAMES = (  # of the classes of the ids from 1 to 182
    *(name for name, number in _THINGS for _ in range(number)),
    *(COARSE_CLASSES[index] for index in _STUFF_INDICES),
)
_COARSE = {
    key: COARSE_CLASSES.index(name) + 1
    for first, names in ((1, _NAMES), (_FIRST_MERGED, _MERGED))
    for key, name in enumerate(names, first)
}


def coarse_class(category_id: int) -> int:
    """Returns the coarse class, 1 to 27, of a category of COCO or COCO-Stuff.

    >>> COARSE_CLASSES[coarse_class(1) - 1], COARSE_CLASSES[coarse_class(184) - 1]
    ('person', 'plant')
    """
    if category_id not in _COARSE:
        text = "category_id must be one of COCO's or COCO-Stuff's"
        raise InputError(f"{text}, got {category_id}")
    return _COARSE[category_id]


def coarse_labels(codes: np.ndarray, *, of: str) -> np.ndarray:
    """Converts published label maps to int32 coarse classes: -1 void, 1 to 27.

    Those ``of`` ``"coco_stuff"`` are PNGs of ``stuffthingmaps``, 0 to 181 (the
    category's id less 1), 255 void, see `COARSE_CLASSES`; those of ``"cityscapes"`` are
    ``*_labelIds.png``, 7 to 33, all others void, see `CITYSCAPES_CLASSES`.

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
    fine = len(_NAMES)
    void = codes == _VOID_CODE
    unknown = codes[~void & ((codes < 0) | (codes >= fine))]
    if unknown.size:
        text = f"codes must be 0 to {fine - 1} or {_VOID_CODE}, as stuffthingmaps have"
        raise InputError(f"{text} them, got {unknown.flat[0]}")
    table = np.array([_COARSE[key + 1] for key in range(fine)], np.int32)
    return np.where(void, VOID, table[np.where(void, 0, codes)]).astype(np.int32)


_SPLITS = {"validation": "val", "train": "train"}
_STUFF_FOLDERS = ("stuffthingmaps_trainval2017", "stuffthingmaps", "annotations", "")


class CocoMasks(LabeledBuilder, skip_registration=True):
    """COCO, or a part of it, with masks of instances and classes.

    Features: image, the JPEG file unchanged; instances, PNG uint16 [H, W, 1] (0
    background, 65535 void; void everywhere for COCO-Stuff); semantic, PNG uint8
    [H, W, 1] (0 background, 255 void), the rank of the category's id in the file, the
    class of VOC, or the coarse class; name. Splits: train and validation. After
    replacing images, delete what was prepared.

    Args:
        coco_dir: the folder with the images in ``train2017`` and ``val2017`` and with
            the annotations ``instances_{train,val}2017.json`` or
            ``panoptic_{train,val}2017.json`` beside folders of their PNGs, directly
            inside or in ``annotations``; or with COCO-Stuff's PNGs in
            ``stuffthingmaps_trainval2017/{train,val}2017``.
        masks: ``"instances"``, outlines that may overlap; ``"panoptic"``, which give
            every pixel one segment, and stuff a class; or ``"stuff"``, the maps of
            COCO-Stuff, which have classes only.
        categories: None for all; ``"voc"`` for the twenty of VOC, numbered as there,
            all else being background; or ``"coarse27"`` for `COARSE_CLASSES`, 1 to 27,
            of which outlines have things only.
        year: in the names of files and folders.
        data_dir: the folder of prepared data sets, see `LabeledBuilder`.

    References:
        Lin et al., ECCV 2014; Kirillov et al., "Panoptic Segmentation", CVPR 2019.
    """

    VERSION = tfds.core.Version("1.1.0")
    class_names = ()  # they are in the annotations

    def __init__(
        self,
        *,
        coco_dir: PathLike | None,
        masks: str = "instances",
        categories: str | None = None,
        year: int = 2017,
        data_dir: PathLike | None = None,
    ) -> None:
        check_choice("masks", masks, ("instances", "panoptic", "stuff"))
        check_choice("categories", categories, (None, "voc", "coarse27"))
        check_count("year", year)
        if masks == "stuff" and categories == "voc":
            text = "categories must be None or 'coarse27' with masks='stuff'"
            raise InputError(f"{text}, got 'voc'")
        if not coco_dir:
            raise InputError("coco_dir must be the folder of COCO, got none")
        self._dir = pathlib.Path(coco_dir).expanduser()
        self._masks, self._categories, self._year = masks, categories, int(year)
        digest = hashlib.sha256()
        for short in _SPLITS.values():
            tail = f"{short}{year}"
            if masks == "stuff":
                # Names and sizes: to read all 123,287 maps would take too long.
                for path in _find_stuff_maps(self._dir, tail):
                    digest.update(f"{path.name} {path.stat().st_size}\n".encode())
                continue
            path = files.find_annotation_file(self._dir, f"{masks}_{tail}.json")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        settings = {"coco_dir": str(coco_dir), "masks": masks, "year": int(year)}
        super().__init__(
            name=f"{masks}-{categories or 'all'}-{digest.hexdigest()[:8]}",
            data_dir=data_dir,
            settings={**settings, "categories": categories},
            maps={"instances": np.uint16, "semantic": np.uint8},
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        self._palettes = PaletteColors()
        stuff = self._masks == "stuff"
        generate = self._generate_stuff if stuff else self._generate_examples
        # The smaller split first, so that a faulty file is found sooner.
        return {split: generate(short) for split, short in _SPLITS.items()}

    def _generate_examples(self, split: str) -> Generated:
        panoptic, tail = self._masks == "panoptic", f"{split}{self._year}"
        path = files.find_annotation_file(self._dir, f"{self._masks}_{tail}.json")
        jpegs, pngs = FolderFiles(self._dir / tail), FolderFiles(path.with_suffix(""))
        content = files.load_annotations(path)
        try:
            classes = choose_classes(content["categories"], self._categories, path)
            self._check_classes(classes.names, path)
            wanted = files.by_image(content, panoptic=panoptic)
            for i, (image, found) in enumerate(wanted):
                name = image["file_name"]
                jpeg = jpegs.read(name)
                header = files.check_encoded(jpeg, who=f"image {jpegs.where(name)}")
                if panoptic:
                    png = found[0]["file_name"]
                    who = f"mask {pngs.where(png)}"
                    colors = files.decode_colors(pngs.read(png), who=who)
                    segments = found[0]["segments_info"]
                    maps = files.read_panoptic(colors, segments, classes, who=who)
                else:
                    who = f"annotations of {name} in {path}"
                    drawn_on = (image["height"], image["width"])
                    # Before an array of the size in the file is allocated.
                    files.check_label_size(drawn_on, header, who=who)
                    of = {"where": who, "classes": classes.numbers}
                    painted = paint_annotations(found, drawn_on, **of)
                    maps = painted.instances, painted.classes
                files.check_label_size(maps[0].shape, header, who=who)
                stem = pathlib.PurePosixPath(name).with_suffix("").as_posix()
                yield i, _encoded(jpeg, *maps, name=stem, who=who)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            lacks = f"lacks {' '.join(str(error).split())}, or has it in another form"
            text = f"{path} must be an annotation file of COCO, but {lacks}"
            raise InputError(text) from error

    def _check_classes(self, names: Sequence[str], path: pathlib.Path) -> None:
        """Keeps the classes of the first split; the other must have the same."""
        known = self.info.metadata.setdefault("class_names", list(names))
        if known != list(names):
            differ = sorted(set(known) ^ set(names)) or list(names)
            text = "must list the categories that the other split lists, in the order"
            text += " of their ids, or one number would stand for two of them"
            raise InputError(f"{path} {text}: they differ in {', '.join(differ[:5])}")

    def _generate_stuff(self, split: str) -> Generated:
        coarse, tail = self._categories is not None, f"{split}{self._year}"
        if coarse:
            self.info.metadata["class_names"] = [BACKGROUND, *COARSE_CLASSES]
        jpegs = FolderFiles(self._dir / tail)
        for i, path in enumerate(_find_stuff_maps(self._dir, tail)):
            name, who = f"{path.stem}.jpg", f"mask {path}"
            jpeg = jpegs.read(name)
            header = files.check_encoded(jpeg, who=f"image {jpegs.where(name)}")
            semantic = self._read_stuff(path.read_bytes(), coarse=coarse, who=who)
            files.check_label_size(semantic.shape, header, who=who)
            # Void: pixels of one class may belong to several instances.
            instances = np.full_like(semantic, VOID)
            yield i, _encoded(jpeg, instances, semantic, name=path.stem, who=who)

    def _read_stuff(self, data: bytes, *, coarse: bool, who: str) -> np.ndarray:
        """Decodes a PNG: int32 [H, W], -1 void, coarse classes or ids from 1 to 182."""
        codes = files.decode_indices(data, who=who, palettes=self._palettes)
        try:
            found = coarse_labels(codes, of="coco_stuff")
        except InputError as error:
            raise InputError(f"{who}: {error}") from error
        fine = np.where(codes == _VOID_CODE, VOID, codes.astype(np.int32) + 1)
        return found if coarse else fine


prepare_coco = preparer(CocoMasks, what="COCO")


def _encoded(
    jpeg: bytes, instances: np.ndarray, semantic: np.ndarray, *, name: str, who: str
) -> dict[str, Any]:
    return {
        "image": jpeg,
        "instances": files.encode_labels(instances, np.uint16, who=who),
        "semantic": files.encode_labels(semantic, np.uint8, who=who),
        "name": name,
    }


def choose_classes(
    listed: list[dict[str, Any]], categories: str | None, path: pathlib.Path
) -> Classes:
    """Numbers all categories by their id, or as VOC or COCO-Stuff's coarse 27 do."""
    things = frozenset(c["id"] for c in listed if c.get("isthing", 1))
    if categories is None:
        names = dict(sorted(files.category_names(listed, path).items()))
        ranks = {number: i for i, number in enumerate(names, start=1)}
        return Classes(ranks, things, (BACKGROUND, *names.values()))
    if categories == "coarse27":
        for c in listed:  # another file may number other things by the same ids
            wanted = COARSE_CLASSES[coarse_class(c["id"]) - 1]
            found = c.get("supercategory", wanted)
            if found != wanted:
                text = f"{path} must number categories as COCO does, where {c['id']} is"
                raise InputError(f"{text} of {wanted}, got {found}")
        numbers = {c["id"]: coarse_class(c["id"]) for c in listed}
        return Classes(numbers, things, (BACKGROUND, *COARSE_CLASSES))
    ours = {name: i for i, name in enumerate(VOC_CLASSES, start=1)}
    names = {c["id"]: VOC_NAMES.get(c["name"], c["name"]) for c in listed}
    numbers = {number: ours.get(name, 0) for number, name in names.items()}
    if not any(numbers.values()):
        raise InputError(f"{path} must have categories of VOC by COCO's names")
    return Classes(numbers, things, (BACKGROUND, *VOC_CLASSES))


def _find_stuff_maps(folder: pathlib.Path, tail: str) -> list[pathlib.Path]:
    for name in _STUFF_FOLDERS:
        found = sorted((folder / name / tail).glob("*.png"))
        if found:
            return found
    wanted = f"{_STUFF_FOLDERS[0]}/{tail}/*.png"
    raise InputError(f"coco_dir must hold COCO-Stuff's {wanted}, but {folder} does not")
