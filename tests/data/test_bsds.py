"""BSDS500: every annotator kept, what is learned stated, no curve broken."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image
from scipy import ndimage

from sphemb._checks import InputError, InputTypeError
from sphemb.data import (
    DATASETS,
    BoundaryDataset,
    BoundaryExamples,
    BsdsBoundaries,
    FileError,
    ImageAugmentation,
    PadExample,
    SkippingSource,
    _bsds,
    boundary_target,
    make_loader,
    prepare_bsds,
    read_boundaries,
)

WIDE, TALL = (8, 12), (12, 8)
# split -> name -> size and number of annotators
DRAWN = {
    "train": {"100": (WIDE, 2), "101": (TALL, 4), "102": (WIDE, 3)},
    "val": {"200": (TALL, 3)},
    "test": {"300": (WIDE, 1), "301": (WIDE, 3)},
}
EIGHT = np.ones((3, 3), int)


def draw(name, size, annotators):
    rng = np.random.default_rng(int(name))
    return rng.random((annotators, *size)) < 0.3


def write_truth(path, maps):
    """A cell array of structures, as MATLAB writes the ground truth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.empty((1, len(maps)), object)
    for a, boundaries in enumerate(maps):
        regions = ndimage.label(~boundaries.astype(bool))[0].astype(np.uint16)
        cells[0, a] = {"Segmentation": regions, "Boundaries": boundaries}
    scipy.io.savemat(path, {"groundTruth": cells}, do_compression=True)


def write_tree(root):
    for folder, names in DRAWN.items():
        for name, (size, annotators) in names.items():
            pixels = np.random.default_rng(int(name)).integers(256, size=(*size, 3))
            image = root / f"images/{folder}/{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(image)
            maps = draw(name, size, annotators).astype(np.uint8)
            write_truth(root / f"groundTruth/{folder}/{name}.mat", maps)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("bsds") / "tree")


@pytest.fixture(scope="module")
def prepared_dir(tree, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    prepare_bsds(bsds_dir=tree, data_dir=data_dir)
    return data_dir


@pytest.fixture
def opened(tree, prepared_dir):
    def opened(**settings):
        return BoundaryDataset(bsds_dir=tree, data_dir=prepared_dir, **settings)

    return opened


def name_of(**settings):
    return BsdsBoundaries(**settings).builder_config.name


def names_of(source):
    return [source[i]["name"] for i in range(len(source))]


class TestFiles:
    def test_every_annotators_map_is_read_as_it_was_drawn(self, tree):
        for folder, names in DRAWN.items():
            for name, (size, annotators) in names.items():
                found = read_boundaries(tree / f"groundTruth/{folder}/{name}.mat")
                assert found.dtype == bool
                np.testing.assert_array_equal(found, draw(name, size, annotators))

    def test_maps_of_truth_values_and_an_upright_cell_array_will_do(self, tmp_path):
        maps = draw("1", WIDE, 2)
        cells = np.empty((2, 1), object)
        for a in range(2):
            cells[a, 0] = {"Boundaries": maps[a]}
        scipy.io.savemat(tmp_path / "a.mat", {"groundTruth": cells})
        np.testing.assert_array_equal(read_boundaries(tmp_path / "a.mat"), maps)

    def refuses(self, path, message):
        with pytest.raises(FileError, match=message) as caught:
            read_boundaries(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path):
        self.refuses(tmp_path / "a.mat", "cannot be read: No such file")

    def test_a_file_cut_short_anywhere_is_refused(self, tree, tmp_path):
        data = (tree / "groundTruth/train/100.mat").read_bytes()
        for kept in (0, 1, 100, 128, 130, 140, len(data) // 2, len(data) - 1):
            path = tmp_path / f"{kept}.mat"
            path.write_bytes(data[:kept])
            self.refuses(path, "cannot be read as a ground truth of BSDS500: ")

    def test_a_damaged_file_is_refused_or_still_gives_maps(self, tree, tmp_path):
        data = (tree / "groundTruth/train/100.mat").read_bytes()
        rng, path, lines = np.random.default_rng(0), tmp_path / "damaged.mat", []
        for _ in range(200):
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(bytes(damaged))
            try:
                assert read_boundaries(path).ndim == 3
            except FileError as error:
                lines.append(str(error))
        assert lines
        assert not any("\n" in line for line in lines)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"GTcls": np.zeros(3)}, "it has no groundTruth, but GTcls"),
            ({}, "it has no groundTruth, but nothing"),
            ({"groundTruth": np.zeros((2, 2))}, "cannot be read as a ground truth"),
            ({"groundTruth": {"Boundaries": np.zeros((2, 2))}}, "must be a cell array"),
            ({"groundTruth": np.empty((1, 0), object)}, r"of one size, got none"),
        ],
    )
    def test_a_mat_of_something_else_is_refused(self, tmp_path, content, message):
        scipy.io.savemat(tmp_path / "a.mat", content)
        self.refuses(tmp_path / "a.mat", message)

    def test_text_is_no_mat(self, tmp_path):
        (tmp_path / "a.mat").write_text("boundaries\n" * 100)
        self.refuses(tmp_path / "a.mat", "cannot be read as a ground truth of BSDS500")

    def test_maps_of_several_sizes_are_refused(self, tmp_path):
        maps = [np.zeros(WIDE, np.uint8), np.zeros(TALL, np.uint8)]
        write_truth(tmp_path / "a.mat", maps)
        self.refuses(tmp_path / "a.mat", r"one size, got \[\(8, 12\), \(12, 8\)\]")


