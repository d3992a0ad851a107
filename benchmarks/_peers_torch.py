"""What a PyTorch user would write: dense autograd, and the fused attention.

Runs where JAX runs: on CUDA if JAX's default backend is a GPU, else on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize, scaled_dot_product_attention

from benchmarks._cases import FORWARD, GRADIENT, LOSS, Case, Inputs
from benchmarks._peers import Peer, Program

_CUDA = jax.default_backend() == "gpu" and torch.cuda.is_available()
_DEVICE = torch.device("cuda" if _CUDA else "cpu")

Mean = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _dense_mean(x: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    return torch.softmax(kappa * (x @ x.T), dim=-1) @ x


def _fused_mean(x: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    # kappa scales the queries, not `scale`, so that it gets a gradient.
    query, key = (kappa * x)[None, None], x[None, None]
    return scaled_dot_product_attention(query, key, key, scale=1.0)[0, 0]


def _flash() -> contextlib.AbstractContextManager[Any]:
    # In float32 CUDA has no flash kernel: there PyTorch chooses the best it has.
    return (
        contextlib.nullcontext() if _CUDA else sdpa_kernel(SDPBackend.FLASH_ATTENTION)
    )


def _move(
    mean: Mean, x: torch.Tensor, kappa: torch.Tensor, eta: torch.Tensor, num_steps: int
) -> torch.Tensor:
    for _ in range(num_steps):
        x = normalize((1.0 - eta) * x + eta * mean(x, kappa), dim=-1)
    return x


def _tensor(value: Any, *, learned: bool = False) -> torch.Tensor:
    tensor = torch.as_tensor(value, device=_DEVICE)
    if learned:
        tensor = tensor.to(torch.float32).requires_grad_()
    return tensor


def _program(function: Callable[[], tuple[torch.Tensor, ...]]) -> Program:
    def call() -> tuple[torch.Tensor, ...]:
        outputs = function()
        if _CUDA:
            torch.cuda.synchronize()
        return outputs

    return Program(call, read=lambda output: output.detach().cpu().numpy())


def _forward(mean: Mean, case: Case, inputs: Inputs) -> Program:
    numbers = (inputs.points, inputs.concentration, inputs.step_size)
    x, kappa, eta = (_tensor(number) for number in numbers)

    def run() -> tuple[torch.Tensor]:
        with torch.no_grad(), _flash():
            return (_move(mean, x, kappa, eta, case.num_steps),)

    return _program(run)


def _gradient(mean: Mean, case: Case, inputs: Inputs) -> Program:
    numbers = (inputs.points, inputs.concentration, inputs.step_size)
    x, kappa, eta = (_tensor(number, learned=True) for number in numbers)
    cotangent = _tensor(inputs.cotangent)

    def run() -> tuple[torch.Tensor, ...]:
        with _flash():
            moved = _move(mean, x, kappa, eta, case.num_steps)
            return torch.autograd.grad(moved, (x, kappa, eta), cotangent)

    return _program(run)


def _loss_gradient(case: Case, inputs: Inputs) -> Program:
    x = _tensor(inputs.points, learned=True)
    labels, weights = _tensor(inputs.labels), _tensor(inputs.weights)

    def run() -> tuple[torch.Tensor, ...]:
        similarity = 0.5 * (1.0 + x @ x.T)
        same = labels[:, None] == labels
        excess = torch.relu(similarity - inputs.margin)
        pairs = torch.where(same, 1.0 - similarity, excess)
        loss = weights @ (pairs @ weights) / case.num_points
        return (loss, *torch.autograd.grad(loss, (x,)))

    return _program(run)


def _kinds(mean: Mean) -> dict[str, Callable[[Case, Inputs], Program]]:
    return {
        FORWARD: functools.partial(_forward, mean),
        GRADIENT: functools.partial(_gradient, mean),
    }


def _dense_matrices(case: Case) -> int:
    return {FORWARD: 3, GRADIENT: 3 + 3 * case.num_steps, LOSS: 12}[case.kind]


PEERS = (
    Peer(
        name="torch",
        about="dense PyTorch with `softmax`, differentiated by autograd",
        kinds=_kinds(_dense_mean) | {LOSS: _loss_gradient},
        matrices=_dense_matrices,
        any_points=False,
    ),
    Peer(
        name="torch SDPA",
        about=(
            "PyTorch's `scaled_dot_product_attention` with queries kappa x (the flash "
            "kernel on CPUs)"
        ),
        kinds=_kinds(_fused_mean),
    ),
)
