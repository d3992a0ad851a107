"""The task of many objects of one kind, on maps that are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.sphere import l2_normalize
from sphemb.tasks import Objects
from tests.references import losses as reference

H, W, SIDE = 16, 24, 8
PERIODS = (16.0, 8.0)
TASK = Objects(
    periods=PERIODS,
    window=SIDE,
    num_samples=SIDE**2,
    bandwidth=1.0,
    min_size=3,
    mirrors=False,
)


def labels_of_two_images():
    """Bands of four columns that touch, a void corner; and one object alone."""
    bands = np.broadcast_to(np.arange(W) // 4, (H, W)).copy()
    bands[:3, :3] = VOID
    alone = np.zeros((H, W), int)
    alone[5:9, 10:14] = 7
    return np.stack([bands, alone]).astype(np.int32)


@pytest.fixture(scope="module")
def batch():
    labels = labels_of_two_images()
    return {
        "image": jnp.zeros((2, H, W, 3)),
        "instances": jnp.asarray(labels),
        "valid": jnp.array([True, True]),
        "index": jnp.arange(2),
    }


def drawn_maps():
    rng = np.random.default_rng(0)
    moved, logits = rng.normal(size=(2, H, W, 2)), rng.normal(size=(2, H, W, 1))
    return {"embedding": jnp.asarray(moved, "f4"), "logits": jnp.asarray(logits, "f4")}


def perfect_maps():
    """Every pixel of an object points at its center, with a certain foreground."""
    labels = labels_of_two_images()
    own = np.stack(np.mgrid[:H, :W], axis=-1).astype(float)
    moved = np.zeros((2, H, W, 2))
    for image, number in {
        (i, n)
        for i, n in zip(
            *np.unique(np.stack([np.repeat([0, 1], H * W), labels.ravel()]), axis=1),
            strict=True,
        )
    }:
        inside = labels[image] == number
        moved[image][inside] = own[inside].mean(axis=0) - own[inside]
    logits = np.where(labels > 0, 9.0, -9.0)[..., None]
    moved *= 2 * np.pi / PERIODS[0]
    return {"embedding": jnp.asarray(moved, "f4"), "logits": jnp.asarray(logits, "f4")}


def predict(task, maps, batch):
    """A prediction from these maps, whatever the images; compiled once."""
    run = jax.jit(lambda maps, batch: task.predict(lambda *_, **__: maps, (), batch))
    return run(maps, batch)


@jax.jit
def loss_of(maps, batch):
    return TASK.loss(lambda *_: maps, (), batch, jax.random.key(0))


def test_the_loss_is_that_of_the_windows(batch):
    maps = drawn_maps()
    task = TASK
    loss, terms = loss_of(maps, batch)

    labels = labels_of_two_images()
    own = np.stack(np.mgrid[:H, :W], axis=-1)
    first = 2 * np.pi / PERIODS[0] * own + np.asarray(maps["embedding"], float)
    angles = np.concatenate([first, 2 * first], axis=-1)
    vectors = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1) / 2
    apart, foreground = [], []
    for i in range(2):
        for top in range(0, H, SIDE):
            for left in range(0, W, SIDE):
                window = np.s_[i, top : top + SIDE, left : left + SIDE]
                inside = labels[window] > 0
                if not inside.any():
                    apart.append(0.0)
                    continue
                with np.errstate(invalid="ignore"):  # no pairs of two instances
                    terms_of_window = reference.margin_loss_terms(
                        vectors[window][inside],
                        labels[window][inside],
                        margin=task.margin,
                        normalize="terms",
                    )
                apart.append(np.nansum(terms_of_window))
        logits = np.asarray(maps["logits"], float)[i, ..., 0]
        true = labels[i] > 0
        costs = np.logaddexp(0, np.where(true, -logits, logits))
        weights = np.where(labels[i] == VOID, 0.0, 1.0)
        for row in range(H):
            for column in range(W):
                near = labels[i][
                    max(row - task.gap, 0) : row + task.gap + 1,
                    max(column - task.gap, 0) : column + task.gap + 1,
                ]
                if len(set(near[near > 0])) > 1:
                    weights[row, column] *= task.gap_weight
        foreground.append((weights * costs).sum() / weights.sum())
    np.testing.assert_allclose(terms["loss/positions"], np.mean(apart), rtol=1e-4)
    np.testing.assert_allclose(terms["loss/foreground"], np.mean(foreground), rtol=1e-5)
    total = np.mean(foreground) + task.position_weight * np.mean(apart)
    np.testing.assert_allclose(loss, total, rtol=1e-4)


def test_objects_that_touch_are_found_and_scored(batch):
    maps = perfect_maps()
    found = predict(TASK, maps, batch)
    assert found.num_groups.tolist() == [6, 2]  # with the background
    labels = labels_of_two_images()
    for i in range(2):
        pairs = set(
            zip(labels[i].ravel(), found.labels[i].ravel().tolist(), strict=True)
        )
        valid = {(int(t), p) for t, p in pairs if t > 0}
        assert (
            len(valid)
            == len({p for _, p in valid})
            == len(np.unique(labels[i])) - (2 if i == 0 else 1)
        )
    np.testing.assert_allclose(
        l2_normalize(found.embedding), found.embedding, atol=1e-6
    )
    assert not found.reached["max_groups"].any()
    scores = {}
    for metric in jax.jit(TASK.metrics)(found, batch).values():
        scores |= metric.compute()
    assert scores["matched_precision"] == 1.0


@pytest.mark.parametrize("diameter", [None, 8.0])
def test_doubtful_objects_are_background(batch, diameter):
    """The band in the middle is left out, and no neighbor grows into it."""
    maps, labels = perfect_maps(), labels_of_two_images()
    maps["logits"] = jnp.where(labels[..., None] == 3, 0.5, maps["logits"])
    seen = {**batch, "mask": jnp.ones((2, H, W), bool)}
    if diameter:  # at half the size
        maps = {name: value[:, ::2, ::2] for name, value in maps.items()}
        maps["embedding"] /= 2
    task = dataclasses.replace(
        TASK,
        diameter=diameter,
        bandwidth=0.5,
        seen_diameter=4.0 if diameter else 8.0,
        scale_multiple=1,
    )
    found = predict(task, maps, seen)
    assert found.num_groups.tolist() == [5, 2]
    assert (np.asarray(found.labels)[labels == 3] == 0).all()
    every = dataclasses.replace(task, min_score=0.0)
    assert predict(every, maps, seen).num_groups.tolist() == [6, 2]


def test_mirror_images_are_turned_back(batch):
    """A network whose output moves with the image gives the same, mirrored or not."""
    rng = np.random.default_rng(1)
    image = jnp.asarray(rng.uniform(size=(2, H, W, 3)), jnp.float32)

    def apply(image, mask=None):
        # Half a difference of neighbors turns with the image; a sum does not.
        padded = jnp.pad(image[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
        down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
        right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
        return {
            "embedding": jnp.stack([down, right], axis=-1),
            "logits": 8 * (image[..., 1:2] - 0.5),
        }

    seen = {**batch, "image": image, "mask": jnp.ones((2, H, W), bool)}
    mirrors = dataclasses.replace(TASK, mirrors=True)
    plain, mirrored = jax.jit(
        lambda seen: [task.predict(apply, (), seen) for task in (TASK, mirrors)]
    )(seen)
    np.testing.assert_allclose(mirrored.embedding, plain.embedding, atol=1e-5)
    np.testing.assert_array_equal(mirrored.num_groups, plain.num_groups)


def test_padding_is_void_and_the_limit_is_told(batch):
    maps = perfect_maps()
    mask = np.ones((2, H, W), bool)
    mask[:, :, 16:] = False
    few = dataclasses.replace(TASK, max_groups=2)
    found = predict(few, maps, {**batch, "mask": jnp.asarray(mask)})
    assert (np.asarray(found.labels)[~mask] == VOID).all()
    assert found.num_groups.tolist() == [3, 2]
    assert found.reached["max_groups"].tolist() == [True, False]


def test_an_image_without_objects_has_a_finite_loss_and_gradient(batch):
    empty = {**batch, "instances": jnp.zeros_like(batch["instances"])}
    loss = jax.jit(jax.value_and_grad(lambda maps: loss_of(maps, empty)[0]))
    value, slopes = loss(drawn_maps())
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
    assert not np.any(slopes["embedding"])


def test_wrong_sizes_are_named(batch):
    def trace(task, maps):
        jax.eval_shape(lambda: task.loss(lambda *_: maps, (), batch, jax.random.key(0)))

    maps = drawn_maps()
    with pytest.raises(InputError, match=r"window must divide .* 16 and 24, got 5"):
        trace(Objects(window=5), maps)
    three = {**maps, "embedding": np.zeros((2, H, W, 3), np.float32)}
    with pytest.raises(InputError, match=r"embedding_dim 2.* got 3 and 1"):
        trace(TASK, three)


@pytest.mark.parametrize(
    ("diameter", "enlarge", "scale"),
    [(None, True, 1), (4, True, 4), (4, False, 1), (64, True, 0.25), (64, False, 0.25)],
)
def test_images_are_resized_to_the_size_of_objects(diameter, enlarge, scale):
    task = Objects(diameter=diameter, seen_diameter=16.0, enlarge=enlarge)
    assert task.image_scale == scale
