"""Edge maps without learning, for ``sphemb score boundaries``.

    python -m benchmarks.edges sobel IMAGES --out MAPS
    sphemb score boundaries --maps MAPS --groundtruth GROUNDTRUTH --nms

Canny's edges are thin already: score them without ``--nms``.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np

from benchmarks._baselines import canny_edges, sobel_edges
from sphemb.cli import one_line_errors
from sphemb.data import find_images, read_image, write_labels

_METHODS = {"canny": canny_edges, "sobel": sobel_edges}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=sorted(_METHODS))
    parser.add_argument("images", nargs="+", help="image files, folders and globs")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    flags = parser.parse_args()
    with one_line_errors():
        images = find_images(flags.images)
        flags.out.mkdir(parents=True, exist_ok=True)
        for path in images:
            edges = _METHODS[flags.method](read_image(path))
            write_labels(
                flags.out / f"{path.stem}.png", np.rint(65535 * edges).astype(np.int32)
            )
    print(f"{len(images)} maps in {flags.out}")


if __name__ == "__main__":
    main()
