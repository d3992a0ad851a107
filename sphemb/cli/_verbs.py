"""The verbs of the command ``sphemb``: a dataclass of flags each, and what it runs.

What a verb needs is imported when it runs, so that help and errors load no framework.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any, ClassVar, Literal, get_args

import tyro
from tyro.conf import subcommand

from sphemb.cli._flags import (
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    OptionalText,
    optional,
    shipped_configs,
)

_Platform = Literal["cpu", "cuda", "tpu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderFlags:
    """How a folder of images and masks is read, see `sphemb.data.open_folder`.

    Attributes:
        masks: what a value is: instances, components, single or classes (default:
            instances).
        void: the value that is ignored.
        validation_fraction: share of the images that validates (default: 0.15).
        test_fraction: share of the images that tests (default: 0.15).
        seed: of the split (default: 0).
        page: of images with several pages, from 0 on, or max (default: 0).
        intensity: full, range, percentile or LOW..HIGH/WHITE (default: full).
    """

    masks: OptionalText = None
    void: OptionalInt = None
    validation_fraction: OptionalFloat = None
    test_fraction: OptionalFloat = None
    seed: OptionalInt = None
    page: OptionalText = None
    intensity: OptionalText = None

    @property
    def folder(self) -> dict[str, Any]:
        """The settings of `sphemb.data.open_folder` that are given."""
        names = (field.name for field in dataclasses.fields(FolderFlags))
        settings = {name: getattr(self, name) for name in names}
        return {k: v for k, v in settings.items() if v is not None}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train what a configuration says, or resume a run.

    A flag such as --config.train.num_steps=500 changes an entry of the configuration;
    configs/common.py lists its sections.

    Attributes:
        config: see `read_config`.
        workdir: the run's folder (default: runs/NAME).
        skip_bad: leave out images and masks that cannot be used.
        coordinator: HOST:PORT of process 0 of several, or auto on pods and Slurm.
        processes: their number, with HOST:PORT.
        process: the index of this process, from 0 on.
        overrides: changes of the configuration, see `read_config`.
    """

    interrupted: ClassVar[str] = (
        "stopped; the same command resumes from the last checkpoint"
    )

    config: Annotated[
        str,
        tyro.conf.arg(
            metavar="NAME[:VARIANT]",
            help=f"a Python file, or one of {', '.join(shipped_configs())}",
        ),
    ]
    workdir: OptionalPath = None
    skip_bad: bool = False
    coordinator: Annotated[str | None, optional(metavar="HOST:PORT")] = None
    processes: OptionalInt = None
    process: OptionalInt = None
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> None:
        """Trains, evaluates and draws."""
        from sphemb.cli._runs import train_run

        train_run(self)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run and draw.

    Attributes:
        workdir: the folder of a run.
        split: which images are scored.
        report: write report.html, too.
    """

    workdir: pathlib.Path
    split: Literal["validation", "test"] = "test"
    report: bool = False

    def run(self) -> None:
        """Evaluates the run."""
        from sphemb.cli._runs import run_evaluation

        run_evaluation(self.workdir, self.split, report=self.report)


@dataclasses.dataclass(frozen=True)
class Predict:
    """Group or classify the pixels of images, or find boundaries, as trained.

    See docs/prediction.md. All images are checked before the first result, those of
    more than 2^20 pixels by their header alone; an error leaves nothing written.

    Attributes:
        images: image files, folders or globs.
        model: a name of sphemb models, a run's folder, or a file of sphemb export.
        out: the folder for the results.
        overwrite: replace results that exist.
        limit: images at most; 0 for all.
        dry_run: print what would be done, write nothing.
        min_size: pixels that an instance needs.
        tile: side of the tiles of larger images, in pixels as the network sees them.
        halo: overlap of tiles on each side, likewise.
        embeddings: keep the embedding of every pixel.
        geojson: write the outlines of the instances, for QuPath.
        page: of images with several pages, from 0 on, or max (default: the run's).
        diameter: of a typical object in these images, in pixels (default: that of the
            training images), or auto to measure it in what is found first.
        annotations: COCO's file of these images, for the ids in results.json.
    """

    images: tyro.conf.Positional[tuple[str, ...]]
    model: str
    out: pathlib.Path
    overwrite: bool = False
    limit: int = 0
    dry_run: bool = False
    min_size: int = 1
    tile: int = 1024
    halo: int = 128
    embeddings: bool = False
    geojson: bool = False
    page: OptionalText = None
    diameter: OptionalText = None
    annotations: OptionalPath = None

    def run(self) -> int:
        """Writes the results, and returns the number of images."""
        from sphemb.cli._predict import predict_images

        return predict_images(self)


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run as one file for predict, and as one that JAX alone can call.

    See docs/export.md.

    Attributes:
        workdir: the folder of a run.
        out: the folder for model.safetensors, which predict reads; predict.jaxexport,
            which `jax.export.deserialize` reads; and export.json, which describes its
            inputs and outputs.
        smallest: side of the images at least, in pixels.
        largest: side of the images at most, in pixels.
        size: of all images, in place of two bounds.
        platforms: to run on.
        overwrite: replace files that exist.
    """

    workdir: pathlib.Path
    out: pathlib.Path
    smallest: int = 64
    largest: int = 512
    size: Annotated[tuple[int, int] | None, optional(metavar="HEIGHT WIDTH")] = None
    platforms: tuple[_Platform, ...] = get_args(_Platform)
    overwrite: bool = False

    def run(self) -> dict[str, Any]:
        """Writes the files, and returns the content of ``export.json``."""
        from sphemb.cli._export import export_run

        return export_run(self)


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Take pretrained weights from a PyTorch file.

    Attributes:
        source: a .pth, .pt or .safetensors file.
        backbone: the network in it, such as resnet50, see `sphemb.models.BACKBONES`.
        name: of the weights (default: the backbone's).
        overwrite: replace weights of this name.
    """

    source: tyro.conf.Positional[str]
    backbone: str
    name: OptionalText = None
    overwrite: bool = False

    def run(self) -> pathlib.Path:
        """Imports the weights, prints their name and returns their file."""
        from sphemb.models import import_weights

        path = import_weights(**vars(self))
        print(f"weights {path.stem!r} of {self.backbone} are in {path}", flush=True)
        return path


@dataclasses.dataclass(frozen=True)
class CheckData(FolderFlags):
    """Check every file of a folder of images and masks.

    Errors stop a training; the exit status is 1 then. Warnings deserve a look.

    Attributes:
        dir: the folder.
        stride: of the network's output.
        out: a JSON file for the whole report.
        limit: lines for each kind of finding; 0 for all.
    """

    dir: tyro.conf.Positional[pathlib.Path]
    stride: int = 8
    out: OptionalPath = None
    limit: int = 5

    def run(self) -> int:
        """Prints a table and the findings, and returns the exit status."""
        from sphemb.cli._check_data import report_on_folder

        return report_on_folder(self)


@dataclasses.dataclass(frozen=True)
class Advise(FolderFlags):
    """Advise on settings for a folder or after a run, with reasons and costs.

    A flag such as --config.task.margin=.4 sets an entry, which is not advised on then.
    Without --masks, --page and the like, a folder is read as the configuration says.

    Attributes:
        dir: a folder of images and masks.
        workdir: a run, in place of the folder.
        config: where to start from, as for train.
        images: images of a split that are measured.
        costs: leave out memory and time, for which a training step is compiled.
        out: the folder for advice.json and instances.png.
        overwrite: replace results that exist.
        overrides: changes of the configuration, see `read_config`.
    """

    dir: Annotated[
        tyro.conf.Positional[pathlib.Path | None], optional(metavar="[DIR]")
    ] = None
    workdir: OptionalPath = None
    config: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME[:VARIANT]",
            help_behavior_hint="(default: folder, or folder:photographs)",
        ),
    ] = None
    images: int = 500
    costs: bool = True
    out: OptionalPath = None
    overwrite: bool = False
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict[str, Any]:
        """Prints settings with their reasons, and returns ``advice.json``."""
        from sphemb.cli._advise import give_advice

        return give_advice(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What the benchmarks share.

    Attributes:
        out: the folder for the results.
        overwrite: replace results that exist.
        partial: leave out true images without a prediction.
    """

    out: OptionalPath = None
    overwrite: bool = False
    partial: bool = False


@dataclasses.dataclass(frozen=True)
class ScoreBoundaries(Results):
    """ODS, OIS and AP of boundary maps, as BSDS defines them.

    See docs/boundaries_benchmark.md. All files are read once before the first is
    scored; an error leaves nothing written.

    Attributes:
        maps: a folder of NAME.png or NAME.tif, gray with 8 or 16 bits, or NAME.npy,
            floating point in 0 .. 1.
        groundtruth: a folder of NAME.mat; a NAME is a path below the folder.
        nms: keep maxima across boundaries only.
        thresholds: their number n: k / (n + 1).
        tolerance: the largest distance of a match, as a share of the diagonal.
        processes: images at a time (default: all processors).
    """

    maps: pathlib.Path
    groundtruth: pathlib.Path
    nms: bool = False
    thresholds: int = 99
    tolerance: float = 0.0075
    processes: OptionalInt = None

    def run(self) -> dict[str, Any]:
        """Prints the scores, writes them to ``out``, and returns ``scores.json``."""
        from sphemb.cli._score import score_boundaries

        return score_boundaries(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfLabels(Results):
    """What the benchmarks of label images share.

    Attributes:
        names: a text file with a class in each line, the background first, or a JSON
            list (default: in COCO's files the categories, else the numbers).
        images: a text file with the names of the images that are scored.
        void: the true value that is ignored (default: 255 in palette files).
    """

    names: OptionalPath = None
    images: OptionalPath = None
    void: OptionalInt = None


@dataclasses.dataclass(frozen=True)
class ScoreClasses(_OfLabels):
    """Mean IoU of classes, also near their boundaries.

    See docs/semantic_benchmark.md. All files are read once before the first is scored;
    an error leaves nothing written.

    Attributes:
        predictions: a folder of NAME.png or NAME_classes.png, gray or palette, whose
            values are classes, 0 the background.
        groundtruth: a folder of NAME.png; a NAME is a path below the folder.
        classes: their number, the background included (default: that of the names, or
            one more than the largest true class).
        trimap: the widest band around true boundaries, in pixels; 0 for none.
    """

    predictions: pathlib.Path
    groundtruth: pathlib.Path
    classes: OptionalInt = None
    trimap: int = 40

    def run(self) -> dict[str, Any]:
        """Prints the scores, writes them to ``out``, and returns ``scores.json``."""
        from sphemb.cli._score import score_classes

        return score_classes(self)


@dataclasses.dataclass(frozen=True)
class ScoreInstances(_OfLabels):
    """AP^r and COCO's AP of instances with classes.

    See docs/semantic_benchmark.md. AP^r removes crowds and void from all masks; where
    true objects overlap, the smaller lies on top. COCO's AP is computed by pycocotools
    from the files as they are; void is a crowd.

    Attributes:
        predictions: COCO's results, JSON; or a folder of NAME.png or NAME_labels.png,
            0 where no instance is, with NAME.csv or NAME.json: label, class and score
            of each. NAME is the path of the image, or its end.
        groundtruth: COCO's annotations, JSON; or a folder of NAME.png with label and
            class of each in NAME.csv or NAME.json, unless --semantic is given.
        semantic: a folder of NAME.png, the true classes: an object has the commonest
            class of its pixels.
    """

    predictions: Annotated[pathlib.Path, tyro.conf.arg(aliases=["--results"])]
    groundtruth: pathlib.Path
    semantic: OptionalPath = None

    def run(self) -> dict[str, Any]:
        """Prints the scores, writes them to ``out``, and returns ``scores.json``."""
        from sphemb.cli._score import score_instances

        return score_instances(self)


@dataclasses.dataclass(frozen=True)
class Score:
    """Score result files by a benchmark."""

    benchmark: (
        Annotated[ScoreClasses, subcommand("semantic")]
        | Annotated[ScoreInstances, subcommand("instances")]
        | Annotated[ScoreBoundaries, subcommand("boundaries")]
    )

    def run(self) -> dict[str, Any]:
        """Scores by the benchmark."""
        return self.benchmark.run()


@dataclasses.dataclass(frozen=True)
class Models:
    """List the networks that come with the package."""

    def run(self) -> dict[str, Any]:
        """Prints the card of each; returns name -> card."""
        from sphemb.cli._models import print_models

        return print_models()


@dataclasses.dataclass(frozen=True)
class Info:
    """Print versions, devices and folders."""

    def run(self) -> dict[str, str]:
        """Prints a line for each subject; returns subject -> line."""
        from sphemb.cli._info import print_info

        return print_info()
