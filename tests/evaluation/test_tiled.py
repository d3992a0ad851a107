"""Tiles of an image as one: what holds exactly, and for whom."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sphemb._grid import middle_of_image
from sphemb.cli._regions import regions_of, write_outlines
from sphemb.configs import bsds
from sphemb.data import ImageWindows
from sphemb.evaluation import TiledPrediction
from sphemb.evaluation._large_network import TiledNetwork, tile_batch
from sphemb.models import pixel_coordinates
from sphemb.sphere import l2_normalize
from sphemb.tasks import Boundaries, Instances, Objects, Picie, Proposals, Semantic
from sphemb.training import Experiment, Trained
from tests.tiny import proposals_config, shrink, small_resnet

SIZE = (160, 172)
HALO = 64  # more than the network sees to each side
TILE = 144
WHOLE = 176


@pytest.fixture(scope="module", autouse=True)
def small_networks():
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Smooth blobs, whose number grows from one side to the other."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (20, 22, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("tiled") / "image.png"
    Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(path)
    return ImageWindows(path)


@pytest.fixture(scope="module")
def trained():
    """A network with a full map and repeating coordinates, as it begins."""
    config = shrink(proposals_config())
    config.model.update(decoder_stride=1, coordinate_period=96.0)
    config.model.update(num_classes=3, decoder_features=8, head_features=8)
    experiment = Experiment(config)
    state = jax.jit(experiment.init_state)()
    return Trained(experiment, state.params, (), 0, state.batch_stats)


def tiles_of(prediction, size, tile):
    return prediction.tiles(size, tile=tile, halo=HALO)


def with_task(trained, task):
    experiment = Experiment(trained.experiment.config)
    experiment.__dict__["task"] = task
    return dataclasses.replace(trained, experiment=experiment)


def embedded(apply, image, tile):
    batch = tile_batch(image, tile)
    return apply(batch["image"], batch["mask"])["embedding"][0]


class TestNetwork:
    def test_a_tile_is_embedded_as_the_whole_image_is(self, trained, image):
        network = TiledNetwork(trained)
        prediction = TiledPrediction(trained)
        tiles = tiles_of(prediction, SIZE, TILE)
        moments = network.moments(image, tiles, lambda tiles, _: tiles)
        (whole,) = tiles_of(prediction, SIZE, WHOLE)
        reference = embedded(trained.apply, image, whole)
        scale = float(jnp.abs(reference).max())
        for tile in tiles:
            found = embedded(network.at(tile, SIZE, moments), image, tile)
            core = tile.core.within(tile.outer).slices
            np.testing.assert_allclose(
                found[core], reference[tile.core.slices], atol=2e-4 * scale
            )
        # With the tile's own moments it is not.
        alone = embedded(trained.apply, image, tiles[0])
        core = tiles[0].core.slices
        assert float(jnp.abs(alone[core] - reference[core]).max()) > 0.01 * scale


class TestOthers:
    @pytest.mark.nightly
    def test_classes_are_cut_and_put_side_by_side(self, trained, image):
        prediction = TiledPrediction(
            with_task(trained, Semantic(num_classes=3)), sample_tiles=None
        )
        (whole,) = tiles_of(prediction, SIZE, WHOLE)
        reference = prediction.predict(image, [whole])["classes"]
        tiles = tiles_of(prediction, SIZE, TILE)
        found = prediction.predict(image, tiles)["classes"]
        assert len(np.unique(reference)) > 1
        # But for pixels that rounding decides.
        assert np.mean(found != reference) < 1e-4

    def test_groups_of_tiles_are_one_map(self, trained, tmp_path):
        size = (48, 64)
        pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = tmp_path / "squares.png"
        Image.fromarray(pixels).resize(size[::-1], Image.Resampling.NEAREST).save(path)
        task = Proposals(num_steps=0, concentration=25.0, predict_steps=2, max_groups=8)
        experiment = with_task(trained, task).experiment
        experiment.__dict__["model"] = Colours()
        prediction = TiledPrediction(Trained(experiment, {}, (), 0, {}))
        tiles = prediction.tiles(size, tile=32, halo=8)
        assert len(tiles) > 4
        image = ImageWindows(path)
        found = prediction.predict(image, tiles, min_size=30, embedding=True)
        labels = found["labels"]
        assert labels.shape == size
        sizes = np.bincount(labels.ravel())[1:]
        assert len(sizes) > 1
        assert (sizes >= 30).all()
        assert (np.diff(sizes) <= 0).all()
        lengths = np.linalg.norm(found["embedding"].astype(np.float32), axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=2e-3)

    def test_coordinates_that_never_repeat_make_a_tile_an_image(self, trained):
        config = trained.experiment.config.copy_and_resolve_references()
        config.model.coordinate_period = None
        experiment = Experiment(config)
        other = dataclasses.replace(trained, experiment=experiment)
        assert TiledNetwork(trained).whole
        assert not TiledNetwork(other).whole
        assert TiledNetwork(other).moments(None, [], None) == {}


@pytest.fixture(scope="module")
def branched():
    """A network of boundaries, of which no weight is as it begins.

    It sees 28 pixels to each side; at the start its blocks are shortcuts and see less.
    """
    config = shrink(bsds.get_config("r50"))
    config.model.update(
        branches=("stem", "stage1"), output_stride=4, embedding_dim=3, head_features=8
    )
    experiment = Experiment(config)
    state = experiment.init_state()
    leaves, tree = jax.tree.flatten(state.params)
    rng = np.random.default_rng(1)
    moved = [leaf + 0.2 * rng.normal(size=leaf.shape) for leaf in leaves]
    params = jax.tree.unflatten(tree, [jnp.asarray(x, jnp.float32) for x in moved])
    return Trained(experiment, params, (), 0, state.batch_stats)


@pytest.mark.nightly
def test_boundaries_are_cut_and_put_side_by_side(branched, image, tmp_path):
    assert isinstance(branched.experiment.task, Boundaries)
    Image.fromarray(image.whole()[:96, :112]).save(tmp_path / "corner.png")
    corner = ImageWindows(tmp_path / "corner.png")
    prediction = TiledPrediction(branched, sample_tiles=None)
    (whole,) = prediction.tiles(corner.size, tile=112, halo=32)
    reference = prediction.predict(corner, [whole])["boundary"]
    tiles = prediction.tiles(corner.size, tile=80, halo=32)
    assert len(tiles) == 6
    found = prediction.predict(corner, tiles)["boundary"]
    assert reference.std() > 0.01
    np.testing.assert_allclose(found, reference, atol=2e-4)


@pytest.mark.nightly
def test_clusters_are_cut_and_put_side_by_side(trained, image):
    task = Picie(num_clusters=5, embedding_dim=4, num_classes=5, num_things=1)
    learned = with_task(trained, task)
    (whole,) = tiles_of(TiledPrediction(learned), SIZE, WHOLE)
    vectors = embedded(trained.apply, image, whole)[None]
    rng = np.random.default_rng(2)
    places = rng.integers(0, min(SIZE), (2, 2, 5))
    centroids = jnp.stack([vectors[0][tuple(place)] for place in places])
    task_state = task.init(jax.random.key(0), trained.apply)
    task_state = task_state._replace(centroids=(l2_normalize(centroids),))
    learned = dataclasses.replace(learned, task_state=task_state)
    prediction = TiledPrediction(learned, sample_tiles=None)
    reference = prediction.predict(image, [whole])["labels"]
    found = prediction.predict(image, tiles_of(prediction, SIZE, TILE))["labels"]
    assert len(np.unique(reference)) > 2
    assert found.min() >= 1
    # But for pixels that rounding decides.
    assert np.mean(found != reference) < 1e-4


class Colours(nn.Module):
    """Says of a pixel what its own colour is, and so the same in every tile."""

    stride: int = 4
    shiftable: bool = True

    def __call__(self, image, *, train=False):
        black = 1 - image.max(axis=-1, keepdims=True)
        colours = jnp.concatenate([black, image], axis=-1)
        return {"embedding": colours, "logits": 4 * colours}


class Places(nn.Module):
    """Says of a pixel how far from its image's middle it is, and reads nothing."""

    stride: int = 1
    shiftable: bool = True

    def __call__(self, image, *, train=False, mask=None, middle=None):
        if middle is None:
            middle = middle_of_image(mask)
        found = pixel_coordinates(*image.shape[1:3], unit=64.0, middle=middle)
        found = jnp.broadcast_to(found, (*image.shape[:3], 2))
        return {
            "embedding": jnp.concatenate([found, 0.5 + 0 * found[..., :1]], axis=-1)
        }


