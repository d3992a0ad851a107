"""BSDS500 as a TFDS data set, with the boundaries that each annotator drew.

A annotators, H W image size.
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
from sphemb.data._bsds_files import (
    BSDS,
    decode_boundaries,
    digest_tree,
    find_tree,
    image_path,
    read_names,
    truth_path,
)
from sphemb.data._builders import LabelledBuilder, prepare_quietly
from sphemb.data._handwriting import tfds_data_dir
from sphemb.data.files import (
    Files,
    FolderFiles,
    check_encoded,
    check_label_size,
    encode_labels,
    open_publication,
)

COUNTS = {"train": 200, "validation": 100, "test": 200}
"""What the published data must come to."""


@dataclasses.dataclass(eq=False, kw_only=True)
class BsdsConfig(tfds.core.BuilderConfig):
    """Everything that a prepared BSDS500 depends on; see `bsds_config`."""

    name: str
    description: str | None = None
    bsds_dir: str | None
    manual_dir: str | None
    data_dir: str


def bsds_config(
    *,
    bsds_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> BsdsConfig:
    """Makes the config of BSDS500, or of another tree in its form.

    A tree's config is named after its annotations and the sizes of its images, wherever
    it lies, so that a tree that was changed is prepared anew.

    Args:
        bsds_dir: a tree with ``images/{train,val,test}/NAME.jpg`` and
            ``groundTruth/{train,val,test}/NAME.mat`` in place of BSDS500, or a folder
            with such a tree in ``BSDS500/data`` or ``BSR/BSDS500/data``. Its images are
            not counted.
        manual_dir: a folder with the published archive or with what it unpacks to; by
            default ``downloads/manual`` in data_dir, into which it is downloaded.
        data_dir: where TFDS keeps prepared data sets; by default ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.

    Returns:
        A config for `BsdsBoundaries`.

    Raises:
        InputError: bsds_dir is no tree in the form of BSDS500.

    >>> bsds_config().name
    'bsds500'
    """
    if bsds_dir and manual_dir:
        raise InputError(
            f"bsds_dir {bsds_dir} stands in place of what manual_dir {manual_dir} "
            "holds: leave one of them out"
        )
    name, tree = "bsds500", None
    if bsds_dir:
        tree = str(find_tree(bsds_dir))
        name = f"tree.{digest_tree(tree, read_names(FolderFiles(tree)))}"
    return BsdsConfig(
        name=name,
        description="BSDS500 or a tree in its form, with all annotators' boundaries.",
        bsds_dir=tree,
        manual_dir=os.fspath(manual_dir) if manual_dir else None,
        data_dir=tfds_data_dir(data_dir),
    )


class BsdsBoundaries(LabelledBuilder, skip_registration=True):
    """The images of BSDS500 with what its annotators drew, as a TFDS builder.

    Features: image, the JPEG file as it is; boundaries, PNG uint8 [A * H, W, 1] with
    the maps of the annotators below each other (1 boundary, 0 none); name, text.

    Splits: train, validation (the folder ``val``), test.

    Args:
        config: made by `bsds_config`.
        data_dir: where prepared data sets are kept; by default the config's.
        file_format: how the examples are kept.
        **kwargs: for TFDS.

    Raises:
        InputError: the config was not made by `bsds_config`.

    References:
        Arbelaez, Maire, Fowlkes, Malik, "Contour Detection and Hierarchical Image
        Segmentation", PAMI 2011.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS's own form)
    config_class = BsdsConfig
    config_function = "bsds_config"

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(
            shape=(None, None, 3), dtype=np.uint8, encoding_format="jpeg"
        )
        maps = tfds.features.Image(
            shape=(None, None, 1), dtype=np.uint8, encoding_format="png"
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs with boundaries drawn by several people each.",
            features=tfds.features.FeaturesDict(
                {"image": image, "boundaries": maps, "name": tfds.features.Text()}
            ),
            disable_shuffling=True,  # kept in the order of their names
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # what is missing is downloaded with a checksum of our own
        settings = self._settings
        if settings.bsds_dir:
            files = FolderFiles(settings.bsds_dir)
        else:
            files = open_publication(
                BSDS, manual_dir=settings.manual_dir, data_dir=settings.data_dir
            )
        names = read_names(files)
        found = {split: len(inside) for split, inside in names.items()}
        if not settings.bsds_dir and found != COUNTS:
            raise InputError(
                f"BSDS500 must come to {COUNTS} images, got {found}: name a tree that "
                "is a part of it in bsds_dir"
            )
        return {
            split: self._generate_examples(split, inside, files)
            for split, inside in names.items()
        }

    def _generate_examples(
        self, split: str, names: Iterable[str], files: Files
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            path = image_path(split, name)
            image = files.read(path)
            header = check_encoded(image, who=f"image {files.where(path)}")
            path = truth_path(split, name)
            who = files.where(path)
            boundaries = decode_boundaries(files.read(path), who=who)
            check_label_size(boundaries.shape[1:], header, who=f"boundaries of {who}")
            below_each_other = boundaries.reshape(-1, boundaries.shape[-1])
            below_each_other = below_each_other.astype(np.int32)
            maps = encode_labels(below_each_other, np.uint8, who=who)
            yield i, {"image": image, "boundaries": maps, "name": name}


# Whoever asks for the signature gets that of `bsds_config`.
@functools.wraps(bsds_config, assigned=())
def prepare_bsds(**settings: Any) -> BsdsBoundaries:
    """Opens BSDS500, or a tree in its form, after preparing it if it is not there yet.

    A preparation that breaks off leaves nothing behind, and of several processes that
    prepare the same set at once one wins. The progress bar is shown on a terminal only.

    Args:
        **settings: as for `bsds_config`, with the same defaults.

    Returns:
        The prepared builder, to be read through `BoundaryDataset`.

    Raises:
        InputError: a setting does not fit, the data are missing, damaged or not those
            that were published, or data_dir cannot be written to.
    """
    return prepare_quietly(BsdsBoundaries, bsds_config(**settings), what="BSDS500")
