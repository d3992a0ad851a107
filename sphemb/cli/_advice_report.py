"""What advice looks like: in words, as a record, as pictures, as a command."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from sphemb.cli._results import make_folder, writing_results
from sphemb.cli._similarities import Similarities
from sphemb.data import InstanceSizes
from sphemb.training import write_json
from sphemb.viz import draw_instance_sizes, draw_similarity_histograms, save_figure

RECORD, SIZES, SIMILARITIES = "advice.json", "instances.png", "similarities.png"


def data_record(sizes: InstanceSizes) -> dict[str, Any]:
    """What was measured of the instances, as JSON can hold it."""
    return {
        "images": len(sizes.counts),
        "unusable": len(sizes.unusable),
        "instances": len(sizes.areas),
        "instances_of_an_image": _spread(sizes.counts),
        "area": _spread(sizes.areas),
        "side": _spread(sizes.sides),
        "touching": float(np.mean(sizes.touching)) if sizes.touching.size else 0.0,
        "vanishing": {
            str(stride): float(np.mean(lost)) if lost.size else 0.0
            for stride, lost in sizes.vanishing.items()
        },
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    if not values.size:
        return {}
    shares = {"least": 0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1}
    return {name: float(np.quantile(values, share)) for name, share in shares.items()}


def data_lines(sizes: InstanceSizes) -> list[str]:
    """The same in words."""
    record = data_record(sizes)
    lines = [f"{record['images']:,} images with {record['instances']:,} instances"]
    if sizes.unusable:
        lines.append(
            f"{len(sizes.unusable)} more cannot be used: sphemb check-data tells why"
        )
    for name, title in {
        "instances_of_an_image": "instances of an image",
        "area": "pixels of an instance",
    }.items():
        told = (f"{k} {v:,.0f}" for k, v in record[name].items())
        lines.append(f"{title}: {', '.join(told)}")
    lost = (f"{100 * v:.1f} % at {k}" for k, v in record["vanishing"].items())
    lines.append(f"vanish at a stride of the map: {', '.join(lost)}")
    lines.append(f"touch another instance: {100 * record['touching']:.0f} %")
    return lines


def similarity_record(
    found: Similarities, bounds: tuple[float, float]
) -> dict[str, Any]:
    """What was measured of a run's embeddings, as JSON can hold it."""
    numbers = {k: v for k, v in found._asdict().items() if np.ndim(v) == 0}
    return {**numbers, "concentrations": list(bounds)}


def similarity_line(found: Similarities, bounds: tuple[float, float]) -> str:
    """The same in words."""
    low, high = bounds
    return (
        f"similarities in {found.num_images} images: within instances "
        f"{found.within:.3f}, nine tenths from {found.within_low:.3f} on, between them "
        f"{found.between:.3f} at most; recall at IoU .5 {found.recall:.3f}"
        + (f"; concentrations from {low:.0f} to {high:.0f}" if low <= high else "")
    )


def write_advice(
    out: pathlib.Path,
    record: dict[str, Any],
    sizes: InstanceSizes,
    similarities: Similarities | None,
    margin: float | None,
) -> None:
    """Writes ``advice.json`` and the pictures.

    Raises:
        InputError: they cannot be written.
    """
    make_folder(out)
    with writing_results():
        figure = draw_instance_sizes(sizes.counts, sizes.areas, sizes.vanishing)
        save_figure(figure, out / SIZES)
        if similarities is not None:
            figure = draw_similarity_histograms(
                similarities.trajectory, similarities.labels, margin=margin
            )
            save_figure(figure, out / SIMILARITIES)
        write_json(out / RECORD, record)  # last: where it is, the others are
