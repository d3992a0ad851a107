"""Divides images into train, validation and test by their names."""

from __future__ import annotations

import hashlib
import os

from sphemb._checks import InputError, check_count, check_number
from sphemb.data._layouts import Layout, Pair

SPLITS = ("train", "validation", "test")


def check_division(validation_fraction: float, test_fraction: float, seed: int) -> None:
    """Refuses shares of the images that leave none to train on.

    Args:
        validation_fraction: see `open_folder`.
        test_fraction: see `open_folder`.
        seed: see `open_folder`.

    Raises:
        InputError: a share or the seed is out of range.
    """
    for name, value in {
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
    }.items():
        check_number(name, value, at_least=0, below=1)
    if validation_fraction + test_fraction >= 1:
        raise InputError(
            "validation_fraction and test_fraction must leave images to train on, "
            f"got {validation_fraction} and {test_fraction}"
        )
    check_count("seed", seed)


def divide(
    layout: Layout, validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[Pair]]:
    """Divides what the folder itself does not divide into train, validation, test.

    Args:
        layout: of the folder.
        validation_fraction: see `open_folder`.
        test_fraction: see `open_folder`.
        seed: see `open_folder`.

    Returns:
        Split -> pairs, for each of the three.
    """
    pairs: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    pairs.update({split: found for split, found in layout.pairs.items() if split})
    if pairs["validation"]:
        return pairs
    undivided = sorted(
        layout.pairs.get("", pairs["train"]), key=lambda pair: _place(pair, seed)
    )
    shares = {"validation": validation_fraction}
    if "" in layout.pairs:
        shares["test"] = test_fraction
    pairs["train"] = []
    for pair in undivided:
        place, chosen = _place(pair, seed), "train"
        for split, share in shares.items():
            if 0 <= place < share:
                chosen = split
            place -= share
        pairs[chosen].append(pair)
    for split, share in shares.items():
        if share and not pairs[split] and len(pairs["train"]) > 1:
            pairs[split].append(pairs["train"].pop(0))
    return {
        split: sorted(found, key=lambda pair: pair.name)
        for split, found in pairs.items()
    }


def _place(pair: Pair, seed: int) -> float:
    """A number in [0, 1) that depends on a name alone."""
    digest = hashlib.blake2b(os.fsencode(f"{seed}/{pair.name}"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2**64
