"""The check reports every fault with the line that training would stop at."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from skimage.measure import regionprops

from sphemb._checks import InputError
from sphemb.data import check_data, measure_instances, open_folder
from tests.scenes import write_folder

SIZE = 32
IDS = np.zeros((SIZE, SIZE), np.uint8)
IDS[2:14, 2:14], IDS[16:30, 10:28] = 1, 2


@pytest.fixture
def folder(tmp_path):
    """Three images to train on and one to validate on, without fault."""
    for split, names in {"train": "abc", "val": "d"}.items():
        for name in names:
            write(tmp_path, split, name)
    return tmp_path


def write(folder, split, name, ids=IDS, image_of=None):
    """Draws an image that depends on a name, and writes its mask."""
    rng = np.random.default_rng(list((image_of or name).encode()))
    pixels = rng.integers(256, size=(SIZE, SIZE, 3)).astype(np.uint8)
    for kind, array in {"images": pixels, "masks": ids}.items():
        path = folder / split / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def found(report):
    return [(finding.level, finding.kind) for finding in report.all_findings]


class TestReport:
    def test_a_folder_without_fault_has_no_findings(self, folder):
        report = check_data(folder)
        assert report.all_findings == []
        total = report.totals()["train"]
        assert total["images"] == total["usable"] == 3
        assert total["instances"] == 6
        assert total["median_instances"] == total["most_instances"] == 2
        assert total["smallest"] == total["largest"] == [SIZE, SIZE]
        assert total["masks"] == ["labels"]
        assert list(report.totals()) == ["train", "validation"]

    def test_it_can_be_written_as_json(self, folder):
        write(folder, "train", "a", 0 * IDS)
        report = check_data(folder)
        content = json.loads(json.dumps(report.to_dict()))
        assert content["warnings"] == 1
        assert content["files"][0]["findings"][0]["kind"] == "no instances"
        assert content["files"][1]["size"] == [SIZE, SIZE]

    def test_progress_is_reported(self, folder):
        printed = []
        check_data(folder, progress=lambda *state: printed.append(state))
        assert printed[-1] == ("validation", 1, 1)
        assert printed[2] == ("train", 3, 3)

    def test_any_data_set_can_be_checked(self):
        class Drawn:
            def source(self, split):
                image = np.full((SIZE, SIZE, 3), 0.5 if split == "train" else 2.0)
                return [{"image": image, "instances": IDS, "name": split}]

        report = check_data(Drawn())
        assert [f.size for f in report.files] == [(SIZE, SIZE), None, None]
        assert "must lie in [0, 1]" in report.errors[0].message

    def test_settings_are_for_folders(self, folder):
        with pytest.raises(InputError, match="masks must go with a folder"):
            check_data(open_folder(folder), masks="single")
        with pytest.raises(InputError, match="dir must be a folder"):
            check_data(folder / "absent")
        with pytest.raises(InputError, match="stride must be >= 1"):
            check_data(folder, stride=0)


class TestErrors:
    """Each is found by the check, and raised with the same line by training."""

    def same_line(self, folder, kind, index=0):
        report = check_data(folder)
        assert ("error", kind) in found(report)
        with pytest.raises(InputError) as raised:
            open_folder(folder).source("train")[index]
        lines = [f.message for f in report.errors if f.kind == kind]
        assert str(raised.value) in lines
        assert all("\n" not in line for line in lines)
        return report

    @pytest.mark.parametrize("kind", ["images", "masks"])
    def test_an_unreadable_file(self, folder, kind):
        path = folder / "train" / kind / "a.png"
        path.write_bytes(path.read_bytes()[:40])
        report = self.same_line(folder, "unreadable")
        assert report.totals()["train"]["usable"] == 2

    def test_sizes_that_differ(self, folder):
        write(folder, "train", "a", IDS[:-1])
        self.same_line(folder, "size mismatch")

    def test_a_photograph_in_the_place_of_a_mask(self, folder):
        rng = np.random.default_rng(0)
        noise = rng.integers(256, size=(SIZE, SIZE, 3)).astype(np.uint8)
        write(folder, "train", "a", noise)
        self.same_line(folder, "too many labels")

    def test_a_mask_that_holds_no_ids(self, folder):
        Image.fromarray(IDS).save(folder / "train" / "masks" / "a.png", format="JPEG")
        self.same_line(folder, "not ids")

    @pytest.mark.parametrize(
        ("removed", "kind"), [("masks", "no mask"), ("images", "no image")]
    )
    def test_one_without_the_other(self, folder, removed, kind):
        (folder / "train" / removed / "b.png").unlink()
        report = self.same_line(folder, kind)
        assert [path.rpartition("/")[2] for path in report.errors[0].files] == ["b.png"]

    def test_masks_that_are_all_binary(self, folder):
        for split, names in {"train": "abc", "val": "d"}.items():
            for name in names:
                write(folder, split, name, 255 * (IDS > 0).astype(np.uint8))
        report = self.same_line(folder, "binary")
        assert [kind for _, kind in found(report)] == ["binary", *["0/255"] * 4]
        assert not check_data(folder, masks="single").all_findings
        assert not check_data(folder, masks="components").all_findings

    def test_palettes_of_classes_that_differ(self, folder):
        """The same two colors, by other indices: class 1 is class 2 elsewhere."""
        red, green = (200, 0, 0), (0, 200, 0)
        for split, names in {"train": "abc", "val": "d"}.items():
            for name in names:
                swapped = name == "c"
                image = Image.fromarray(np.where(swapped & (IDS > 0), 3 - IDS, IDS))
                image = image.convert("P")
                image.putpalette(
                    [0, 0, 0, *((*green, *red) if swapped else (*red, *green))]
                )
                image.putdata(np.where(swapped & (IDS > 0), 3 - IDS, IDS).ravel())
                image.save(folder / split / "masks" / f"{name}.png")
        report = check_data(folder, masks="classes")
        assert found(report) == [("error", "palette")]
        with pytest.raises(InputError) as raised:
            open_folder(folder, masks="classes")
        assert str(raised.value) == report.errors[0].message
        assert "c.png must have the palette of the others" in str(raised.value)
        assert not check_data(folder).all_findings  # colors of ids do not matter
        image.putpalette([0, 0, 0, *red, *green, 9, 9, 9])
        image.save(folder / "train" / "masks" / "c.png")
        assert not check_data(folder, masks="classes").all_findings

    def test_images_in_sub_folders_are_not_read(self, folder):
        inner = folder / "train" / "images" / "more"
        inner.mkdir()
        (folder / "train" / "images" / "a.png").rename(inner / "a.png")
        (folder / "train" / "masks" / "a.png").unlink()
        report = check_data(folder)
        assert found(report) == [("warning", "sub-folder")]
        assert f"1 images in {inner} are not read" in report.warnings[0].message
        assert len(report.files) == 3

    def test_a_color_of_classes_that_has_another_index(self, folder):
        """Red is class 1, and class 2 elsewhere; the other color is not used."""
        for name, ids, colors in (
            ("a", IDS == 2, (200, 0, 0, 0, 200, 0)),
            ("b", 2 * (IDS == 2), (0, 200, 0, 200, 0, 0)),
        ):
            image = Image.fromarray(ids.astype(np.uint8))
            image.putpalette([0, 0, 0, *colors])
            image.save(folder / "train" / "masks" / f"{name}.png")
        report = check_data(folder, masks="classes")
        assert found(report) == [("error", "palette")]
        assert "b.png must have the palette of the others" in report.errors[0].message
        image.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 200, 0, 0])  # red is ambiguous
        image.save(folder / "train" / "masks" / "b.png")
        assert not check_data(folder, masks="classes").all_findings

    @pytest.mark.parametrize(
        ("value", "split"), [(0, "train"), (7, "train"), (7, "val")]
    )
    def test_a_split_with_nothing_to_learn(self, folder, value, split):
        for name in "abc" if split == "train" else "d":
            write(folder, split, name, 0 * IDS + value)
        report = check_data(folder, void=7)
        assert [f.kind for f in report.errors] == ["no instances"]
        assert ("void" if value else "background (0)") in report.errors[0].message

    def test_soft_edges_at_any_stride(self, folder):
        soft = Image.fromarray((100 * IDS).astype(np.uint8)).resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR, box=(0.3, 0.3, 31.1, 31.1)
        )
        soft.save(folder / "train" / "masks" / "a.png")
        self.same_line(folder, "soft edges")
        for stride in (1, 4):
            assert ("error", "soft edges") in found(check_data(folder, stride=stride))

    def test_a_split_without_images(self, tmp_path):
        for name in "ab":
            write(tmp_path, ".", name)
        report = check_data(tmp_path, validation_fraction=0, test_fraction=0)
        assert ("error", "no examples") in found(report)


class TestWarnings:
    def one(self, folder, **settings):
        report = check_data(folder, **settings)
        assert not report.errors
        (finding,) = report.warnings
        return finding

    def test_one_white_mask_among_others(self, folder):
        write(folder, "train", "a", (IDS > 0).astype(np.uint8) * 255)
        assert self.one(folder).kind == "0/255"

    def test_one_id_is_one_instance_where_others_have_more(self, folder):
        write(folder, "train", "a", (IDS > 0).astype(np.uint8))
        write(folder, "val", "d", (IDS == 1).astype(np.uint8))
        assert not check_data(folder).all_findings

    def test_several_parts_of_one_value_where_no_mask_has_a_second(self, folder):
        for split, names in {"train": "abc", "val": "d"}.items():
            for i, name in enumerate(names, start=1):
                parts = IDS > 0 if name == "a" else IDS == 1
                write(folder, split, name, (i * parts).astype(np.uint8))
        finding = self.one(folder)  # only the one that has two parts
        assert finding.kind == "binary"
        assert "a.png holds one value beside the background, 1" in finding.message

    @pytest.mark.parametrize("ground", ["white", "no black"])
    def test_a_ground_that_counts_as_an_instance(self, folder, ground):
        if ground == "white":
            ids = np.where(IDS == 0, 255, np.where(IDS == 2, 0, IDS))
        else:
            ids = np.where(IDS == 0, 9, IDS)
        write(folder, "train", "a", ids.astype(np.uint8))
        kinds = [f.kind for f in check_data(folder).warnings]
        assert "ground" in kinds
        report = check_data(folder, void=int(ids[0, 0]))
        assert [f.kind for f in report.warnings] == ["void"]

    def test_255_among_ids(self, folder):
        ids = IDS.copy()
        ids[16:24, :8] = 255
        write(folder, "train", "a", ids)
        assert self.one(folder).kind == "void"
        assert not check_data(folder, void=255).all_findings

    def test_mostly_void(self, folder):
        ids = np.where(IDS > 0, IDS, 9).astype(np.uint8)
        write(folder, "train", "a", ids)
        finding = self.one(folder, void=9)
        assert finding.kind == "void"
        assert "a (train): 61% of its pixels are void" in finding.message

    def test_no_instances(self, folder):
        write(folder, "val", "d", 0 * IDS)
        assert self.one(folder).kind == "no instances"

    def test_instances_that_vanish_at_the_stride(self, folder):
        ids = IDS.copy()
        ids[0, 20:24] = 3  # four pixels
        ids[0, :] = np.where(ids[0] == 0, 4, ids[0])  # a line beside what is sampled
        ids[1, :] = 4
        ids[:, 31] = 4
        write(folder, "train", "a", ids)
        assert (ids == 4).sum() > 64
        finding = self.one(folder)
        assert finding.kind == "vanishing"
        assert "2 of 4 instances vanish at stride 8" in finding.message
        assert not check_data(folder, stride=1).all_findings

    def test_one_image_in_two_splits(self, folder):
        write(folder, "val", "e", image_of="b")
        finding = self.one(folder)
        assert finding.kind == "duplicate"
        assert finding.message == "e (validation) is the same image as b (train)"


@pytest.mark.needs_data
class TestNuclei:
    def test_real_images_have_no_errors(self, data_dir, tmp_path):
        images = sorted((data_dir / "dsb2018" / "images").iterdir())[::25]
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir()
            for image in images:
                source = data_dir / "dsb2018" / kind / image.name
                (tmp_path / kind / image.name).symlink_to(source)
        report = check_data(tmp_path, stride=2)
        assert not report.errors
        assert len(report.files) == len(images)
        totals = report.totals().values()
        assert sum(total["instances"] for total in totals) > 5 * len(images)


STRIDES = (8, 4, 2, 1)


def blobs(seed):
    """Random rectangles, some over others, some beside others, and some void."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((40, 56), np.int32)
    for number in (3, 1, 7, 12, 4, 9):
        row, column = rng.integers(0, (36, 50))
        height, width = rng.integers(1, 20, size=2)
        instances[row : row + height, column : column + width] = number
    instances[:2] = -1
    return {
        "image": np.zeros((40, 56, 3), np.uint8),
        "instances": instances,
        "name": "",
    }