class TestTarget:
    def test_votes_decide_as_counting_them_says(self):
        drawn = draw("7", TALL, 5)
        for consensus in (1, 2, 3, 5, 9):
            found = boundary_target(drawn, consensus=consensus)
            for row, column in np.ndindex(TALL):
                votes = sum(bool(one[row, column]) for one in drawn)
                wanted = 1 if votes >= min(consensus, 5) else -1 if votes else 0
                assert found[row, column] == wanted
            assert found.dtype == np.int32

    def test_one_annotator_is_everybody(self):
        drawn = draw("7", TALL, 1)
        np.testing.assert_array_equal(boundary_target(drawn, consensus=3), drawn[0])

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(InputError, match=r"boundaries must have shape \[A, H, W\]"):
            boundary_target(np.zeros((2, 2), bool))
        with pytest.raises(InputTypeError, match="boundaries must be bool"):
            boundary_target(np.zeros((1, 2, 2)))
        with pytest.raises(InputError, match="consensus must be >= 1, got 0"):
            boundary_target(np.zeros((1, 2, 2), bool), consensus=0)


class TestDataset:
    def test_splits_are_the_folders_and_training_may_take_two(self, opened):
        both = opened(train_on="train+val")
        assert names_of(opened().source("train")) == ["100", "101", "102"]
        assert names_of(both.source("train")) == ["100", "101", "102", "200"]
        for dataset in (opened(), both):
            assert names_of(dataset.source("validation")) == ["200"]
            assert names_of(dataset.source("test")) == ["300", "301"]
        assert len(both.source("train[:2]")) == 2

    def test_photographs_stay_byte_for_byte(self, opened, tree):
        source = opened().source("train")
        for i, name in enumerate(names_of(source)):
            path = tree / f"images/train/{name}.jpg"
            assert source.encoded(i)["image"] == path.read_bytes()
            np.testing.assert_array_equal(source[i]["image"], Image.open(path))

    def test_all_annotators_come_and_those_who_are_absent_are_void(self, opened):
        source = opened().source("train")
        assert source.num_annotators == 4
        for i, (name, (size, annotators)) in enumerate(DRAWN["train"].items()):
            found = source[i]["boundaries"]
            assert found.dtype == np.int8
            assert found.shape == (4, *size)
            np.testing.assert_array_equal(
                found[:annotators], draw(name, size, annotators)
            )
            assert (found[annotators:] == -1).all()

    def test_the_target_is_a_choice_that_needs_no_other_preparation(
        self, opened, prepared_dir
    ):
        drawn = draw("101", TALL, 4)
        for settings, consensus in (
            ({}, 1),
            ({"consensus": 3}, 1),  # which only a consensus asks for
            ({"target": "consensus", "consensus": 3}, 3),
        ):
            found = opened(**settings).source("train")[1]["instances"]
            wanted = boundary_target(drawn, consensus=consensus)
            np.testing.assert_array_equal(found, wanted)
        assert len(list((prepared_dir / "bsds_boundaries").iterdir())) == 1

    def test_the_size_is_read_without_decoding(self, opened):
        source = opened().source("train")
        assert [source.size(i) for i in range(3)] == [WIDE, TALL, WIDE]

    def test_a_configuration_names_it(self, tree, prepared_dir):
        dataset = DATASETS["bsds"](bsds_dir=tree, data_dir=prepared_dir)
        assert isinstance(dataset.source("test"), BoundaryExamples)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"train_on": "val"}, "train_on must be one of 'train', 'train.val', got"),
            ({"target": "majority"}, "target must be one of 'union', 'consensus', got"),
            ({"consensus": 0}, "consensus must be >= 1, got 0"),
            ({"manual_dir": "there"}, "leave one of them out"),
        ],
    )
    def test_a_setting_that_does_not_fit_is_refused(self, opened, settings, message):
        with pytest.raises(InputError, match=message):
            opened(**settings)


