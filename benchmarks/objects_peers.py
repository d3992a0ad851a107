"""Trains StarDist or a plain U-Net on one core, and writes label images.

Runs in an environment of its own, without sphemb, with the packages stardist,
tensorflow and scikit-image::

    python benchmarks/objects_peers.py train stardist --splits S --out results/stardist
    python benchmarks/objects_peers.py score results/stardist/30 --splits S

S is written by `benchmarks.objects`. The times of ``--minutes``, in CPU time, are of
one training with a constant rate. StarDist has its authors' settings (32 rays, grid 2,
crops of 128 x 128). The U-Net is that of csbdeep with three classes: background,
interior, and outline, whose weight is 3; interiors are the seeds of a watershed in all
but the background. Both see flips, quarter turns and changes of intensity, of images
between their percentiles 1 and 99.8.

``score`` compares label images by StarDist's ``matching``, for all methods.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import time
from typing import Any

import numpy as np

_CROP, _BATCH, _RATE = 128, 8, 3e-4
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
_EPOCH = 50  # steps
_SEED = 0


def _read(path: str) -> np.ndarray:
    from PIL import Image

    return np.array(Image.open(path))


def _image(path: str) -> np.ndarray:
    from csbdeep.utils import normalize

    image = _read(path).astype(np.float32)
    color = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image[..., :3]
    return normalize(color, 1, 99.8, axis=(0, 1, 2))


def _load(splits: dict[str, Any], split: str) -> tuple[list, list]:
    pairs = splits[split]
    labels = [_read(pair["labels"]).astype(np.int32) for pair in pairs]
    return [_image(pair["image"]) for pair in pairs], labels


_rng = np.random.default_rng(_SEED)


def _augment(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turns = int(_rng.integers(4))
    x, y = np.rot90(x, turns), np.rot90(y, turns)
    if _rng.uniform() < 0.5:
        x, y = x[::-1], y[::-1]
    return x * _rng.uniform(0.6, 2) + _rng.uniform(-0.2, 0.2), y


class _Clock:
    """Calls a function whenever CPU time passes the next of some limits."""

    def __init__(self, minutes: list[float], reached: Any) -> None:
        self.left, self._reached = sorted(minutes), reached
        self._start = math.nan

    def tick(self) -> bool:
        """Whether all limits have passed. The first call, after compilation, is 0."""
        now = time.process_time()
        if math.isnan(self._start):
            self._start = now
        while self.left and now - self._start >= 60 * self.left[0]:
            self._reached(self.left.pop(0))
            self._start += time.process_time() - now
        return not self.left


def _train_stardist(splits: Any, minutes: list[float], save: Any) -> None:
    import tensorflow as tf
    from stardist.models import Config2D, StarDist2D

    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=3,
        train_patch_size=(_CROP, _CROP),
        train_batch_size=_BATCH,
        train_learning_rate=_RATE,
        train_steps_per_epoch=_EPOCH,
        train_tensorboard=False,
        train_reduce_lr=None,
    )
    model = StarDist2D(config, name=None, basedir=None)
    (x, y), held = _load(splits, "train"), _load(splits, "validation")

    def reached(limit: float) -> None:
        model.optimize_thresholds(*held, nms_threshs=[0.3, 0.4, 0.5])
        save(limit, lambda image: model.predict_instances(image)[0])

    clock = _Clock(minutes, reached)

    class Stop(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if clock.tick():
                self.model.stop_training = True

    model.prepare_for_training()
    model.callbacks.append(Stop())
    few = tuple(part[:8] for part in held)
    model.train(x, y, validation_data=few, augmenter=_augment, epochs=10_000)


def _outlines(labels: np.ndarray) -> np.ndarray:
    """0 background, 1 interior, 2 outline, one pixel inside of each object."""
    from skimage.segmentation import find_boundaries

    classes = (labels > 0).astype(np.int32)
    classes[find_boundaries(labels, mode="inner")] = 2
    return classes


def _train_unet(splits: Any, minutes: list[float], save: Any) -> None:
    import tensorflow as tf
    from csbdeep.internals.blocks import unet_block
    from scipy import ndimage
    from skimage.segmentation import watershed

    inputs = tf.keras.layers.Input((None, None, 3))
    features = unet_block(n_depth=3, n_filter_base=32)(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.Conv2D(3, 1)(features))
    optimizer = tf.keras.optimizers.Adam(_RATE)
    x, y = _load(splits, "train")
    weights = tf.constant([1.0, 1.0, 3.0])

    @tf.function
    def step(images: Any, classes: Any) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                classes, model(images, training=True)
            )
            loss = tf.reduce_mean(losses * tf.gather(weights, classes))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )

    def crop() -> tuple[np.ndarray, np.ndarray]:
        i = _rng.integers(len(x))
        top, left = (_rng.integers(n - _CROP + 1) for n in y[i].shape)
        window = slice(top, top + _CROP), slice(left, left + _CROP)
        image, classes = _augment(x[i][window], y[i][window])
        return image, _outlines(classes)

    def predict(image: np.ndarray) -> np.ndarray:
        size = image.shape[:2]
        padding = [(0, -side % 8) for side in size] + [(0, 0)]
        padded = np.pad(image, padding, mode="reflect")[None]
        scores = tf.nn.softmax(model(padded, training=False)[0]).numpy()
        scores = scores[: size[0], : size[1]]
        seeds, _ = ndimage.label(scores[..., 1] > 0.5)
        return watershed(-scores[..., 1], seeds, mask=scores[..., 0] < 0.5)

    clock = _Clock(minutes, lambda limit: save(limit, predict))
    while True:
        images, classes = zip(*(crop() for _ in range(_BATCH)), strict=True)
        step(np.stack(images).astype(np.float32), np.stack(classes))
        if clock.tick():
            return


def train(options: argparse.Namespace) -> None:
    """Trains a peer and writes its label images of the test split at each time."""
    os.sched_setaffinity(0, {options.core})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.utils.set_random_seed(_SEED)
    splits = json.loads(options.splits.read_text())

    def save(limit: float, predict: Any) -> None:
        folder = options.out / f"{limit:g}"
        folder.mkdir(parents=True, exist_ok=True)
        for pair in splits["test"]:
            labels = predict(_image(pair["image"])).astype(np.int32)
            np.save(folder / f"{pair['name']}.npy", labels)
        print(f"{options.method}: {limit:g} minutes, written to {folder}", flush=True)

    peer = {"stardist": _train_stardist, "unet": _train_unet}[options.method]
    peer(splits, options.minutes, save)


def touching_pairs(labels: np.ndarray) -> np.ndarray:
    """Pairs [P, 2] of objects that share a side of a pixel."""
    pairs = []
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        meet = (one != other) & (one > 0) & (other > 0)
        pairs.append(np.sort(np.stack([one[meet], other[meet]], axis=1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def count_separated(true: np.ndarray, found: np.ndarray) -> tuple[int, int]:
    """Pairs of true objects that touch: those with two partners, and all.

    The partner of an object is the found one that covers most of its pixels.
    """

    def partner(number: int) -> int:
        return int(np.bincount(found[true == number]).argmax())

    pairs = touching_pairs(true)
    partners = {int(n): partner(n) for n in np.unique(pairs)}
    both = [(partners[int(a)], partners[int(b)]) for a, b in pairs]
    return sum(a != b and min(a, b) > 0 for a, b in both), len(both)


def scores_of(folder: pathlib.Path, splits: dict[str, Any]) -> dict[str, float]:
    """The scores of label images NAME.npy, by StarDist's ``matching``."""
    from stardist.matching import matching_dataset

    true = [_read(pair["labels"]).astype(np.int32) for pair in splits["test"]]
    found = [np.load(folder / f"{pair['name']}.npy") for pair in splits["test"]]
    scores: dict[str, float] = {}
    for by_image, kind in ((False, "pooled"), (True, "mean")):
        for threshold in _THRESHOLDS:
            settings = {"thresh": threshold, "by_image": by_image}
            result = matching_dataset(true, found, show_progress=False, **settings)
            scores[f"ap@{threshold}_{kind}"] = float(result.accuracy)
    separated = np.sum(
        [count_separated(t, f) for t, f in zip(true, found, strict=True)], 0
    )
    scores["separated"], scores["touching"] = map(int, separated)
    scores["true"] = int(sum(len(np.unique(t)) - 1 for t in true))
    scores["found"] = int(sum(len(np.unique(f[f > 0])) for f in found))
    return scores


def score(options: argparse.Namespace) -> None:
    """Prints the scores of folders as JSON."""
    splits = json.loads(options.splits.read_text())
    for folder in options.folders:
        print(json.dumps({"folder": str(folder), **scores_of(folder, splits)}))


def main() -> None:
    """Trains, or scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    trained = verbs.add_parser("train")
    trained.add_argument("method", choices=("stardist", "unet"))
    trained.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 90])
    trained.add_argument("--out", type=pathlib.Path, required=True)
    trained.add_argument("--core", type=int, default=0)
    trained.set_defaults(run=train)
    scored = verbs.add_parser("score")
    scored.add_argument("folders", type=pathlib.Path, nargs="+")
    scored.set_defaults(run=score)
    for verb in (trained, scored):
        verb.add_argument("--splits", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
