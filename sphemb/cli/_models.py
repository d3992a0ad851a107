"""The verb models: the networks that come with the package."""

from __future__ import annotations

import dataclasses

from sphemb._model_files import ModelCard, load_card, model_names, model_path

_TITLES = {"made_by": "made by", "limits": "bad at"}


def print_models() -> dict[str, ModelCard]:
    """Prints the card of each; returns name -> card."""
    cards = {name: load_card(name) for name in model_names()}
    for name, card in cards.items():
        size = model_path(name).stat().st_size
        print(f"{name}: {card.summary} ({size / 1e6:.1f} MB)")
        scores = ", ".join(f"{k} {v:g}" for k, v in card.scores.items())
        for field in dataclasses.fields(card)[1:]:
            fact = scores if field.name == "scores" else getattr(card, field.name)
            print(f"  {_TITLES.get(field.name, field.name)}: {fact}")
    return cards
