"""PASCAL VOC 2012 with the masks of SBD as a TFDS data set; also any tree in its form.

TFDS's own ``voc`` has boxes only. Here every image has instances and classes.

H W image size.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import InputError
from sphemb.data._builders import (
    LabelledBuilder,
    photograph_features,
    prepare_quietly,
)
from sphemb.data._handwriting import tfds_data_dir
from sphemb.data._sbd import SBD, read_sbd
from sphemb.data._voc_files import (
    BACKGROUND,
    VOC,
    VOC_CLASSES,
    digest_tree,
    read_list,
    read_mask,
    read_splits,
)
from sphemb.data.files import (
    Files,
    FolderFiles,
    PaletteColors,
    check_edges,
    check_encoded,
    check_label_size,
    encode_labels,
    number_in_order,
    open_publication,
)

COUNTS = {
    True: {"train": 10582, "validation": 1449, "test": 1103},
    False: {"train": 1464, "validation": 1449},
}
"""With SBD or without: what the published data must come to."""


@dataclasses.dataclass(eq=False, kw_only=True)
class VocConfig(tfds.core.BuilderConfig):
    """Everything that a prepared VOC depends on; see `voc_config`."""

    name: str
    description: str | None = None
    sbd: bool
    voc_dir: str | None
    manual_dir: str | None
    data_dir: str


def voc_config(
    *,
    sbd: bool = True,
    voc_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> VocConfig:
    """Makes the config of VOC 2012, or of another tree in VOC's form.

    A tree's config is named after the content of its lists and masks and the sizes of
    its images, wherever it lies, so that a tree that was changed is prepared anew.

    Args:
        sbd: take the masks of the Semantic Boundaries Dataset where VOC has none, which
            makes 10,582 training images of 1,464. In voc_dir: if it has them, as
            ``inst/*.mat``.
        voc_dir: a tree with ``JPEGImages``, ``SegmentationClass``,
            ``SegmentationObject`` and ``ImageSets/Segmentation/{train,val}.txt`` in
            place of VOC 2012. Its images are not counted.
        manual_dir: a folder with the archives of VOC and SBD, or with what they unpack
            to; by default ``downloads/manual`` in data_dir, into which they are
            downloaded.
        data_dir: where TFDS keeps prepared data sets; by default ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.

    Returns:
        A config for `VocMasks`.

    Raises:
        InputError: voc_dir is no tree in VOC's form.

    >>> voc_config().name, voc_config(sbd=False).name
    ('2012-sbd', '2012')
    """
    tree = os.path.expanduser(os.fspath(voc_dir)) if voc_dir else None
    if tree:
        if manual_dir:
            raise InputError(
                f"voc_dir {tree} stands in place of what manual_dir {manual_dir} "
                "holds: leave one of them out"
            )
        files = FolderFiles(tree)
        sbd = bool(sbd) and bool(files.names("inst", suffix=".mat"))
        splits = read_splits(files, sbd=files if sbd else None)
        name = f"tree.{digest_tree(tree, splits)}"
    else:
        name = "2012"
    return VocConfig(
        name=f"{name}-sbd" if sbd else name,
        description="PASCAL VOC 2012 or a tree in its form, with masks of instances.",
        sbd=bool(sbd),
        voc_dir=tree,
        manual_dir=os.fspath(manual_dir) if manual_dir else None,
        data_dir=tfds_data_dir(data_dir),
    )


class VocMasks(LabelledBuilder, skip_registration=True):
    """VOC's images with the masks of their objects, as a TFDS builder.

    Features: image, the JPEG file as it is; instances and semantic, PNG uint8 [H, W, 1]
    (0 background, 255 void); name, text. Where VOC and SBD both have masks, VOC's are
    taken, because SBD's know no void.

    Splits: train, VOC's and all of SBD's images that are not in validation;
    validation, VOC's val; test, those of validation that SBD has too.

    Args:
        config: made by `voc_config`.
        data_dir: where prepared data sets are kept; by default the config's.
        file_format: how the examples are kept.
        **kwargs: for TFDS.

    Raises:
        InputError: the config was not made by `voc_config`.

    References:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A
        Retrospective", IJCV 2015; Hariharan et al., ICCV 2011.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS's own form)
        "1.0.0": "First version.",
        "1.1.0": "The names of the classes.",
    }
    config_class = VocConfig
    config_function = "voc_config"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs with masks of the objects of twenty classes.",
            features=photograph_features(np.uint8),
            metadata=tfds.core.MetadataDict(class_names=[BACKGROUND, *VOC_CLASSES]),
            disable_shuffling=True,  # kept in the order of their names
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # what is missing is downloaded with a checksum of our own
        settings = self._settings
        self._palettes = PaletteColors()
        if settings.voc_dir:
            voc = sbd = FolderFiles(settings.voc_dir)
        else:
            find = functools.partial(
                open_publication,
                manual_dir=settings.manual_dir,
                data_dir=settings.data_dir,
            )
            voc = find(VOC)
            sbd = find(SBD) if settings.sbd else voc
        splits = read_splits(voc, sbd=sbd if settings.sbd else None)
        if not settings.voc_dir:
            found = {split: len(names) for split, names in splits.items()}
            if found != COUNTS[settings.sbd]:
                raise InputError(
                    f"VOC 2012 must come to {COUNTS[settings.sbd]} images, got {found}:"
                    " name a tree that is a part of it in voc_dir"
                )
        theirs = {*read_list(voc, "train"), *read_list(voc, "val")}
        return {
            split: self._generate_examples(names, theirs, voc, sbd)
            for split, names in splits.items()
        }

    def _generate_examples(
        self, names: Iterable[str], theirs: set[str], voc: Files, sbd: Files
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            path = f"JPEGImages/{name}.jpg"
            image = voc.read(path)
            header = check_encoded(image, who=f"image {voc.where(path)}")
            if name in theirs:
                masks = f"SegmentationObject/{name}.png"
                source = voc
                instances = read_mask(voc, masks)
                classes = f"SegmentationClass/{name}.png"
                semantic = read_mask(voc, classes, self._palettes)
                if self._settings.voc_dir:  # what is published has hard edges
                    for path, labels in ((masks, instances), (classes, semantic)):
                        known = np.maximum(labels, 0)
                        check_edges(
                            f"mask {voc.where(path)}",
                            number_in_order(known)[0],
                            known[..., None],
                        )
            else:
                masks = classes = f"inst/{name}.mat"
                source = sbd
                instances, semantic = read_sbd(sbd.read(masks), who=sbd.where(masks))
            who, who_classes = (f"mask {source.where(p)}" for p in (masks, classes))
            check_label_size(instances.shape, header, who=who)
            check_label_size(semantic.shape, header, who=who_classes)
            yield (
                i,
                {
                    "image": image,
                    "instances": encode_labels(instances, np.uint8, who=who),
                    "semantic": encode_labels(semantic, np.uint8, who=who_classes),
                    "name": name,
                },
            )


# Whoever asks for the signature gets that of `voc_config`.
@functools.wraps(voc_config, assigned=())
def prepare_voc(**settings: Any) -> VocMasks:
    """Opens VOC 2012, or a tree in its form, after preparing it if it is not there yet.

    A preparation that breaks off leaves nothing behind, and of several processes that
    prepare the same set at once one wins. The progress bar is shown on a terminal only.

    Args:
        **settings: as for `voc_config`, with the same defaults.

    Returns:
        The prepared builder, to be read through `BuilderDataset`.

    Raises:
        InputError: a setting does not fit, the data are missing, damaged or not those
            that were published, or data_dir cannot be written to.
    """
    return prepare_quietly(VocMasks, voc_config(**settings), what="VOC")