class TestBatches:
    def test_of_padded_examples_carry_all_annotators(self, opened):
        source = SkippingSource(opened().source("train"))
        (batch,) = make_loader(
            source, batch_size=4, transforms=(PadExample((12, 16)),), num_threads=0
        )
        assert batch["boundaries"].shape == (4, 4, 12, 16)
        assert batch["boundaries"].dtype == np.int8
        for i, (name, (size, annotators)) in enumerate(DRAWN["train"].items()):
            maps = batch["boundaries"][i]
            assert (maps[:, ~batch["mask"][i]] == -1).all()
            np.testing.assert_array_equal(
                maps[:annotators, : size[0], : size[1]], draw(name, size, annotators)
            )
            assert (maps[annotators:] == -1).all()
        assert batch["valid"].tolist() == [True, True, True, False]

    def test_of_crops_carry_what_is_learned_alone(self, opened):
        crops = ImageAugmentation(size=(8, 8), scale=(1.0, 1.0))
        (batch,) = make_loader(
            opened().source("train"), batch_size=3, transforms=(crops,), num_threads=0
        )
        assert set(batch) == {"image", "instances", "valid", "index"}
        assert set(np.unique(batch["instances"])) <= {-1, 0, 1}


def pieces(curves):
    return ndimage.label(curves, EIGHT)[1]


@pytest.fixture
def curves():
    """A circle, a spiral-like zigzag of diagonals and an upright line; 3 pieces."""
    canvas = np.zeros((64, 80), bool)
    angles = np.linspace(0, 2 * np.pi, 400)
    canvas[
        (20 + 12 * np.sin(angles)).round().astype(int),
        (20 + 12 * np.cos(angles)).round().astype(int),
    ] = True
    for i in range(40):
        canvas[42 + abs(i % 20 - 10), 8 + i] = True
    canvas[5:60, 66] = True
    assert pieces(canvas) == 3
    image = np.repeat(np.where(canvas, 255, 0)[..., None], 3, axis=2)
    return {
        "image": image.astype(np.uint8),
        "instances": canvas.astype(np.int32),
        "boundaries": canvas[None].astype(np.int8),
        "name": "curves",
    }


CALM = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
ROOMY = {"size": (160, 160), **CALM}  # nothing is cut off


class TestAugmentedCurves:
    @pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.5])
    def test_stay_connected_where_plain_reading_breaks_them(self, curves, scale):
        turns = ImageAugmentation(scale=(scale, scale), rotation=45.0, **ROOMY)
        plain = {key: value for key, value in curves.items() if key != "boundaries"}
        broken = 0
        for seed in range(10):
            found, read = (
                turns.random_map(example, np.random.default_rng(seed))["instances"]
                for example in (curves, plain)
            )
            # Curves that come close may touch, but none breaks or is lost.
            assert 1 <= pieces(found == 1) <= 3
            assert found.shape == (160, 160)
            assert ((found == 1) | (read != 1)).all()
            broken += pieces(read == 1) > 3
        assert scale > 1 or broken

    def test_lie_where_they_came_from(self, curves):
        # The image tells every pixel's own place, in thirds of a pixel.
        places = 3 * np.indices((64, 80))
        image = np.stack([*places, np.full((64, 80), 255)], axis=-1).astype(np.uint8)
        far = ndimage.distance_transform_edt(~curves["instances"].astype(bool))
        for seed, scale in enumerate((0.5, 0.6, 0.8, 1.0, 1.2, 1.4)):
            moves = ImageAugmentation(scale=(scale, scale), rotation=45.0, **ROOMY)
            found = moves.random_map(
                {**curves, "image": image}, np.random.default_rng(seed)
            )
            # Half a diagonal of a pixel that comes out, half one of a step, rounding.
            reach = np.sqrt(0.5) / scale + np.sqrt(0.5) + 0.3
            marked = (found["instances"] == 1) & (found["image"][..., 2] == 255)
            whence = found["image"][marked][:, :2] / 3.0
            rows, columns = np.rint(whence).astype(int).T
            assert (far[rows, columns] <= reach + np.sqrt(0.5)).all()
            for pixel in np.argwhere(curves["instances"]):
                away = np.linalg.norm(whence - pixel, axis=1).min()
                assert away <= reach

    def test_are_not_touched_by_mirrors_and_quarter_turns(self, curves):
        turns = ImageAugmentation(
            scale=(1.0, 1.0), rotation=0.0, quarter_turns=True, margin=0, **CALM
        )
        symmetries = {
            np.rot90(mirror, k).tobytes()
            for mirror in (curves["instances"], curves["instances"][:, ::-1])
            for k in range(4)
        }
        for seed in range(30):
            found = turns.random_map(curves, np.random.default_rng(seed))["instances"]
            assert np.ascontiguousarray(found).tobytes() in symmetries

    def test_that_are_void_stay_connected_and_below_the_others(self, curves):
        target = curves["instances"].copy()
        target[:, :20] *= -1  # half of the circle and a part of the zigzag
        shrunk = ImageAugmentation(scale=(0.5, 0.5), rotation=45.0, **ROOMY)
        for seed in range(10):
            found, sure, frame = (
                shrunk.random_map(
                    {**curves, "instances": labels}, np.random.default_rng(seed)
                )["instances"]
                for labels in (target, np.maximum(target, 0), np.zeros_like(target))
            )
            drawn = (found != 0) & (frame == 0)
            assert pieces(drawn) <= 3
            assert (found[drawn] == -1).any()
            np.testing.assert_array_equal(found == 1, sure == 1)