def test_a_tile_at_another_scale_has_the_coordinates_of_its_image(trained, tmp_path):
    size = (64, 128)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "black.png")
    image = ImageWindows(tmp_path / "black.png")
    task = Picie(
        num_clusters=9,
        embedding_dim=3,
        num_classes=9,
        num_things=1,
        predict_scale=0.5,
        scale_multiple=8,
    )
    experiment = with_task(trained, task).experiment
    experiment.__dict__["model"] = Places()
    offsets = np.linspace(-0.45, 0.45, 9)
    centers = np.stack([0 * offsets, offsets, 0 * offsets + 0.5], axis=-1)
    centers = l2_normalize(jnp.asarray(centers, jnp.float32))
    task_state = task.init(jax.random.key(0), None)
    task_state = task_state._replace(centroids=(jnp.stack([centers, centers]),))
    prediction = TiledPrediction(Trained(experiment, {}, task_state, 0, {}))
    whole, tiled = (
        prediction.predict(image, prediction.tiles(size, tile=tile, halo=16))["labels"]
        for tile in (128, 64)
    )
    assert len(np.unique(whole)) > 4
    np.testing.assert_array_equal(tiled, whole)


class Displacements(nn.Module):
    """Reads a displacement of up to 16 pixels, and the foreground, from the colors."""

    stride: int = 4
    shiftable: bool = True

    def __call__(self, image, *, train=False):
        radians = 2 * np.pi / 96.0
        moved = (255 * image[..., :2] - 128) / 8 * radians
        return {"embedding": moved, "logits": 20 * image[..., 2:] - 10}


