"""Images a second of training, prediction and the input pipeline, for each backbone.

    python -m benchmarks.throughput [--size 512] [--backbones resnet50 ...]

Every step is that of `configs/voc.py`, with a map of stride 8: one image, cut from
drawn photographs of 640 x 480 pixels that are read from PNG files, scaled, turned and
recoloured. The pipeline is measured by itself, with nothing else running.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from benchmarks._machine import describe
from sphemb.configs import folder, voc
from sphemb.models import BACKBONES
from sphemb.training import Experiment, data_parallel, replicate, split_batch

_SOURCE = (480, 640)
_PHOTOGRAPHS = 100  # shuffling takes long for less than some dozens


def write_photographs(root: pathlib.Path) -> None:
    """Smooth noise, as incompressible as a photograph, with eight discs each."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    rows, columns = np.mgrid[: _SOURCE[0], : _SOURCE[1]]
    for i in range(_PHOTOGRAPHS):
        rng = np.random.default_rng(i)
        coarse = rng.integers(256, size=(60, 80, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize(_SOURCE[::-1], Image.Resampling.BICUBIC)
        noisy = np.asarray(image) + rng.normal(0, 4, (*_SOURCE, 3))
        labels = np.zeros(_SOURCE, np.uint8)
        for number in range(1, 9):
            row, column = rng.uniform(size=2) * _SOURCE
            radius = rng.uniform(15, 70)
            labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = number
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        Image.fromarray(labels).save(root / "masks" / f"{i}.png")


def make_experiment(
    root: pathlib.Path, backbone: str, size: int, num_threads: int | None = None
) -> Experiment:
    config = voc.get_config()
    photographs = folder.get_config("photographs")
    config.data, config.augmentation = photographs.data, photographs.augmentation
    config.data.update(dir=str(root), intensity="full")
    config.augmentation.size = (size, size)
    if num_threads is not None:
        config.loader.num_threads = num_threads
    config.model.backbone = backbone
    config.task.budgets = ()
    config.train.weights = None
    return Experiment(config)


def seconds_per_call(call, *, budget: float) -> float:
    """The median of at least three calls, after one that compiles."""
    call()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < budget:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def pipeline_seconds(experiment: Experiment, *, count: int = 300) -> float:
    """Seconds of an image in a long stream, the first of which lay ready."""
    batches = experiment.train_batches()
    for _ in range(count // 10):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return (time.perf_counter() - start) / count


def measure(experiment: Experiment, *, budget: float) -> tuple[float, float]:
    """Seconds of a training step and of a prediction, of one image."""
    batch = next(experiment.train_batches())
    step = data_parallel(
        experiment.train_step, replicated_output=True, donate_state=True
    )
    state = replicate(experiment.init_state())
    variables = jax.device_get((state.params, state.batch_stats))

    def train() -> None:
        nonlocal state
        state, _ = step(state, split_batch(batch))
        jax.block_until_ready(state.params)

    training = seconds_per_call(train, budget=budget)
    apply = functools.partial(jax.jit(experiment.network), *variables)
    image = {"image": split_batch(batch)["image"][0]}

    def predict() -> None:
        jax.block_until_ready(experiment.task.predict(apply, (), image))

    return training, seconds_per_call(predict, budget=budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a number")
    flags = parser.parse_args()
    machine = describe(os.cpu_count() or 1)
    print(
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"jax {machine['versions']['jax']} on {machine['device']}, load average "
        f"{machine['load']:.2f}, {flags.size} x {flags.size} pixels"
    )
    with tempfile.TemporaryDirectory() as folder_name:
        root = pathlib.Path(folder_name) / "photographs"
        write_photographs(root)
        pipeline = pipeline_seconds(make_experiment(root, "resnet18", flags.size))
        print(f"\ninput pipeline: {1 / pipeline:.1f} images/s\n")
        print("| backbone | training, images/s | prediction, images/s | pipeline |")
        print("| --- | ---: | ---: | ---: |")
        for backbone in flags.backbones:
            experiment = make_experiment(root, backbone, flags.size)
            training, prediction = measure(experiment, budget=flags.budget)
            print(
                f"| {backbone} | {1 / training:.3f} | {1 / prediction:.3f} | "
                f"{training / pipeline:.0f}x training |",
                flush=True,
            )


if __name__ == "__main__":
    main()