class TestNames:
    def test_the_place_of_a_tree_does_not_matter_but_its_content_does(
        self, tree, tmp_path
    ):
        name = name_of(bsds_dir=tree)
        for inside in ("", "data", "BSDS500/data", "BSR/BSDS500/data"):
            folder = tmp_path / f"copy-{len(inside)}"
            copy = shutil.copytree(tree, folder / inside)
            assert name_of(bsds_dir=folder) == name
        write_truth(copy / "groundTruth/train/100.mat", draw("5", WIDE, 2))
        assert name_of(bsds_dir=copy) != name

    def test_the_published_data_need_no_files_to_be_named(self, tmp_path):
        assert name_of(manual_dir=tmp_path / "absent") == "bsds500"


class TestBadTrees:
    @pytest.fixture
    def copy(self, tree, tmp_path):
        return shutil.copytree(tree, tmp_path / "tree")

    def refuses(self, copy, message):
        with pytest.raises(InputError, match=message) as caught:
            prepare_bsds(bsds_dir=copy, data_dir=copy.parent / "tfds")
        assert "\n" not in str(caught.value)
        assert not list((copy.parent / "tfds").glob("bsds_boundaries/*/*"))

    def test_a_folder_that_is_no_tree(self, tmp_path):
        self.refuses(tmp_path / "absent", r"absent/images/train must hold photographs")

    def test_a_missing_split(self, copy):
        shutil.rmtree(copy / "images/val")
        shutil.rmtree(copy / "groundTruth/val")
        self.refuses(copy, r"images/val must hold photographs, .*got none")

    def test_a_photograph_without_annotations(self, copy):
        (copy / "groundTruth/train/101.mat").unlink()
        wanted = r"images/train/101\.jpg has no groundTruth/train/101\.mat beside it$"
        self.refuses(copy, wanted)

    def test_annotations_without_photographs(self, copy):
        for name in ("300", "301"):
            (copy / f"images/test/{name}.jpg").unlink()
        self.refuses(copy, r"300\.mat has no images/test/300\.jpg .* 1 more in test$")

    def test_annotations_of_another_size(self, copy):
        write_truth(copy / "groundTruth/val/200.mat", draw("200", WIDE, 2))
        self.refuses(copy, r"200\.mat must have .*\(12, 8\), got \(8, 12\)")

    def test_annotations_that_are_cut_short(self, copy):
        path = copy / "groundTruth/train/101.mat"
        path.write_bytes(path.read_bytes()[:-20])
        self.refuses(copy, r"101\.mat cannot be read as a ground truth of BSDS500")

    def test_a_photograph_that_is_cut_short(self, copy):
        path = copy / "images/train/101.jpg"
        path.write_bytes(path.read_bytes()[:-30])
        self.refuses(copy, r"image .*101\.jpg cannot be read: .*truncated")


