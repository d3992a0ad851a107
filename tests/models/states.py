"""Random weights under PyTorch's names, written from the published architectures."""

from __future__ import annotations

import numpy as np

RESNETS = {
    "resnet18": (1, (2, 2, 2, 2)),
    "resnet34": (1, (3, 4, 6, 3)),
    "resnet50": (4, (3, 4, 6, 3)),
    "resnet101": (4, (3, 4, 23, 3)),
}


class State(dict):
    """Name to array, layer by layer; scaled so that values neither grow nor vanish."""

    def __init__(self, seed=0):
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def convolution(self, name, out, into, size):
        std = np.sqrt(2 / (into * size * size))
        kernel = self.rng.normal(0, std, (out, into, size, size))
        self[f"{name}.weight"] = kernel.astype(np.float32)

    def norm(self, name, channels):
        uniform, normal = self.rng.uniform, self.rng.normal
        self[f"{name}.weight"] = uniform(0.5, 1, channels).astype(np.float32)
        self[f"{name}.bias"] = normal(0, 0.3, channels).astype(np.float32)
        self[f"{name}.running_mean"] = normal(0, 0.3, channels).astype(np.float32)
        self[f"{name}.running_var"] = uniform(0.5, 2, channels).astype(np.float32)
        self[f"{name}.num_batches_tracked"] = np.array(7)

    def linear(self, name, out, into):
        self[f"{name}.weight"] = np.zeros((out, into), np.float32)
        self[f"{name}.bias"] = np.zeros(out, np.float32)


def resnet_state(backbone):
    """The state dict of torchvision and of timm, with 10 classes."""
    expansion, blocks = RESNETS[backbone]
    state = State()
    state.convolution("conv1", 64, 3, 7)
    state.norm("bn1", 64)
    into = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            name, out = f"layer{stage + 1}.{block}", width * expansion
            if expansion == 1:
                layers = [(width, into, 3), (width, width, 3)]
            else:
                layers = [(width, into, 1), (width, width, 3), (out, width, 1)]
            for i, layer in enumerate(layers, start=1):
                state.convolution(f"{name}.conv{i}", *layer)
                state.norm(f"{name}.bn{i}", layer[0])
            if block == 0 and (stage > 0 or into != out):
                state.convolution(f"{name}.downsample.0", out, into, 1)
                state.norm(f"{name}.downsample.1", out)
            into = out
    state.linear("fc", 10, into)
    return dict(state)


def efficientnet_state():
    """The state dict of EfficientNet-Lite0, with 10 classes."""
    state = State()
    state.convolution("_conv_stem", 32, 3, 3)
    state.norm("_bn0", 32)
    into, index = 32, 0
    for blocks, size, expansion, out in [
        (1, 3, 1, 16),
        (2, 3, 6, 24),
        (2, 5, 6, 40),
        (3, 3, 6, 80),
        (3, 5, 6, 112),
        (4, 5, 6, 192),
        (1, 3, 6, 320),
    ]:
        for _ in range(blocks):
            name, wide = f"_blocks.{index}", into * expansion
            if expansion > 1:
                state.convolution(f"{name}._expand_conv", wide, into, 1)
                state.norm(f"{name}._bn0", wide)
            state.convolution(f"{name}._depthwise_conv", wide, 1, size)
            state.norm(f"{name}._bn1", wide)
            state.convolution(f"{name}._project_conv", out, wide, 1)
            state.norm(f"{name}._bn2", out)
            into, index = out, index + 1
    state.convolution("_conv_head", 1280, into, 1)
    state.norm("_bn1", 1280)
    state.linear("_fc", 10, 1280)
    return dict(state)