def measured(labels, image, folder):
    """Rows and outlines of a label map, sorted, without the numbers."""
    write_outlines(folder / "x.geojson", labels)
    features = json.loads((folder / "x.geojson").read_text())["features"]
    regions = regions_of(labels, image.intensities)
    rows = [(region.row[1:], region.runs) for region in regions]
    return sorted(map(repr, rows)), sorted(repr(f["geometry"]) for f in features)


def test_objects_of_tiles_are_those_of_the_image(trained, tmp_path):
    """Discs that touch in rows, over many seams; halos are wider than they are."""
    size, side = (96, 120), 12
    rows, columns = np.mgrid[: size[0], : size[1]]
    center = np.stack([rows // side, columns // side], axis=-1) * side + side // 2
    away = center - np.stack([rows, columns], axis=-1)
    inside = (away**2).sum(axis=-1) <= (side // 2) ** 2
    blue = np.where(inside, 255, 0)[..., None]
    pixels = np.concatenate([8 * away + 128, blue], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "discs.png")
    image = ImageWindows(tmp_path / "discs.png")
    experiment = with_task(trained, Objects(min_size=5, mirrors=False)).experiment
    experiment.__dict__["model"] = Displacements()
    prediction = TiledPrediction(Trained(experiment, {}, (), 0, {}))
    whole, tiled = (
        prediction.predict(image, prediction.tiles(size, tile=tile, halo=16))["labels"]
        for tile in (128, 48)
    )
    # And so are their tables and outlines, but for the numbers of equal areas.
    assert measured(whole, image, tmp_path) == measured(tiled, image, tmp_path)
    assert len(prediction.tiles(size, tile=48, halo=16)) > 20
    assert whole.max() == (96 // side) * (120 // side)
    np.testing.assert_array_equal(tiled > 0, whole > 0)
    pairs = np.unique(np.stack([whole.ravel(), tiled.ravel()]), axis=1)
    assert pairs.shape[1] == 1 + whole.max() == 1 + tiled.max()


@pytest.mark.nightly
def test_instances_of_tiles_are_those_of_the_image_where_groups_are_clear(
    trained, tmp_path
):
    size = (96, 128)
    pixels = np.zeros((*size, 3), np.uint8)
    boxes = [
        (slice(4, 20), slice(4, 28), 0),
        (slice(30, 40), slice(10, 118), 1),  # over three seams
        (slice(44, 90), slice(60, 68), 0),
        (slice(50, 60), slice(90, 100), 2),
        (slice(70, 80), slice(100, 120), 2),
    ]
    for rows, columns, channel in boxes:
        pixels[rows, columns, channel] = 255
    Image.fromarray(pixels).save(tmp_path / "boxes.png")
    image = ImageWindows(tmp_path / "boxes.png")
    task = Instances(
        num_steps=0,
        concentration=20.0,
        predict_steps=4,
        max_groups=8,
        max_components=16,
        num_classes=4,
        min_score=0.0,
    )
    experiment = with_task(trained, task).experiment
    experiment.__dict__["model"] = Colours()
    task_state = task.init(jax.random.key(0), None)
    prediction = TiledPrediction(Trained(experiment, {}, task_state, 0, {}))
    found = {
        tile: prediction.predict(image, prediction.tiles(size, tile=tile, halo=8))
        for tile in (128, 48)
    }
    assert len(prediction.tiles(size, tile=48, halo=8)) == 12
    for tile in found.values():
        np.testing.assert_array_equal(
            tile["classes"], pixels.argmax(-1) + pixels.any(-1)
        )
        assert tile["labels"].max() == len(boxes)
        for rows, columns, channel in boxes:
            (label,) = np.unique(tile["labels"][rows, columns])
            assert (
                np.sum(tile["labels"] == label) == pixels[rows, columns].any(-1).sum()
            )
            assert tile["instance_classes"][label - 1] == channel + 1
    whole, tiled = (
        np.concatenate([[0], f["instance_scores"]])[f["labels"]] for f in found.values()
    )
    np.testing.assert_allclose(tiled, whole, atol=1e-4)
