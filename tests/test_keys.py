"""Every public function with a random key takes typed and legacy keys alike."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sphemb
from sphemb import InputError
from sphemb.grouping import init_centroids, kwik_cluster, orthogonal_rounding
from sphemb.losses import sample_pixels
from sphemb.sphere import l2_normalize
from sphemb.tasks import (
    Boundaries,
    Instances,
    Objects,
    Picie,
    Proposals,
    Semantic,
    Spectral,
)
from sphemb.training import TrainState, make_train_step
from sphemb.warps import sample_geometric, sample_photometric

B, N, D = 2, 16, 4
_RNG = np.random.default_rng(0)
POINTS = l2_normalize(jnp.asarray(_RNG.normal(size=(B, N, D)), jnp.float32))
BATCH = {
    "image": jnp.asarray(_RNG.uniform(size=(B, 8, 8, 3)), jnp.float32),
    "instances": jnp.asarray(_RNG.integers(-1, 3, (B, 8, 8)), jnp.int32),
    "semantic": jnp.asarray(_RNG.integers(-1, 3, (B, 8, 8)), jnp.int32),
    "boundaries": jnp.asarray(_RNG.integers(0, 2, (B, 1, 8, 8)), jnp.int8),
    "mask": jnp.ones((B, 8, 8), bool),
    "valid": jnp.ones(B, bool),
    "index": jnp.arange(B),
}
KERNEL = jnp.asarray(_RNG.normal(size=(3, D)), jnp.float32)


@jax.tree_util.Partial
def apply(image, mask=None):
    """Maps of stride 1 for every task, without parameters."""
    embedding = (image - 0.5) @ KERNEL
    return {
        "embedding": embedding,
        "logits": embedding,
        "branches": (embedding,),
        "fused": embedding[..., 0],
        "sides": embedding[..., :1],
    }


@jax.tree_util.Partial
def apply_flat(image, mask=None):
    """The same with displacements in the plane."""
    maps = apply(image, mask)
    flat = {"embedding": maps["embedding"][..., :2], "logits": maps["logits"][..., :1]}
    return {**maps, **flat}


TASKS = [
    Boundaries(num_samples=16),
    Instances(num_samples=16, num_classes=4, num_steps=1),
    Objects(num_samples=16, window=8),
    Proposals(num_samples=16, num_steps=1),
    Semantic(num_samples=16, num_classes=4),
    Spectral(num_samples=16),
    Picie(
        num_clusters=3,
        num_classes=3,
        embedding_dim=D,
        cluster_pixels=8,
        start_images=2,
        start_steps=1,
    ),
]


def task_calls(task):
    """The methods of a task that take a key, by name."""
    name = type(task).__name__

    def update(key):
        state = task.init(jax.random.key(5), apply)
        if not isinstance(task, Picie):
            return task.update(apply, state, [], key)
        return task.update(apply, state, [BATCH], key)

    def loss(key):
        state = task.init(jax.random.key(5), apply)
        network = apply_flat if isinstance(task, Objects) else apply
        return jax.jit(task.loss)(network, state, BATCH, key)

    return {
        f"{name}.init": lambda key: task.init(key, apply),
        f"{name}.update": update,
        f"{name}.loss": loss,
    }


def first_step(key):
    task = TASKS[-2]
    sgd = optax.sgd(0.1)
    params = {"a": jnp.ones(())}
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats={},
        opt_state=sgd.init(params),
        task_state=task.init(key, apply),
    )

    def network(params, batch_stats, image, mask):
        maps = apply(image * params["a"])
        return maps, batch_stats

    step = make_train_step(task, network, sgd, key)
    batch = jax.tree.map(lambda leaf: leaf[None], BATCH)
    return jax.pmap(step, "batch")(jax.tree.map(lambda leaf: leaf[None], state), batch)


DRAWS = {
    "sample_pixels": lambda key: sample_pixels(
        key, BATCH["instances"].reshape(B, -1), num_samples=9
    ),
    "init_centroids": lambda key: [
        init_centroids(key, POINTS[0], num_clusters=3, method=method)
        for method in ("k-means++", "random")
    ],
    "kwik_cluster": lambda key: kwik_cluster(key, POINTS, max_groups=4, num_orders=2),
    "orthogonal_rounding": lambda key: orthogonal_rounding(key, POINTS, num_starts=2),
    "sample_geometric": sample_geometric,
    "sample_photometric": sample_photometric,
}
CALLS = DRAWS | {
    "make_train_step": first_step,
    **{name: call for task in TASKS for name, call in task_calls(task).items()},
}


def functions_with_a_key():
    """The names of all public functions, and methods of classes, that take a key."""
    for package in pkgutil.iter_modules(sphemb.__path__, "sphemb."):
        module = importlib.import_module(package.name)
        for name in getattr(module, "__all__", ()):
            found = {name: getattr(module, name)}
            if inspect.isclass(found[name]):
                methods = inspect.getmembers(found[name], inspect.isfunction)
                found |= {f"{name}.{method}": value for method, value in methods}
            for path, function in found.items():
                hidden = path.rpartition(".")[2].startswith("_")
                if not inspect.isroutine(function) or hidden:
                    continue
                if "key" in inspect.signature(function).parameters:
                    yield path


def test_every_function_with_a_key_is_tried():
    protocol = {f"Task.{name}" for name in ("init", "update", "loss")}
    protocol |= {"Stateless.init", "Stateless.update"}  # which do nothing
    assert set(functions_with_a_key()) - protocol == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_legacy_keys_give_what_typed_keys_give(name):
    typed, legacy = (
        CALLS[name](kind(7)) for kind in (jax.random.key, jax.random.PRNGKey)
    )
    leaves = (jax.tree.leaves(tree) for tree in (typed, legacy))
    for one, other in itertools.zip_longest(*leaves):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(
    ("key", "words"),
    [
        (7, "key must be a random key, got int: jax.random.key"),
        (np.zeros(2), r"key must be a random key, got float64 \(2,\)"),
        (np.zeros(3, np.uint32), r"key must be a random key, got uint32 \(3,\)"),
        (
            jax.random.split(jax.random.key(0)),
            r"key must be one .* got \(2,\): use jax.vmap",
        ),
    ],
)
def test_what_is_no_key_is_named(name, key, words):
    with pytest.raises(InputError, match=words):
        CALLS[name](key)
