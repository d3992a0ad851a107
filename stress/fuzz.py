"""Feeds every reader of files with damaged ones.

    python -m stress.fuzz [--inputs 10000] [--readers images masks] [--seed 0]

For each reader a few good files are made and damaged at random: bits flipped, bytes cut
out, repeated or put in, numbers made absurd, two files spliced, the end cut off. What
comes back must be a result or an `InputError` of one line, within seconds and within
--gibibytes of memory; anything else is a failure, and its file is kept under --keep.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import pickle
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors.numpy
import scipy.io
import tifffile
from PIL import Image

from sphemb import InputError, __version__
from sphemb._coco import paint_annotations
from sphemb.data import (
    inspect_mask,
    load_handwriting,
    read_boundaries,
    read_image,
    read_size,
)
from sphemb.data._coco_sets import choose_classes
from sphemb.data.files import by_image, load_annotations
from sphemb.models import load_weights, read_state_dict
from sphemb.training import load_class_names, load_run, read_log

_RNG = np.random.default_rng(0)
_IMAGE = _RNG.integers(256, size=(24, 20, 3)).astype(np.uint8)
_LABELS = np.kron(_RNG.integers(5, size=(6, 5)), np.ones((4, 4), int)).astype(np.uint16)
_ABSURD = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFE, 1 << 20)
_SECONDS = 20.0


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _images() -> list[tuple[str, bytes]]:
    rgb = Image.fromarray(_IMAGE)
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, _IMAGE, compression="zlib")
    return [
        (".png", _saved(rgb, "PNG")),
        (".png", _saved(rgb.quantize(16), "PNG")),
        (".jpg", _saved(rgb, "JPEG")),
        (".jpg", _saved(rgb.convert("CMYK"), "JPEG")),
        (".tif", tiff.getvalue()),
        (".tif", _saved(rgb, "TIFF", compression="tiff_lzw")),
        (".bmp", _saved(rgb, "BMP")),
        (".gif", _saved(rgb, "GIF")),
    ]


def _masks() -> list[tuple[str, bytes]]:
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, _LABELS)
    palette = Image.fromarray(_LABELS.astype(np.uint8), "P")
    palette.putpalette(list(range(256)) * 3)
    return [
        (".png", _saved(Image.fromarray(_LABELS), "PNG")),
        (".png", _saved(palette, "PNG")),
        (".tif", tiff.getvalue()),
    ]


def _mats() -> list[tuple[str, bytes]]:
    record = np.zeros((1, 1), dtype=[("Segmentation", "O"), ("Boundaries", "O")])
    record[0, 0] = (_LABELS, (_LABELS % 2).astype(np.uint8))
    cells = np.empty((1, 2), object)
    cells[0, 0] = cells[0, 1] = record
    found = []
    for compress in (True, False):
        file = io.BytesIO()
        scipy.io.savemat(file, {"groundTruth": cells}, do_compression=compress)
        found.append((".mat", file.getvalue()))
    return found


def _weights() -> list[tuple[str, bytes]]:
    arrays = {"a.weight": np.ones((4, 3), np.float32), "b": np.zeros(5, np.float16)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}, protocol=2))
        file.writestr("archive/data/0", bytes(48))
    return [
        (".safetensors", safetensors.numpy.save(arrays)),
        (".pth", archive.getvalue()),
        (".pth", pickle.dumps([1, {"b": 2}], protocol=2)),
    ]


def _arrays() -> list[tuple[str, bytes]]:
    file = io.BytesIO()
    about = json.dumps({"format": 1, "backbone": "resnet18"})
    np.savez(file, a=np.ones((4, 3), np.float32), b=np.zeros(5, np.uint8), about=about)
    return [(".npz", file.getvalue())]


def _handwriting() -> list[tuple[str, bytes]]:
    arrays: dict[str, Any] = {
        f"{kind}_{part}": _RNG.integers(10, size=shape).astype(np.uint8)
        for part in ("train", "test")
        for kind, shape in {"x": (20, 28, 28), "y": (20,)}.items()
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return [(".npz", file.getvalue())]


def _annotations() -> list[tuple[str, bytes]]:
    box = [2.0, 2.0, 9.0, 2.0, 9.0, 12.0]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 24, "width": 20}],
        "categories": [{"id": 1, "name": "person", "isthing": 1}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": [box],
                "iscrowd": 0,
                "area": 35.0,
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 1,
                "area": 10.0,
                "segmentation": {"size": [24, 20], "counts": [100, 10, 370]},
            },
        ],
    }
    return [(".json", json.dumps(content).encode())]


def _read_annotations(path: pathlib.Path) -> None:
    content = load_annotations(path)
    try:
        classes = choose_classes(content["categories"], None, path)
        for image, found in by_image(content, panoptic=False):
            size = image["height"], image["width"]
            if size == (24, 20):  # others are told from the image before this
                where = f"annotations of {image['file_name']} in {path}"
                paint_annotations(found, size, where=where, classes=classes.numbers)
    except (KeyError, TypeError, IndexError, AttributeError):
        pass  # the builder words these; see `CocoMasks`


def _run(name: str) -> list[tuple[str, bytes]]:
    from sphemb.configs import digits

    content = {
        "config.json": json.dumps(
            {
                "version": __version__,
                **json.loads(digits.get_config().to_json_best_effort()),
            }
        ),
        "classes.json": json.dumps(["background", "cat"]),
        "metrics.jsonl": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n',
    }
    return [(f"/{name}", content[name].encode())]


READERS: dict[str, tuple[Callable[[pathlib.Path], object], list[tuple[str, bytes]]]] = {
    "images": (read_image, _images()),
    "sizes": (read_size, _images()),
    "masks": (inspect_mask, _masks()),
    "boundaries": (read_boundaries, _mats()),
    "weights": (read_state_dict, _weights()),
    "weights by name": (lambda p: load_weights(p, backbone="resnet18"), _arrays()),
    "handwriting": (lambda p: load_handwriting("mnist", mnist_path=p), _handwriting()),
    "annotations": (_read_annotations, _annotations()),
    "configurations": (lambda p: load_run(p.parent), _run("config.json")),
    "class names": (lambda p: load_class_names(p.parent), _run("classes.json")),
    "logs": (lambda p: read_log(p.parent), _run("metrics.jsonl")),
}


def damaged(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with one to four kinds of damage."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        length = chance.choice((1, 2, 4, 16, 256))
        match chance.randrange(7):
            case 0 if data:
                data[place % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place : place + length] = chance.randbytes(length)
            case 4:
                absurd = chance.choice(_ABSURD).to_bytes(4, "little")
                data[place : place + 4] = chance.choice((absurd, absurd[::-1]))
            case 5:
                data[place:] = other[place:]
            case 6:
                del data[place:]
    return bytes(data)


def fuzz(
    name: str, *, inputs: int, seed: int = 0, folder: pathlib.Path
) -> Iterator[tuple[bytes, str]]:
    """Damages files for one reader, and yields those that it does not survive.

    Args:
        name: of `READERS`.
        inputs: how many files.
        seed: for the damage.
        folder: for the files, one at a time.

    Yields:
        The file's bytes, and what happened.
    """
    read, good = READERS[name]
    chance = random.Random(f"{seed} {name}")
    for suffix, content in good:
        path = _path(folder, suffix)
        path.write_bytes(content)
    for _ in range(inputs):
        suffix, content = chance.choice(good)
        data = damaged(content, chance.choice(good)[1], chance)
        path = _path(folder, suffix)
        path.write_bytes(data)
        began = time.monotonic()
        try:
            read(path)
        except InputError as error:
            if "\n" in str(error):
                yield data, f"several lines: {error!r}"
        except Exception as error:  # what else a reader raises is what we look for
            yield data, f"{type(error).__name__}: {error}"
        if time.monotonic() - began > _SECONDS:
            yield data, f"took {time.monotonic() - began:.0f} s"


def _path(folder: pathlib.Path, suffix: str) -> pathlib.Path:
    return folder / (suffix[1:] if suffix.startswith("/") else f"file{suffix}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="for each reader")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--gibibytes", type=float, default=4.0, help="beside what is held"
    )
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for what fails")
    flags = parser.parse_args()
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
    most = held + int(flags.gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    failures = 0
    for name in flags.readers:
        began = time.monotonic()
        kinds: dict[str, list[str]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for data, what in fuzz(
                name, inputs=flags.inputs, seed=flags.seed, folder=pathlib.Path(folder)
            ):
                failures += 1
                kind = what.partition(":")[0]
                kinds.setdefault(kind, []).append(what)
                if flags.keep:
                    flags.keep.mkdir(parents=True, exist_ok=True)
                    (flags.keep / f"{name}-{failures}").write_bytes(data)
        seconds = time.monotonic() - began
        print(
            f"{name}: {flags.inputs} inputs, {sum(map(len, kinds.values()))} failures, "
            f"{seconds:.0f} s",
            flush=True,
        )
        for found in kinds.values():
            print(f"  {len(found)} x, such as {found[0][:100]}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
