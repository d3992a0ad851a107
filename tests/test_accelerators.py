"""Kernels and a training step, compiled for accelerators that need not be here.

Needs the extra `aot`: XLA's compilers for CUDA and TPU, and NVIDIA's assembler.
`h200.txtpb` describes the GPU as XLA's own target files do.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import pathlib
import re
import subprocess

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.experimental import topologies

import sphemb
from sphemb.grouping import _fused
from sphemb.models import DenseEmbedding

pytestmark = pytest.mark.nightly

N, SIDE = 16384, 128
WGMMA = "wgmma.mma_async"  # the matmul of Hopper's tensor cores


def need(*packages):
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install -e '.[aot]'")


@pytest.fixture(scope="module")
def own_flags():
    """XLA's flags are for the CPU of the tests; a TPU's library aborts at them."""
    jax.devices()  # has read them
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS", raising=False)
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")  # there is no server to ask
        yield


@pytest.fixture(scope="module")
def h200(own_flags):
    need("jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc")
    config = (pathlib.Path(__file__).parent / "h200.txtpb").read_text()
    settings = {"target_config": config, "topology": "1x1x1"}
    topology = topologies.get_topology_desc(platform="cuda", **settings)
    return "NVIDIA H200", 132, "gpu", topology.devices[0]


@pytest.fixture(scope="module")
def v5e(own_flags):
    need("libtpu")
    topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    return "TPU v5 lite", 1, "tpu", topology.devices[0]


def compiled(function, shapes, target, folder=None):
    """The program for a device of which a description is all that is here."""
    *kind, device = target
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes
    )
    context = contextlib.nullcontext()
    if hasattr(jax.sharding, "AbstractDevice"):  # jax 0.11 asks for it
        mesh = jax.sharding.AbstractMesh(
            (), (), abstract_device=jax.sharding.AbstractDevice(*kind)
        )
        context = jax.sharding.use_abstract_mesh(mesh)
    with context:
        lowered = jax.jit(function).lower(*arguments)
    dump = {} if folder is None else {"xla_dump_to": str(folder)}
    return lowered.compile(compiler_options=dump)


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def kernel_of(folder):
    """Registers, spilled bytes, shared bytes and assembly of the fused kernel."""
    (source,) = (
        p for p in folder.glob("*.ptx") if "entry _gpu_kernel(" in p.read_text()
    )
    (path,) = (
        p.locate()
        for p in importlib.metadata.files("nvidia-cuda-nvcc") or ()
        if p.name == "ptxas"
    )
    command = [str(path), "-v", "-arch=sm_90a", str(source), "-o", "/dev/null"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (thunks,) = folder.glob("*thunk_sequence.txt")
    shared = re.search(r"_gpu_kernel.*shared_memory: (\d+)", thunks.read_text())
    return (
        int(re.search(r"Used (\d+) registers", words)[1]),
        int(re.search(r"(\d+) bytes spill stores", words)[1]),
        int(shared[1]),
        source.read_text(),
    )


def sums(platform, dim, index):
    plan = _fused.choose_plans(platform, N, dim)[index]
    if index == 0:
        shapes = array(N, dim), array(N), array()
        return functools.partial(_fused._near_sums, plan), shapes
    shapes = array(N, dim), array(N), array(N, dim), array(N), array(N, dim), array()
    return functools.partial(_fused._pull_sums, plan), shapes


@pytest.mark.parametrize(
    ("dim", "index", "products", "kibibytes", "registers", "spilled"),
    [
        (16, 0, 16, 13, 96, 0),
        (16, 1, 34, 25, 255, 0),
        (32, 0, 20, 25, 96, 0),
        (32, 1, 44, 49, 255, 0),
        (64, 0, 28, 65, 168, 0),
        (64, 1, 52, 97, 200, 0),
        (128, 0, 44, 129, 255, 0),
        (128, 1, 92, 193, 255, 256),
    ],
)
def test_a_gpu_keeps_the_tiles_in_registers_and_multiplies_on_tensor_cores(
    h200, tmp_path, dim, index, products, kibibytes, registers, spilled
):
    compiled(*sums("cuda", dim, index), h200, tmp_path)
    used, spills, shared, text = kernel_of(tmp_path)
    assert text.count(WGMMA) == products
    assert "f32.f16.f16" in text
    assert used <= registers
    assert spills <= spilled
    assert shared <= 1024 * kibibytes


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("dim", [3, 64, 128])
def test_a_tpu_has_the_vector_memory_for_the_tiles(v5e, dim, index):
    # The compiler refuses a kernel that needs more than there is.
    text = compiled(*sums("tpu", dim, index), v5e).as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 1


@pytest.mark.parametrize(
    ("target", "implementation"),
    [("h200", "xla"), ("h200", "pallas"), ("v5e", "pallas")],  # a TPU's take minutes
)
def test_a_training_step_compiles(request, target, implementation):
    model = DenseEmbedding(backbone="resnet18", axis_name=None, dtype="bfloat16")
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def step(variables, state, image, labels):
        def loss(params):
            maps = model.apply({**variables, "params": params}, image)
            x = sphemb.sphere.l2_normalize(maps["embedding"])
            x = x.reshape(len(x), -1, x.shape[-1])
            settings = {"concentration": 25.0, "num_steps": 2}
            settings["implementation"] = implementation
            steps = sphemb.gbms_trajectory(x, **settings)
            return sphemb.trajectory_margin_loss(steps, labels, margin=0.5).mean()

        value, slope = jax.value_and_grad(loss)(variables["params"])
        changes, state = optimizer.update(slope, state)
        params = optax.apply_updates(variables["params"], changes)
        return {**variables, "params": params}, state, value

    image = array(2, SIDE, SIDE, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    state = jax.eval_shape(optimizer.init, variables["params"])
    labels = jax.ShapeDtypeStruct((2, (SIDE // 8) ** 2), jnp.int32)
    shapes = variables, state, image, labels
    program = compiled(step, shapes, request.getfixturevalue(target))
    text = program.as_text()
    kernels = len(re.findall("_gpu_kernel|tpu_custom_call", text))
    assert (kernels > 0) == (implementation == "pallas")
    assert program.memory_analysis().temp_size_in_bytes < 2**28
