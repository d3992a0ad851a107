"""What may change when a run resumes: what predictions and scores alone read."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from sphemb import InputError
from sphemb.tasks import Boundaries, Instances, Picie, Proposals, Semantic, Spectral
from sphemb.training import write_config
from sphemb.training._workdir import check_workdir

B, H, W, D, K = 2, 16, 16, 4, 3
SAMPLED = {"num_samples": 32}
TASKS = [
    Proposals(**SAMPLED, num_steps=1),
    Spectral(**SAMPLED, weight_power=0.5),
    Boundaries(**SAMPLED, side_weight=1.0),
    Semantic(
        **SAMPLED,
        num_classes=K,
        class_balance=0.5,
        embedding_weight=1.0,
        embedding_groups="instances",
    ),
    Instances(
        **SAMPLED,
        num_classes=K,
        num_steps=0,
        max_groups=4,
        min_size=1,
        budgets=(1, 5),
        trimap_width=3,
    ),
    Picie(num_clusters=2, embedding_dim=D, cluster_pixels=8, start_images=2),
]
# Of `Instances` the issue is that the line of its scores is fitted to what it predicts.
FITTED = {
    *("threshold", "max_groups", "min_size", "max_components", "max_iou"),
    *("predict_steps", "predict_points", "predict_pixels", "pooled_concentrations"),
    *("fit_images", "ridge"),
}
by_name = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)


@jax.tree_util.Partial
def apply(image, mask=None):
    """Every map that some task reads, of stride 2."""
    cells = image.reshape(B, H // 2, 2, W // 2, 2, 3).mean(axis=(2, 4))
    embedding = cells @ jnp.asarray(np.random.default_rng(0).normal(size=(3, D)))
    return {
        "embedding": embedding,
        "logits": embedding[..., :K],
        "branches": (embedding,),
        "sides": image[..., :1],
        "fused": image[..., 0],
    }


def batch():
    rng = np.random.default_rng(1)
    instances = np.zeros((B, H, W), np.int32)
    instances[:, 2:8, 2:8], instances[:, 10:14, 4:12] = 1, 2
    return {
        "image": rng.uniform(size=(B, H, W, 3)).astype(np.float32),
        "instances": instances,
        "semantic": instances,
        "index": np.arange(B),
        "valid": np.ones(B, bool),
        "mask": np.ones((B, H, W), bool),
    }


def config_of(task, **changes):
    settings = {"name": type(task).__name__, **dataclasses.asdict(task), **changes}
    return ml_collections.ConfigDict({"seed": 0, "task": settings})


@by_name
def test_what_is_learned_and_remembered_depends_on_no_setting_that_may_change(task):
    read = set()

    class Watched(type(task)):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    settings = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    watched = Watched(**settings)
    read.clear()  # what is checked when it is made
    key = jax.random.key(0)
    state = watched.init(key, apply)
    state = watched.update(apply, state, [batch()], key)
    jax.eval_shape(lambda b: watched.loss(apply, state, b, key), batch())
    assert len(read & settings.keys()) >= 2
    assert not read & task.scoring_settings


@by_name
def test_a_run_resumes_with_other_scoring_settings_and_refuses_all_others(
    task, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    write_config(run, config_of(task))
    names = {field.name for field in dataclasses.fields(task)}
    assert task.scoring_settings < names
    for name in task.scoring_settings:
        check_workdir(run, config_of(task, **{name: -7.5}), task)
    for name in names - task.scoring_settings:
        with pytest.raises(InputError, match=rf"different: config\.task\.{name}\)"):
            check_workdir(run, config_of(task, **{name: -7.5}), task)
    if isinstance(task, Instances):
        assert not FITTED & task.scoring_settings
