"""TFDS builders: how data sets are prepared once and read by random access.

TensorFlow is not needed, neither to prepare a data set nor to read it. H W image size.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging as absl_logging

from sphemb._checks import InputError
from sphemb.data import files
from sphemb.data._pipeline import LABEL_MAPS
from sphemb.data.files import Header, PathLike


def tfds_data_dir(data_dir: PathLike | None = None) -> str:
    """Returns the folder of prepared data sets, by TFDS's conventions."""
    if not data_dir:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.expanduser(os.fspath(data_dir))


def refuse_both(name: str, tree: PathLike, manual_dir: PathLike | None) -> None:
    """Refuses a manual_dir beside a tree that is used in place of the published one."""
    if manual_dir:
        text = f"{name} {tree} is used in place of manual_dir {manual_dir}: leave one"
        raise InputError(f"{text} of them out")


# Not registered by name: `tfds.load` does not know its settings.
class LabeledBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The base of the TFDS builders of labeled images, each of which is a `Dataset`.

    The config's ``name`` differs where what is prepared differs; ``data_dir`` is the
    folder of prepared data sets, by default ``TFDS_DATA_DIR`` or
    ``~/tensorflow_datasets``; ``settings`` are all other arguments, ``maps`` key of a
    map -> dtype of its PNG, ``encoding`` and ``size`` (H, W) those of the image.
    """

    class_names: ClassVar[Sequence[str] | None] = None
    """None without classes; empty where they are known only from the files."""

    def __init__(
        self,
        *,
        name: str,
        data_dir: PathLike | None,
        settings: dict[str, Any],
        maps: dict[str, Any],
        encoding: str = "jpeg",
        size: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.root, self._settings = tfds_data_dir(data_dir), settings
        self._encoding, self._size, self._maps = encoding, size, maps
        config, form = tfds.core.BuilderConfig(name=name), "array_record"
        super().__init__(config=config, data_dir=self.root, file_format=form)
        self._original_state = {**settings, "data_dir": data_dir}  # for pickling

    def source(self, split: str) -> BuilderExamples:
        """Opens a split, see `BuilderDataset`."""
        return BuilderDataset(self).source(split)

    def _info(self) -> tfds.core.DatasetInfo:
        def image(channels: int, dtype: Any, form: str) -> tfds.features.Image:
            shape = (*self._size, channels)
            return tfds.features.Image(shape=shape, dtype=dtype, encoding_format=form)

        features = {
            "image": image(3, np.uint8, self._encoding),
            **{key: image(1, dtype, "png") for key, dtype in self._maps.items()},
            "name": tfds.features.Text(),
        }
        names = self.class_names
        known = {"class_names": list(names)} if names else {}
        metadata = None if names is None else tfds.core.MetadataDict(known)
        return tfds.core.DatasetInfo(
            builder=self,
            description=str(type(self).__doc__).partition("\n")[0],
            features=tfds.features.FeaturesDict(features),
            metadata=metadata,
            disable_shuffling=True,  # so that index i is the i-th generated example
        )


Builder = TypeVar("Builder", bound=LabeledBuilder)
Generated = Iterator[tuple[int, dict[str, Any]]]
"""Keys and features."""
_may_prepare = contextvars.ContextVar("may_prepare", default=True)


@contextlib.contextmanager
def only_prepared() -> Iterator[None]:
    """Within it, data sets are prepared in the default folder only."""
    token = _may_prepare.set(False)
    try:
        yield
    finally:
        _may_prepare.reset(token)


def preparer(builder_class: type[Builder], *, what: str) -> Callable[..., Builder]:
    """Makes the function that opens a data set, after preparing it if necessary."""

    @functools.wraps(builder_class, assigned=(), updated=())
    def prepare(*args: Any, **settings: Any) -> Builder:
        with _quietly():
            return _prepared(functools.partial(builder_class, *args, **settings), what)

    prepare.__name__ = prepare.__qualname__ = f"prepare_{what.lower()}"
    prepare.__module__ = builder_class.__module__
    prepare.__doc__ = f"""Returns a `{builder_class.__name__}`, prepared if necessary.

    Of several processes that prepare the same data set at once, one wins.
    """
    return prepare


def _prepared(make: Callable[[], Any], what: str) -> Any:
    builder = make()
    if builder.is_prepared():
        return builder
    if not _may_prepare.get() and builder.root != tfds_data_dir():
        raise InputError(
            f"{what} must have been prepared in {builder.root}, where a run that is "
            "only read writes nothing: train, or take data_dir out of its config.json"
        )
    try:
        builder.download_and_prepare()
    except (OSError, RuntimeError) as error:  # array_record raises the latter
        builder = make()
        if not builder.is_prepared():  # by another process, with the same folder
            reason = " ".join(str(error).split())
            text = f"{what} cannot be written to {builder.root}: {reason}"
            raise InputError(text) from error
    return builder


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


class BuilderExamples:
    """The examples of one split of a prepared TFDS builder, an `ExampleSource`.

    The builder has the features image, instances and name, in a format that is readable
    without TensorFlow, such as array_record; a split may be a part, ``"train[:10%]"``.
    The image is uint8 [H, W, 3]. Every image of one channel is a label map, int32
    [H, W], in which the largest number that its bits hold (255 or 65535) became -1,
    void. Other features are unchanged. ``class_names`` are those of the metadata.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        metadata: Any = builder.info.metadata or {}
        self.class_names: tuple[str, ...] = tuple(metadata.get("class_names", ()))
        self._images = [
            key
            for key, feature in dict(builder.info.features or {}).items()
            if isinstance(feature, tfds.features.Image)
        ]
        try:
            encoded = {key: tfds.decode.SkipDecoding() for key in self._images}
            self._records = builder.as_data_source(split, decoders=encoded)
        except (ValueError, KeyError, NotImplementedError) as error:
            have = ", ".join(builder.info.splits) or "none"
            text = f"split {split!r} of {builder.info.full_name} cannot be opened"
            reason = " ".join(str(error).split())
            raise InputError(f"{text} (its splits: {have}): {reason}") from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.encoded(index)
        example = dict(record)
        for key in self._images:
            decode = files.decode_image if key == "image" else files.decode_labels
            example[key] = decode(record[key], who=f"{key} of {record['name']!r}")
        header = self.header(record)
        for key in set(LABEL_MAPS) & set(self._images):
            example[key] = header.turn(example[key])
        return example

    def instances(self, index: int) -> np.ndarray:
        """Reads the instances of one example alone, as they are stored."""
        record = self.encoded(index)
        who = f"instances of {record['name']!r}"
        return files.decode_labels(record["instances"], who=who)

    def encoded(self, index: int) -> dict[str, Any]:
        """Reads one example and leaves its images as the stored bytes."""
        record: dict[str, Any] = self._records[index]
        return {**record, "name": record["name"].decode()}

    def size(self, index: int) -> tuple[int, int]:
        """Returns (H, W) without decoding pixels."""
        return self.header(self.encoded(index)).size

    def header(self, record: dict[str, Any]) -> Header:
        """Returns the header of the image of a result of :meth:`encoded`."""
        return files.read_header(record["image"], who=f"image of {record['name']!r}")


@dataclasses.dataclass(frozen=True)
class BuilderDataset:
    """Any prepared TFDS builder as a `Dataset`."""

    builder: tfds.core.DatasetBuilder

    def source(self, split: str) -> BuilderExamples:
        """Opens a split; without a test split, ``"test"`` is the validation split."""
        if split == "test" and "test" not in self.builder.info.splits:
            split = "validation"
        return BuilderExamples(self.builder, split)
