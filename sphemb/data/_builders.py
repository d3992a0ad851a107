"""What the TFDS builders share: who makes them, how they are prepared, their splits.

TensorFlow is not needed, neither to prepare a data set nor to read it.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging as absl_logging

from sphemb._checks import InputError, InputTypeError
from sphemb.data._examples import BuilderExamples
from sphemb.data._handwriting import tfds_data_dir


# Not registered by name: `tfds.load` could not make the config that it needs.
class LabelledBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder of labelled images that a config of its own describes.

    Args:
        config: made by the function that ``config_function`` names.
        data_dir: where prepared data sets are kept; by default the config's.
        file_format: how the examples are kept.
        **kwargs: for TFDS.

    Raises:
        InputError: the config was made by something else.
    """

    config_class: ClassVar[type[tfds.core.BuilderConfig]]
    config_function: ClassVar[str]

    def __init__(
        self,
        *,
        config: Any = None,
        data_dir: str | os.PathLike[str] | None = None,
        file_format: str = "array_record",
        **kwargs: Any,
    ) -> None:
        """Opens the data set, prepared or not; see the class."""
        if not isinstance(config, self.config_class):
            raise InputTypeError(
                f"config must come from sphemb.data.{self.config_function}, got "
                f"{config!r}"
            )
        self._settings: Any = config
        super().__init__(
            config=config,
            data_dir=self._settings.data_dir if data_dir is None else data_dir,
            file_format=file_format,
            **kwargs,
        )


Builder = TypeVar("Builder", bound=LabelledBuilder)


_prepares = contextvars.ContextVar("prepares", default=True)


@contextlib.contextmanager
def only_prepared() -> Iterator[None]:
    """Within it no data set is prepared where its settings say, but opened alone.

    For settings that came with somebody else's run, which might name any folder. In
    the default one for prepared data sets they are prepared as always.
    """
    token = _prepares.set(False)
    try:
        yield
    finally:
        _prepares.reset(token)


def prepare_quietly(builder_class: type[Builder], config: Any, *, what: str) -> Builder:
    """Opens a data set, after preparing it if it is not there yet.

    A preparation that breaks off leaves nothing behind, and of several processes that
    prepare the same set at once one wins. The progress bar is shown on a terminal only.

    Args:
        builder_class: the builder.
        config: its config, with a ``data_dir``.
        what: what is prepared, for the message.

    Returns:
        The prepared builder.

    Raises:
        InputError: data_dir cannot be written to, or must not, see `only_prepared`; and
            what the builder raises.
    """
    make: Callable[..., Any] = builder_class
    with _quietly():
        builder = make(config=config)
        if not builder.is_prepared():
            if not _prepares.get() and config.data_dir != tfds_data_dir():
                raise InputError(
                    f"{what} must have been prepared in {config.data_dir}, where a run "
                    "that is only read writes nothing: train, or take data_dir out of "
                    "its config.json"
                )
            try:
                builder.download_and_prepare()
            except (OSError, RuntimeError) as error:  # array_record raises the latter
                # Another process may have been first with the same folder.
                builder = make(config=config)
                if not builder.is_prepared():
                    raise InputError(
                        f"{what} cannot be written to {config.data_dir}: "
                        f"{' '.join(str(error).split())}"
                    ) from error
    return builder


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps TFDS from printing what means nothing to whoever asked for a data set."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


def photograph_features(instances_dtype: Any) -> tfds.features.FeaturesDict:
    """Returns the features of photographs of any size with two label maps."""

    def labels(dtype: Any) -> tfds.features.Image:
        return tfds.features.Image(
            shape=(None, None, 1), dtype=dtype, encoding_format="png"
        )

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(None, None, 3), dtype=np.uint8, encoding_format="jpeg"
            ),
            "instances": labels(instances_dtype),
            "semantic": labels(np.uint8),
            "name": tfds.features.Text(),
        }
    )


@dataclasses.dataclass(frozen=True)
class BuilderDataset:
    """A prepared builder as a data set of three splits.

    Attributes:
        builder: the prepared builder, for whoever wants more than examples.
    """

    builder: tfds.core.DatasetBuilder

    def source(self, split: str) -> BuilderExamples:
        """Opens a split.

        Args:
            split: ``"train"``, ``"validation"``, ``"test"``, or a part such as
                ``"train[:10%]"``. Where the builder keeps no test split of its own,
                ``"test"`` is its validation split.

        Returns:
            Its examples.

        Raises:
            InputError: there is no such split.
        """
        if split == "test" and "test" not in self.builder.info.splits:
            split = "validation"
        return BuilderExamples(self.builder, split)


def as_dataset(
    prepare: Callable[..., tfds.core.DatasetBuilder],
) -> Callable[..., BuilderDataset]:
    """Makes a function that prepares a builder give the data set of its splits."""

    @functools.wraps(prepare)
    def opened(*args: Any, **settings: Any) -> BuilderDataset:
        return BuilderDataset(prepare(*args, **settings))

    return opened
