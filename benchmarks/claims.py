"""The papers' claims, each tested by one command; docs/claims.md has the results.

    python -m benchmarks.claims gradient-growth
    python -m benchmarks.claims pieces --workdir runs/voc-small
    python -m benchmarks.claims report

A test writes its record to ``benchmarks/claims.json``; ``report`` makes from all of
them the table and the figure of the page. ``python -m benchmarks.claims -h`` lists the
names.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from benchmarks._claims_boundaries import measure_boundary_embeddings
from benchmarks._claims_images import measure_ambiguous, measure_pieces, measure_places
from benchmarks._claims_photographs import measure_classes
from benchmarks._claims_picie import measure_picie
from benchmarks._claims_points import measure_growth, measure_order
from benchmarks._claims_records import Effect, draw_effects, joint_verdict, to_table
from benchmarks._claims_training import measure_mean_shift
from benchmarks._report import replace_between_markers
from benchmarks.figures import Parser
from sphemb import InputError
from sphemb.cli import one_line_errors
from sphemb.viz import save_figure

_ROOT = pathlib.Path(__file__).parent.parent
RECORDS, PAGE = _ROOT / "benchmarks" / "claims.json", _ROOT / "docs" / "claims.md"


class Claim(NamedTuple):
    """A claim and its test.

    Attributes:
        claim: in a few words.
        source: paper and section.
        design: what is compared, on what.
        unit: of the effects.
        repeats: what is repeated, and the kind of interval.
        number: of the repeats, by default.
        measure: from the flags to the effects.
        needs: flags that must be given, and their help.
        trains: whether it trains, into subfolders of ``--runs``.
    """

    claim: str
    source: str
    design: str
    unit: str
    repeats: str
    number: int
    measure: Callable[[argparse.Namespace], list[Effect]]
    needs: Mapping[str, str] = MappingProxyType({})
    trains: bool = False

    def record(self, flags: argparse.Namespace) -> dict:
        """Tests the claim."""
        effects = self.measure(flags)
        return {
            "claim": self.claim,
            "source": self.source,
            "design": self.design,
            "unit": self.unit,
            "repeats": f"{flags.number} {self.repeats}",
            "effects": [effect._asdict() for effect in effects],
            "verdict": joint_verdict(effects),
            "command": f"python -m benchmarks.claims {flags.name}"
            + "".join(f" --{name} {name.upper()}" for name in self.needs)
            + f" --number {flags.number}" * (flags.number != self.number),
        }


CLAIMS = {
    "gradient-growth": Claim(
        "gradients grow with the depth T",
        "main paper, section 4.2",
        "factor of the gradient's length for a step more, T = 1 to 10, loss on the "
        "last step; random groups, κ = 36, margin .5, float64",
        "factor of the length for a step more",
        "seeds, t interval of the logarithm",
        20,
        measure_growth,
    ),
    "cubic-convergence": Claim(
        "mean shift converges cubically in compact clusters",
        "main paper, section 4.1; supplement, section 2",
        "order p of e' ~ e^p, e the largest standard deviation of a group in any "
        "direction, .03 at first; 8-d, groups at right angles, float64",
        "order p",
        "seeds, t interval",
        20,
        measure_order,
    ),
    "ambiguous-pixels": Claim(
        "gradients through mean shift concentrate on ambiguous pixels",
        "main paper, section 4.2 and Fig. 5",
        "share of the pixels' gradient lengths within 3 pixels of where digits touch; "
        "the network `digits`, drawings of test handwriting, paired",
        "share",
        "drawings, bootstrap",
        100,
        measure_ambiguous,
    ),
    "places": Claim(
        "embeddings of instances correlate with place and scale",
        "poster",
        "linear read-out from the mean embedding of a digit, fitted on as many other "
        "drawings; the network `digits`, which sees coordinates; digits of one size",
        "R²",
        "drawings, bootstrap",
        100,
        measure_places,
    ),
    "pieces": Claim(
        "groups connect the disconnected regions of an object",
        "supplement, section 4",
        "objects of several components of 5 % or more; IoU of .5 or more with a group "
        "of a run of `configs/voc.py:small`, or a component of its own output; paired",
        "share of the objects",
        "images of VOC, bootstrap of images",
        100,
        measure_pieces,
        needs={"workdir": "a run of configs/voc.py:small"},
    ),
    "boundary-embeddings": Claim(
        "after fine-tuning, boundary embeddings encode orientation and signed distance",
        "main paper, section 5.2; supplement, section 3",
        "linear read-out from the vectors of all branches, at pixels up to 5 pixels "
        "from a boundary of two annotators; fitted on half of the images; runs of "
        "`configs/bsds.py` and `configs/bsds_finetune.py`, seed 0",
        "R²",
        "test images of BSDS500, half of them fitted, bootstrap of the others",
        100,
        measure_boundary_embeddings,
        needs={
            "workdir": "a run of configs/bsds.py",
            "finetuned": "a run of configs/bsds_finetune.py that started from it",
        },
    ),
    "mean-shift-training": Claim(
        "fine-tuning through mean shift improves grouping where the embedding is "
        "imperfect",
        "main paper, abstract and section 4.2",
        "drawings of `configs/digits.py` and a smaller network, 300 steps of 8, then "
        "150 with losses on mean-shift steps 0 to T; difference to T = 0, which has as "
        "many steps; in 3-d margin, κ and threshold of `configs/digits.py:sphere`",
        "difference in average recall",
        "seeds, paired, t interval",
        5,
        measure_mean_shift,
        trains=True,
    ),
    "classes": Claim(
        "the embedding loss improves classes, most away from boundaries",
        "main paper, section 5.4, Fig. 9",
        "network and images of `configs/voc.py:small`, 200 steps of 8 crops of 256 x "
        "256; classes and embedding from the same features, groups are the classes; "
        "100 images of VOC",
        "difference in mean IoU",
        "seeds, paired, t interval",
        3,
        measure_classes,
        needs={"voc_dir": "VOC or a part of it: docs/datasets.md"},
        trains=True,
    ),
    "picie": Claim(
        "PiCIE is better than clusters of frozen features; invariance helps, "
        "equivariance helps, both help, overclustering helps",
        "PiCIE",
        "`configs/picie_coco.py:small`, 100 steps, clusters every 25, on photographs "
        "of three sets without labels; 100 validation images each of COCO and VOC "
        "(object pixels), 27 clusters matched one to one",
        "difference in accuracy",
        "seeds, paired, t interval",
        3,
        measure_picie,
        needs={
            "voc_dir": "VOC or a part of it: docs/datasets.md",
            "coco_dir": "COCO or a part of it: docs/datasets.md",
            "images": "a folder with more .jpg images, without labels",
        },
        trains=True,
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Tests a claim, or reports all; a mistake ends with one line and status 2."""
    parser = Parser(
        prog="python -m benchmarks.claims",
        description="Tests a claim of the papers, and records the effects.",
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, claim in CLAIMS.items():
        flags = names.add_parser(name, help=f"{claim.source}: {claim.claim}")
        flags.add_argument(
            "--number", type=int, default=claim.number, help=f"{claim.repeats}"
        )
        for flag, text in claim.needs.items():
            given = {"type": pathlib.Path, "required": True, "help": text}
            flags.add_argument(f"--{flag}", **given)
        if claim.trains:
            given = {"default": "runs/claims", "help": "where its runs are kept"}
            flags.add_argument("--runs", type=pathlib.Path, **given)
    names.add_parser("report", help="writes the table and the figure of docs/claims.md")
    flags = parser.parse_args(arguments)
    with one_line_errors():
        if flags.name != "report":
            if flags.number < 2:
                raise InputError(f"--number must be at least 2, got {flags.number}")
            record = CLAIMS[flags.name].record(flags)
            records = json.loads(RECORDS.read_text()) | {flags.name: record}
            text = json.dumps(records, indent=1, ensure_ascii=False)
            RECORDS.write_text(text + "\n")
            print(to_table([record]))
            return
        records = json.loads(RECORDS.read_text())
        if missing := [name for name in CLAIMS if name not in records]:
            raise InputError(
                f"{RECORDS.name} lacks {', '.join(missing)}: test them first"
            )
        rows = [records[name] for name in CLAIMS]
        PAGE.write_text(replace_between_markers(PAGE.read_text(), to_table(rows)))
        picture = PAGE.parent / "images" / "claims.png"
        save_figure(draw_effects(rows), picture, max_bytes=300_000)
        print(f"written: {PAGE}, {picture}")


if __name__ == "__main__":
    main()
