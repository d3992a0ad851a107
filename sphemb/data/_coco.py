"""COCO with masks as a TFDS data set, from its instances or its panoptic annotations.

TFDS's own ``coco`` has boxes only, and is of no use without TensorFlow.

H W image size.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import InputError, check_choice, check_count
from sphemb._coco import paint_annotations
from sphemb.data._builders import (
    LabelledBuilder,
    photograph_features,
    prepare_quietly,
)
from sphemb.data._coarse_classes import COARSE_CLASSES
from sphemb.data._coco_classes import choose_classes
from sphemb.data._coco_stuff import find_stuff_maps, read_stuff, stuff_digest
from sphemb.data._handwriting import tfds_data_dir
from sphemb.data._voc_files import BACKGROUND
from sphemb.data.files import (
    FolderFiles,
    PaletteColors,
    by_image,
    check_encoded,
    check_label_size,
    decode_colors,
    encode_labels,
    find_annotation_file,
    load_annotations,
    read_panoptic,
)

_SPLITS = {"validation": "val", "train": "train"}


@dataclasses.dataclass(eq=False, kw_only=True)
class CocoConfig(tfds.core.BuilderConfig):
    """Everything that a prepared COCO depends on; see `coco_config`."""

    name: str
    description: str | None = None
    coco_dir: str
    masks: str
    categories: str | None
    year: int
    data_dir: str


def coco_config(
    *,
    coco_dir: str | os.PathLike[str] | None,
    masks: str = "instances",
    categories: str | None = None,
    year: int = 2017,
    data_dir: str | os.PathLike[str] | None = None,
) -> CocoConfig:
    """Makes the config of COCO, or of a part of it.

    The config's name has a digest of the annotation files, so that another part of COCO
    is another data set, wherever it lies. Images are not looked at: after replacing
    some of them, delete what was prepared.

    Args:
        coco_dir: the folder with the images in ``train2017`` and ``val2017`` and with
            the annotations ``instances_{train,val}2017.json`` or
            ``panoptic_{train,val}2017.json`` beside folders of their PNGs, directly
            inside or in ``annotations``; or with COCO-Stuff's PNGs in
            ``stuffthingmaps_trainval2017/{train,val}2017``.
        masks: ``"instances"``, outlines that may overlap; ``"panoptic"``, which give
            every pixel one segment, and stuff a class; or ``"stuff"``, the maps of
            COCO-Stuff, which have classes alone.
        categories: None for all; ``"voc"`` for the twenty of VOC, numbered as there.
            What belongs to no class of VOC is background then, as it is in VOC. Or
            ``"coarse27"`` for the 27 coarse classes of COCO-Stuff, numbered 1 to 27 as
            in `COARSE_CLASSES`; outlines have things alone, and the rest is 0.
        year: in the names of files and folders.
        data_dir: where TFDS keeps prepared data sets; by default ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.

    Returns:
        A config for `CocoMasks`.

    Raises:
        InputError: a setting does not fit, or coco_dir has no such annotations.
    """
    check_choice("masks", masks, ("instances", "panoptic", "stuff"))
    check_choice("categories", categories, (None, "voc", "coarse27"))
    check_count("year", year)
    if masks == "stuff" and categories == "voc":
        raise InputError(
            "categories must be None or 'coarse27' with masks='stuff', got 'voc'"
        )
    if not coco_dir:
        raise InputError("coco_dir must be the folder of COCO, got none")
    folder = pathlib.Path(coco_dir).expanduser()
    digest = hashlib.sha256()
    for short in _SPLITS.values():
        if masks == "stuff":
            digest.update(stuff_digest(find_stuff_maps(folder, f"{short}{year}")))
            continue
        path = find_annotation_file(folder, f"{masks}_{short}{year}.json")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return CocoConfig(
        name=f"{masks}-{categories or 'all'}-{digest.hexdigest()[:8]}",
        description="COCO, or a part of it, with masks of instances.",
        coco_dir=str(folder),
        masks=masks,
        categories=categories,
        year=int(year),
        data_dir=tfds_data_dir(data_dir),
    )


class CocoMasks(LabelledBuilder, skip_registration=True):
    """COCO's images with the masks of their objects, as a TFDS builder.

    Features: image, the JPEG file as it is; instances, PNG uint16 [H, W, 1] (0
    background, 65535 void; void everywhere of COCO-Stuff); semantic, PNG uint8
    [H, W, 1] (0 background, 255 void), the place of the category among all in the file
    by their id, the class of VOC, or the coarse class; name, text. Splits: train and
    validation.

    Args:
        config: made by `coco_config`.
        data_dir: where prepared data sets are kept; by default the config's.
        file_format: how the examples are kept.
        **kwargs: for TFDS.

    Raises:
        InputError: the config was not made by `coco_config`.

    References:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; Kirillov et
        al., "Panoptic Segmentation", CVPR 2019.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS's own form)
        "1.0.0": "First version.",
        "1.1.0": "The names of the classes.",
    }
    config_class = CocoConfig
    config_function = "coco_config"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs with masks of everyday objects.",
            features=photograph_features(np.uint16),
            metadata=tfds.core.MetadataDict(),  # the names are in the annotations
            disable_shuffling=True,  # kept in the order of the images' ids
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        self._palettes = PaletteColors()
        # The smaller split first: what is wrong with a file shows sooner.
        return {
            split: self._generate_examples(short) for split, short in _SPLITS.items()
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        settings = self._settings
        tail = f"{split}{settings.year}"
        folder = pathlib.Path(settings.coco_dir)
        if settings.masks == "stuff":
            yield from self._generate_stuff(folder, tail)
            return
        path = find_annotation_file(folder, f"{settings.masks}_{tail}.json")
        files = FolderFiles(folder / tail)
        pngs = FolderFiles(path.with_suffix(""))
        content = load_annotations(path)
        try:
            classes = choose_classes(content["categories"], settings.categories, path)
            self._check_classes(classes.names, path)
            wanted = by_image(content, panoptic=settings.masks == "panoptic")
            for i, (image, found) in enumerate(wanted):
                jpeg = files.read(image["file_name"])
                header = check_encoded(
                    jpeg, who=f"image {files.where(image['file_name'])}"
                )
                if settings.masks == "panoptic":
                    png = found[0]["file_name"]
                    who = f"mask {pngs.where(png)}"
                    colours = decode_colors(pngs.read(png), who=who)
                    maps = read_panoptic(
                        colours, found[0]["segments_info"], classes, who=who
                    )
                else:
                    who = f"annotations of {image['file_name']} in {path}"
                    drawn_on = (image["height"], image["width"])
                    # Before anything as large as the file says is set aside.
                    check_label_size(drawn_on, header, who=who)
                    painted = paint_annotations(
                        found, drawn_on, where=who, classes=classes.numbers
                    )
                    maps = painted.instances, painted.classes
                instances, semantic = maps
                check_label_size(instances.shape, header, who=who)
                yield (
                    i,
                    {
                        "image": jpeg,
                        "instances": encode_labels(instances, np.uint16, who=who),
                        "semantic": encode_labels(semantic, np.uint8, who=who),
                        "name": pathlib.PurePosixPath(image["file_name"])
                        .with_suffix("")
                        .as_posix(),
                    },
                )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"{path} must be an annotation file of COCO, but lacks "
                f"{' '.join(str(error).split())}, or has it in another form"
            ) from error

    def _check_classes(self, names: Sequence[str], path: pathlib.Path) -> None:
        """Keeps the classes of the first split; the other must have the same."""
        known = self.info.metadata.setdefault("class_names", list(names))
        if known != list(names):
            differ = sorted(set(known) ^ set(names)) or list(names)
            raise InputError(
                f"{path} must list the categories that the other split lists, in the "
                "order of their ids, or one number would stand for two of them: they "
                f"differ in {', '.join(differ[:5])}"
            )

    def _generate_stuff(
        self, folder: pathlib.Path, tail: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._settings.categories:
            self.info.metadata["class_names"] = [BACKGROUND, *COARSE_CLASSES]
        files = FolderFiles(folder / tail)
        for i, path in enumerate(find_stuff_maps(folder, tail)):
            name = f"{path.stem}.jpg"
            jpeg = files.read(name)
            header = check_encoded(jpeg, who=f"image {files.where(name)}")
            who = f"mask {path}"
            instances, semantic = read_stuff(
                path.read_bytes(),
                categories=self._settings.categories,
                who=who,
                palettes=self._palettes,
            )
            check_label_size(semantic.shape, header, who=who)
            yield (
                i,
                {
                    "image": jpeg,
                    "instances": encode_labels(instances, np.uint16, who=who),
                    "semantic": encode_labels(semantic, np.uint8, who=who),
                    "name": path.stem,
                },
            )


# Whoever asks for the signature gets that of `coco_config`.
@functools.wraps(coco_config, assigned=())
def prepare_coco(**settings: Any) -> CocoMasks:
    """Opens COCO, or a part of it, after preparing it if it is not there yet.

    A preparation that breaks off leaves nothing behind, and of several processes that
    prepare the same set at once one wins. The progress bar is shown on a terminal only.

    Args:
        **settings: as for `coco_config`, with the same defaults.

    Returns:
        The prepared builder, to be read through `BuilderDataset`.

    Raises:
        InputError: a setting does not fit, a file is missing or damaged, or data_dir
            cannot be written to.
    """
    return prepare_quietly(CocoMasks, coco_config(**settings), what="COCO")