class TestArchive:
    """On an archive of the small tree, with its digest and counts as the published."""

    @pytest.fixture
    def manual_dir(self, tree, tmp_path, monkeypatch):
        manual = tmp_path / "manual"
        manual.mkdir()
        path = manual / "BSR_bsds500.tgz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tree, "BSR/BSDS500/data")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        published = dataclasses.replace(_bsds.BSDS, digest=digest)
        monkeypatch.setattr(_bsds, "BSDS", published)
        counts = {"train": 3, "validation": 1, "test": 2}
        monkeypatch.setattr(_bsds, "COUNTS", counts)
        return manual

    def test_is_read_as_what_it_unpacks_to(self, manual_dir, opened, tmp_path):
        packed = BoundaryDataset(manual_dir=manual_dir, data_dir=tmp_path / "tfds")
        assert packed.builder.builder_config.name == "bsds500"
        for split in ("train", "validation", "test"):
            one, other = packed.source(split), opened().source(split)
            assert len(one) == len(other)
            for i in range(len(one)):
                assert one.encoded(i) == other.encoded(i)

    def test_may_be_unpacked(self, manual_dir, tree, tmp_path):
        shutil.copytree(tree, tmp_path / "unpacked/BSDS500/data")
        dataset = BoundaryDataset(
            manual_dir=tmp_path / "unpacked", data_dir=tmp_path / "tfds"
        )
        assert names_of(dataset.source("test")) == ["300", "301"]

    def refuses(self, message, tmp_path, manual_dir):
        with pytest.raises(InputError, match=message) as caught:
            prepare_bsds(manual_dir=manual_dir, data_dir=tmp_path / "tfds")
        assert "\n" not in str(caught.value)

    def test_says_what_to_put_where(self, manual_dir, tmp_path):
        (manual_dir / "BSR_bsds500.tgz").unlink()
        message = r"must hold BSDS500: put BSR_bsds500\.tgz from https://www2\.eecs"
        self.refuses(message, tmp_path, manual_dir)

    def test_of_another_content_is_refused(self, manual_dir, tmp_path):
        path = manual_dir / "BSR_bsds500.tgz"
        path.write_bytes(path.read_bytes()[:-1])
        message = r"must be the published BSDS500 with sha256 .*, got "
        self.refuses(message, tmp_path, manual_dir)

    def test_of_another_number_of_images_is_refused(
        self, manual_dir, monkeypatch, tmp_path
    ):
        wanted = {"train": 200, "validation": 100, "test": 200}
        monkeypatch.setattr(_bsds, "COUNTS", wanted)
        message = r"200.*100.*200.*got \{'train': 3, .*part of it in bsds_dir"
        self.refuses(message, tmp_path, manual_dir)


@pytest.mark.needs_data
class TestRealFiles:
    def test_all_500_are_there_in_their_folders(self, data_dir):
        names = _bsds.read_names(_bsds.FolderFiles(data_dir / "bsds500"))
        assert {split: len(found) for split, found in names.items()} == _bsds.COUNTS

    def test_a_part_with_both_shapes_is_prepared_and_read(self, data_dir, tmp_path):
        published = data_dir / "bsds500"
        shapes = {(321, 481), (481, 321)}
        expected = {}
        for folder in ("train", "val", "test"):
            missing = set(shapes)
            for image in sorted((published / "images" / folder).glob("*.jpg")):
                with Image.open(image) as opened:
                    shape = opened.size[::-1]
                if shape not in missing:
                    continue
                missing.remove(shape)
                truth = published / f"groundTruth/{folder}/{image.stem}.mat"
                for path in (image, truth):
                    copy = tmp_path / "part" / path.relative_to(published)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, copy)
                expected[image.stem] = truth
            assert not missing
        dataset = BoundaryDataset(
            bsds_dir=tmp_path / "part", data_dir=tmp_path / "tfds"
        )
        for split in ("train", "validation", "test"):
            source = dataset.source(split)
            assert {source.size(i) for i in range(2)} == shapes
            for i in range(2):
                example = source[i]
                cells = scipy.io.loadmat(expected[example["name"]])["groundTruth"]
                annotators = cells.shape[1]
                for a in range(annotators):
                    drawn = cells[0, a]["Boundaries"][0, 0]
                    np.testing.assert_array_equal(example["boundaries"][a], drawn)
                assert (example["boundaries"][annotators:] == -1).all()
                np.testing.assert_array_equal(
                    example["instances"], (example["boundaries"] == 1).any(axis=0)
                )

    def test_the_files_of_the_benchmark_are_read(self, data_dir):
        for path in (data_dir / "bsds_bench/groundTruth").glob("*.mat"):
            found = read_boundaries(path)
            assert found.shape[1:] in {(321, 481), (481, 321)}
            assert (found.mean(axis=(1, 2)) < 0.2).all()
