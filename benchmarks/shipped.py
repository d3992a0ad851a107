"""Makes the networks that come with the package, from runs.

    python train.py --config=configs/nuclei.py --config.data.dir=DIR ...
    python -m benchmarks.shipped nuclei --workdir runs/nuclei
    python -m benchmarks.shipped digits --workdir runs/digits

Writes ``sphemb/shipped/NAME.safetensors`` in half precision. The scores on its card are
those of this file on the test images of the run's data.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile

import sphemb
from sphemb.cli import one_line_errors
from sphemb.evaluation import evaluate
from sphemb.training import ModelCard, load_model, load_run, save_model

CARDS = {
    "nuclei": ModelCard(
        summary="nuclei of cells, in fluorescence and in stained tissue",
        data="371 images of the 2018 Data Science Bowl, stage 1 (BBBC038), of at most "
        "360 x 360 pixels; nuclei are about 16 pixels wide",
        license="CC0 1.0",
        made_by="python train.py --config=configs/nuclei.py --config.data.dir=DIR "
        "--config.train.num_steps=8000",
        limits="stained tissue, of which there are few training images; nuclei of "
        "another size need --diameter; anything that is not a nucleus",
    ),
    "digits": ModelCard(
        summary="the digits of drawings of several handwritten digits",
        data="drawings with the handwriting that scikit-learn bundles",
        license="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        made_by="python train.py --config=configs/digits.py",
        limits="anything but such drawings: it is an example",
    ),
}


def write(model: str, workdir: pathlib.Path) -> None:
    """Writes one network, and prints its scores."""
    run, card = load_run(workdir), CARDS[model]
    name = f"{model}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        save_model(run, pathlib.Path(folder) / name, dtype="float16")
        half = load_model(pathlib.Path(folder) / name)
    found = evaluate(dataclasses.replace(half, experiment=run.experiment), "test")
    chosen = ("matched_precision@0.5", "mean_best_iou", "recall@0.5", "average_recall")
    scores = {k: round(found.scores[k], 3) for k in chosen if k in found.scores}
    facts = {**scores, "test images": found.num_images}
    path = pathlib.Path(sphemb.__file__).parent / "shipped" / name
    path.parent.mkdir(exist_ok=True)
    save_model(run, path, card=dataclasses.replace(card, scores=facts), dtype="float16")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {facts}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=CARDS)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    options = parser.parse_args()
    with one_line_errors():
        write(options.name, options.workdir)


if __name__ == "__main__":
    main()
