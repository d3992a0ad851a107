"""PyTorch's networks, where they are installed."""

from __future__ import annotations

import functools

import pytest


def import_timm():
    """Torch and timm; the test is skipped without them."""
    torch = pytest.importorskip("torch")
    _import_torchvision(torch)
    return torch, pytest.importorskip("timm")


@functools.cache
def _import_torchvision(torch):
    """What timm is built on.

    A torch for the CPU cannot load the operators of a torchvision for CUDA, which then
    does not import. Two names stand in for them; nothing here calls them.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pytest.skip("timm needs torchvision")
    except RuntimeError:
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", signature)