@pytest.fixture(scope="module")
def source():
    return [blobs(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def sizes(source):
    return measure_instances(source, strides=STRIDES)


class TestMeasures:
    def test_areas_and_sides_are_those_of_the_regions(self, source, sizes):
        regions = [regionprops(np.maximum(s["instances"], 0)) for s in source]
        assert sizes.counts.tolist() == [len(r) for r in regions]
        flat = [region for r in regions for region in r]
        assert sizes.areas.tolist() == [region.area for region in flat]
        sides = [max(r.bbox[2] - r.bbox[0], r.bbox[3] - r.bbox[1]) for r in flat]
        assert sizes.sides.tolist() == sides

    def test_neighbors_touch(self, source, sizes):
        wanted = []
        for example in source:
            padded = np.pad(example["instances"], 1)
            for number in np.unique(example["instances"]):
                if number <= 0:
                    continue
                beside = [
                    np.roll(padded, shift, axis)[padded == number]
                    for shift in (1, -1)
                    for axis in (0, 1)
                ]
                others = np.concatenate(beside)
                wanted.append(bool(((others > 0) & (others != number)).any()))
        assert sizes.touching.tolist() == wanted

    def test_what_vanishes_is_small_or_in_no_middle_of_a_cell(self, source, sizes):
        for stride in STRIDES:
            wanted = []
            for example in source:
                instances = example["instances"]
                kept = instances[stride // 2 :: stride, stride // 2 :: stride]
                for number in np.unique(instances[instances > 0]):
                    small = (instances == number).sum() < stride**2
                    wanted.append(bool(small or number not in kept))
            assert sizes.vanishing[stride].tolist() == wanted
        assert not sizes.vanishing[1].any()

    def test_parts_merge_into_the_whole(self, source, sizes):
        first = measure_instances(source, indices=[0, 1], strides=STRIDES)
        rest = measure_instances(source, indices=range(2, 6), strides=STRIDES)
        merged = first.merge(rest)
        assert merged.areas.tolist() == sizes.areas.tolist()
        assert merged.images.tolist() == sizes.images.tolist()
        for stride in STRIDES:
            assert (merged.vanishing[stride] == sizes.vanishing[stride]).all()


def test_a_folder_loses_what_check_data_says(tmp_path):
    folder = write_folder(tmp_path / "data")
    total = check_data(folder, stride=8).totals()["train"]
    sizes = measure_instances(open_folder(folder).source("train"))
    assert len(sizes.areas) == total["instances"]
    assert sizes.vanishing[8].sum() == total["vanishing"]


def test_what_cannot_be_used_is_left_out_and_reported(tmp_path):
    folder = write_folder(tmp_path / "data")
    source = open_folder(folder).source("train")
    source.pairs[1].mask.write_text("no image")
    sizes = measure_instances(source)
    assert len(sizes.counts) == len(source) - 1
    assert "cannot be read" in sizes.unusable[0]


def test_a_stride_below_one_is_refused():
    with pytest.raises(InputError, match="strides must be >= 1, got 0"):
        measure_instances([blobs(0)], strides=(0,))
