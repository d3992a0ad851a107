"""VOC and SBD: bytes kept, void distinct from background, faulty files refused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import inspect
import io
import shutil
import tarfile
import threading

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import BuilderDataset, VocMasks, _voc, prepare_voc

TRAIN, VAL = ("2007_000032", "2007_000039"), ("2007_000033", "2007_000042")
SBD_TRAIN, SBD_BOTH = "2008_000002", ("2007_000032", "2007_000033")
SIZES = ((6, 8), (8, 6), (5, 9))


def write_photograph(path, size, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)


def draw_masks(size):
    """Two objects of one class and one of another, void around the last."""
    instances, classes = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    instances[:2, :2], classes[:2, :2] = 1, 15
    instances[:2, 3:5], classes[:2, 3:5] = 2, 15
    instances[3:, :] = classes[3:, :] = 255
    instances[4:, 1:], classes[4:, 1:] = 3, 20
    return instances, classes


def write_palette(path, indices):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices)
    image.putpalette(np.random.default_rng(0).integers(256, size=768).tolist())
    image.save(path)


def write_mat(path, instances, categories):
    path.parent.mkdir(parents=True, exist_ok=True)
    truth = {
        "Segmentation": instances,
        "Categories": np.array(categories, np.uint8)[:, None],
    }
    scipy.io.savemat(path, {"GTinst": truth}, do_compression=True)


def write_tree(root, *, sbd=False):
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", TRAIN), ("val", VAL)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for i, name in enumerate(sorted((*TRAIN, *VAL))):
        size = SIZES[i % 3]
        write_photograph(root / f"JPEGImages/{name}.jpg", size, i)
        instances, classes = draw_masks(size)
        write_palette(root / f"SegmentationObject/{name}.png", instances)
        write_palette(root / f"SegmentationClass/{name}.png", classes)
    write_photograph(root / f"JPEGImages/{SBD_TRAIN}.jpg", (6, 8), 9)
    if sbd:
        write_inst(root)
    return root


def write_inst(root):
    for name in (SBD_TRAIN, *SBD_BOTH):
        instances = np.zeros((6, 8), np.uint8)
        instances[:3], instances[4:] = 1, 2
        write_mat(root / f"inst/{name}.mat", instances, [7, 3])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("voc") / "tree", sbd=True)


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    return BuilderDataset(prepare_voc(voc_dir=tree, data_dir=data_dir))


def name_of(**settings):
    return VocMasks(**settings).builder_config.name


def names_of(source):
    return [source[i]["name"] for i in range(len(source))]


class TestTree:
    def test_joins_sbd_to_train_and_keeps_validation_out_of_it(self, prepared):
        assert names_of(prepared.source("train")) == [*TRAIN, SBD_TRAIN]
        assert names_of(prepared.source("validation")) == sorted(VAL)
        assert names_of(prepared.source("test")) == [VAL[0]]

    def test_is_the_lists_alone_without_sbd(self, tree, tmp_path):
        dataset = BuilderDataset(
            prepare_voc(voc_dir=tree, sbd=False, data_dir=tmp_path)
        )
        assert names_of(dataset.source("train")) == list(TRAIN)
        assert names_of(dataset.source("test")) == sorted(VAL)

    def test_keeps_the_photographs_byte_for_byte(self, prepared, tree):
        source = prepared.source("train")
        for i, name in enumerate((*TRAIN, SBD_TRAIN)):
            path = tree / f"JPEGImages/{name}.jpg"
            assert source.encoded(i)["image"] == path.read_bytes()
            np.testing.assert_array_equal(
                source[i]["image"], np.asarray(Image.open(path))
            )

    def test_reads_the_indices_of_the_palette_and_255_as_void(self, prepared):
        source = prepared.source("validation")
        for i in range(2):
            example = source[i]
            for key, codes in zip(
                ("instances", "semantic"),
                draw_masks(example["image"].shape[:2]),
                strict=True,
            ):
                expected = codes.astype(np.int32)
                expected[expected == 255] = -1
                assert example[key].dtype == np.int32
                np.testing.assert_array_equal(example[key], expected)

    def test_takes_sbds_masks_where_voc_has_none(self, prepared):
        example = prepared.source("train")[2]
        expected = np.repeat([1, 1, 1, 0, 2, 2], 8).reshape(6, 8)
        np.testing.assert_array_equal(example["instances"], expected)
        np.testing.assert_array_equal(
            example["semantic"], np.array([0, 7, 3])[expected]
        )

    def test_takes_vocs_masks_where_both_have_some(self, prepared):
        for split in ("train", "test"):
            assert (prepared.source(split)[0]["instances"] == -1).any()

    def test_tells_the_size_without_decoding(self, prepared):
        for split in ("train", "validation"):
            source = prepared.source(split)
            for i in range(len(source)):
                assert source.size(i) == source[i]["image"].shape[:2]

    def test_a_gray_photograph_becomes_rgb(self, tree, tmp_path):
        shutil.copytree(tree, tmp_path / "gray")
        path = tmp_path / f"gray/JPEGImages/{TRAIN[0]}.jpg"
        Image.open(path).convert("L").save(path)
        dataset = BuilderDataset(
            prepare_voc(voc_dir=tmp_path / "gray", data_dir=tmp_path / "tfds")
        )
        assert dataset.source("train")[0]["image"].shape == (6, 8, 3)

    def test_says_nothing(self, tree, tmp_path, capfd):
        prepare_voc(voc_dir=tree, data_dir=tmp_path)
        assert capfd.readouterr() == ("", "")

    def test_does_not_prepare_again_what_is_there(self, prepared, tree):
        builder = prepared.builder
        files = {f: f.stat().mtime for f in builder.data_path.iterdir()}
        again = prepare_voc(voc_dir=tree, data_dir=builder.root)
        assert {f: f.stat().mtime for f in again.data_path.iterdir()} == files


class TestNames:
    def test_the_place_of_a_tree_does_not_matter_but_its_content_does(
        self, tree, tmp_path
    ):
        name = name_of(voc_dir=tree)
        copy = shutil.copytree(tree, tmp_path / "copy")
        assert name_of(voc_dir=copy) == name
        assert name_of(voc_dir=copy, sbd=False) != name
        mask = copy / f"SegmentationObject/{TRAIN[0]}.png"
        before = mask.read_bytes()
        write_palette(mask, np.ones((6, 8), np.uint8))
        assert name_of(voc_dir=copy) != name
        mask.write_bytes(before)
        (copy / "ImageSets/Segmentation/val.txt").write_text(f"{VAL[0]}\n")
        assert name_of(voc_dir=copy) != name

    def test_the_published_data_need_no_files_to_be_named(self, tmp_path):
        assert name_of(manual_dir=tmp_path / "absent") == "2012-sbd"
        assert name_of(sbd=False) == "2012"

    def test_preparing_takes_the_settings_of_the_builder(self):
        preparing, building = map(inspect.signature, (prepare_voc, VocMasks))
        assert preparing.parameters == building.parameters


class TestBadTrees:
    @pytest.fixture
    def copy(self, tree, tmp_path):
        return shutil.copytree(tree, tmp_path / "tree")

    def refuses(self, copy, message):
        with pytest.raises(InputError, match=message) as caught:
            prepare_voc(voc_dir=copy, data_dir=copy.parent / "tfds")
        assert "\n" not in str(caught.value)
        assert not list((copy.parent / "tfds").glob("voc_masks/*/*"))

    def test_a_folder_that_is_no_tree(self, tmp_path):
        (tmp_path / "tree").mkdir()
        self.refuses(tmp_path / "tree", r"train\.txt cannot be read: No such file")

    def test_a_list_without_names(self, copy):
        (copy / "ImageSets/Segmentation/val.txt").write_text("\n")
        self.refuses(copy, r"val\.txt must name at least one image")

    def test_nothing_to_train_on(self, copy):
        for path in (copy / "inst").iterdir():
            path.unlink()
        (copy / "ImageSets/Segmentation/train.txt").write_text(VAL[0])
        self.refuses(copy, r"train\.txt must name at least one image that val")

    def test_a_name_that_leads_out_of_the_tree(self, copy):
        (copy / "ImageSets/Segmentation/val.txt").write_text(
            f"{VAL[0]}\n../../secret\n"
        )
        self.refuses(copy, r"JPEGImages/\.\./\.\./secret\.jpg' must be a file in")

    def test_a_missing_photograph(self, copy):
        (copy / f"JPEGImages/{VAL[0]}.jpg").unlink()
        self.refuses(copy, rf"{VAL[0]}\.jpg cannot be read: No such file")

    def test_a_photograph_that_is_cut_short(self, copy):
        path = copy / f"JPEGImages/{TRAIN[0]}.jpg"
        path.write_bytes(path.read_bytes()[:-30])
        self.refuses(copy, rf"image .*{TRAIN[0]}\.jpg cannot be read: .*truncated")

    def test_a_mask_of_colors(self, copy):
        path = copy / f"SegmentationObject/{TRAIN[0]}.png"
        Image.open(path).convert("RGB").save(path)
        self.refuses(copy, rf"{TRAIN[0]}\.png must be an image of mode P or L, got RGB")

    def test_a_mask_of_another_size(self, copy):
        write_palette(
            copy / f"SegmentationClass/{TRAIN[0]}.png", np.zeros((8, 6), np.uint8)
        )
        self.refuses(copy, rf"Class/{TRAIN[0]}\.png .*\(6, 8\), got \(8, 6\)")

    def test_a_mask_of_another_palette(self, copy):
        path = copy / f"SegmentationClass/{TRAIN[1]}.png"
        image = Image.open(path)
        image.putpalette(image.getpalette()[::-1])
        image.save(path)
        self.refuses(copy, rf"^mask /.*{TRAIN[1]}\.png must have the palette of")

    def test_a_mat_of_something_else(self, copy):
        scipy.io.savemat(copy / f"inst/{SBD_TRAIN}.mat", {"GTcls": np.zeros(3)})
        self.refuses(copy, rf"{SBD_TRAIN}\.mat cannot be read as a mask of SBD")

    def test_a_mat_that_is_cut_short(self, copy):
        path = copy / f"inst/{SBD_TRAIN}.mat"
        path.write_bytes(path.read_bytes()[:-20])
        self.refuses(copy, rf"{SBD_TRAIN}\.mat cannot be read as a mask of SBD")

    def test_an_instance_without_a_class(self, copy):
        mask = np.full((6, 8), 3, np.uint8)
        write_mat(copy / f"inst/{SBD_TRAIN}.mat", mask, [7, 3])
        self.refuses(copy, r"must number its 2 GTinst\.Categories .*from 3 to 3")

    def test_a_tree_and_a_folder_of_archives(self, copy):
        with pytest.raises(InputError, match="leave one of them out"):
            VocMasks(voc_dir=copy, manual_dir=copy)


def pack(path, root, prefix, folders):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for folder in folders:
            archive.add(root / folder, f"{prefix}/{folder}")


def add_file(path, name, kind=tarfile.REGTYPE):
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc", 4 * (kind == b"0")
        archive.addfile(member, io.BytesIO(b"evil"))


class TestArchives:
    """On archives of the small tree, with their digests and counts as the published."""

    @pytest.fixture
    def manual_dir(self, tree, tmp_path, monkeypatch):
        manual = tmp_path / "manual"
        manual.mkdir()
        voc = manual / "VOCtrainval_11-May-2012.tar"
        pack(voc, tree, "VOCdevkit/VOC2012", _voc.VOC.folders)
        pack(manual / "benchmark.tgz", tree, "benchmark_RELEASE/dataset", ("inst",))
        counts = {"train": 3, "validation": 2, "test": 1}
        monkeypatch.setitem(_voc.COUNTS, True, counts)
        monkeypatch.setitem(_voc.COUNTS, False, {"train": 2, "validation": 2})
        return manual

    @pytest.fixture
    def publish(self, manual_dir, monkeypatch):
        def publish(**changes):
            for name in ("VOC", "SBD"):
                publication = getattr(_voc, name)
                packed = (manual_dir / publication.filename).read_bytes()
                digest = hashlib.new(publication.algorithm, packed).hexdigest()
                publication = dataclasses.replace(
                    publication, digest=digest, **changes.get(name, {})
                )
                monkeypatch.setattr(_voc, name, publication)

        publish()
        return publish

    def test_are_read_as_what_they_unpack_to(
        self, manual_dir, publish, prepared, tmp_path
    ):
        before = sorted(manual_dir.iterdir())
        builder = prepare_voc(manual_dir=manual_dir, data_dir=tmp_path / "tfds")
        assert builder.builder_config.name == "2012-sbd"
        for split in ("train", "validation", "test"):
            packed, plain = (
                BuilderDataset(b).source(split) for b in (builder, prepared.builder)
            )
            assert len(packed) == len(plain)
            for i in range(len(plain)):
                assert packed.encoded(i) == plain.encoded(i)
        assert sorted(manual_dir.iterdir()) == before

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_may_be_unpacked_at_any_depth(self, manual_dir, tree, tmp_path, depth):
        folder = tmp_path / "unpacked"
        for root, parts in (
            ("VOCdevkit/VOC2012", _voc.VOC.folders),
            ("benchmark_RELEASE/dataset", ("inst",)),
        ):
            for part in parts:
                inside = "/".join(root.split("/")[depth:])
                shutil.copytree(tree / part, folder / inside / part)
        builder = prepare_voc(manual_dir=folder, data_dir=tmp_path / "tfds")
        assert names_of(BuilderDataset(builder).source("test")) == [VAL[0]]

    def test_go_without_sbd(self, manual_dir, publish, tmp_path):
        (manual_dir / "benchmark.tgz").unlink()
        builder = prepare_voc(manual_dir=manual_dir, sbd=False, data_dir=tmp_path)
        assert names_of(BuilderDataset(builder).source("train")) == list(TRAIN)

    def refuses(self, message, tmp_path, **settings):
        with pytest.raises(InputError, match=message) as caught:
            prepare_voc(data_dir=tmp_path / "tfds", **settings)
        assert "\n" not in str(caught.value)
        assert not list((tmp_path / "tfds").glob("voc_masks/*/*"))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("VOCtrainval_11-May-2012.tar", "VOC 2012: put VOCtrainval_11-May-2012"),
            ("benchmark.tgz", r"Semantic Boundaries Dataset: put benchmark\.tgz"),
        ],
    )
    def test_say_what_to_put_where(self, manual_dir, publish, tmp_path, name, message):
        (manual_dir / name).unlink()
        wanted = f"manual_dir {manual_dir} must hold .*{message}"
        self.refuses(wanted, tmp_path, manual_dir=manual_dir)

    def test_of_another_content_are_refused(self, manual_dir, tmp_path):
        wanted = r"must be the published VOC 2012 with sha256 e14f7632.*, got "
        self.refuses(wanted, tmp_path, manual_dir=manual_dir)

    def test_of_another_number_of_images_are_refused(
        self, manual_dir, publish, monkeypatch, tmp_path
    ):
        wanted = {"train": 10582, "validation": 1449, "test": 1103}
        monkeypatch.setitem(_voc.COUNTS, True, wanted)
        message = r"10582.*1449.*1103.*got \{'train': 3, .*voc_dir"
        self.refuses(message, tmp_path, manual_dir=manual_dir)

    @pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\e"])
    def test_that_lead_out_of_themselves_are_refused(
        self, manual_dir, publish, tmp_path, name
    ):
        add_file(manual_dir / "VOCtrainval_11-May-2012.tar", name)
        publish()
        wanted = "VOCtrainval_11-May-2012.tar holds .*, which leads out of it"
        self.refuses(wanted, tmp_path, manual_dir=manual_dir)

    def test_may_hold_links_that_are_not_followed(self, manual_dir, publish, tmp_path):
        name = "VOCdevkit/VOC2012/JPEGImages/2009_000001.jpg"
        add_file(manual_dir / "VOCtrainval_11-May-2012.tar", name, tarfile.SYMTYPE)
        publish()
        prepare_voc(manual_dir=manual_dir, data_dir=tmp_path / "tfds")

    def test_that_are_damaged_are_refused(self, manual_dir, publish, tmp_path):
        path = manual_dir / "benchmark.tgz"
        path.write_bytes(path.read_bytes()[:-50])
        publish()
        self.refuses(r"benchmark\.tgz cannot be read", tmp_path, manual_dir=manual_dir)

    @pytest.fixture
    def address(self, manual_dir):
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

        handler = functools.partial(Quiet, directory=manual_dir)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def at(self, address):
        return {
            name: {"url": f"{address}/{getattr(_voc, name).filename}"}
            for name in ("VOC", "SBD")
        }

    def test_are_downloaded_once(
        self, manual_dir, publish, address, tmp_path, monkeypatch
    ):
        publish(**self.at(address))
        data_dir = tmp_path / "tfds"
        prepare_voc(data_dir=data_dir)
        kept = data_dir / "downloads" / "manual"
        names = ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]
        assert sorted(path.name for path in kept.iterdir()) == names
        for path in manual_dir.iterdir():
            path.unlink()
        prepare_voc(data_dir=data_dir, sbd=False)

    def test_that_arrive_damaged_leave_nothing_behind(
        self, manual_dir, publish, address, tmp_path
    ):
        publish(**self.at(address))
        path = manual_dir / "benchmark.tgz"
        path.write_bytes(path.read_bytes()[:-1])
        self.refuses("benchmark.tgz must be the published .*md5", tmp_path)
        kept = tmp_path / "tfds" / "downloads" / "manual"
        assert [p.name for p in kept.iterdir()] == ["VOCtrainval_11-May-2012.tar"]

    def test_that_do_not_arrive_say_what_to_do(
        self, manual_dir, publish, address, tmp_path
    ):
        publish(VOC={"url": f"{address}/absent.tar"})
        self.refuses(
            r"VOC 2012 cannot be downloaded from .*404.*name the folder in manual_dir",
            tmp_path,
        )
        assert not list((tmp_path / "tfds" / "downloads" / "manual").iterdir())


@pytest.mark.needs_data
class TestRealFiles:
    def test_palette_masks_of_voc_come_as_they_are(self, data_dir, tmp_path):
        samples = data_dir / "voc_samples" / "labelme"
        tree = tmp_path / "tree"
        for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
            shutil.copytree(samples / folder, tree / folder)
        names = sorted(path.stem for path in (samples / "JPEGImages").iterdir())
        lists = tree / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("\n".join(names[:2]))
        (lists / "val.txt").write_text(names[2])
        builder = prepare_voc(voc_dir=tree, data_dir=tmp_path / "tfds")
        dataset, void = BuilderDataset(builder), 0
        for split, part in (("train", names[:2]), ("validation", names[2:])):
            source = dataset.source(split)
            for i, name in enumerate(part):
                example = source[i]
                assert example["image"].shape[:2] == source.size(i)
                for key, folder in (
                    ("instances", "SegmentationObject"),
                    ("semantic", "SegmentationClass"),
                ):
                    codes = np.asarray(Image.open(tree / folder / f"{name}.png"))
                    void += np.count_nonzero(codes == 255)
                    np.testing.assert_array_equal(
                        example[key], np.where(codes == 255, -1, codes.astype(int))
                    )
        assert void > 0

    def test_masks_of_voc_written_as_sbd_does_are_read_back(self, data_dir, tmp_path):
        samples = data_dir / "voc_samples" / "authors_demo3"
        tree = write_tree(tmp_path / "tree")
        expected = {}
        for path in sorted(samples.glob("*.mat")):
            truth = scipy.io.loadmat(path)["gtMat"][0, 0]
            instances, classes = truth["instMap"], truth["segMap"]
            numbers = [n for n in np.unique(instances) if 0 < n < 255]
            as_sbd = np.zeros(instances.shape, np.uint8)
            categories = []
            for number in numbers:
                here = instances == number
                categories.append(np.bincount(classes[here].astype(int)).argmax())
                as_sbd[here] = len(categories)
            write_mat(tree / "inst" / path.name, as_sbd, categories)
            shutil.copy(path.with_suffix(".jpg"), tree / "JPEGImages")
            expected[path.stem] = (as_sbd, np.array([0, *categories])[as_sbd])
        builder = prepare_voc(voc_dir=tree, data_dir=tmp_path / "tfds")
        source = BuilderDataset(builder).source("train")
        found = {source[i]["name"]: source[i] for i in range(len(source))}
        assert expected.keys() <= found.keys()
        assert len(expected) == 7
        for name, (instances, semantic) in expected.items():
            np.testing.assert_array_equal(found[name]["instances"], instances)
            np.testing.assert_array_equal(found[name]["semantic"], semantic)


def test_a_palette_of_classes_that_is_not_that_of_the_others_is_refused(tmp_path):
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, name in {"train": "a", "val": "b"}.items():
        (lists / f"{split}.txt").write_text(f"{name}\n")
        Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask = Image.new("P", (8, 8), 1)
        for folder in ("SegmentationObject", "SegmentationClass"):
            colors = (1, 2, 3) if split == "train" else (3, 2, 1)
            mask.putpalette([0, 0, 0, *colors])
            mask.save(tmp_path / folder / f"{name}.png")
    with pytest.raises(InputError, match=r"SegmentationClass/.* must have the pal"):
        prepare_voc(voc_dir=tmp_path, data_dir=tmp_path / "tfds")


def test_masks_with_soft_edges_are_refused(tmp_path):
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    large = np.zeros((96, 96), np.uint8)
    large[10:40, 9:51], large[46:90, 35:77] = 60, 120
    for split, name in {"train": "a", "val": "b"}.items():
        (lists / f"{split}.txt").write_text(f"{name}\n")
        Image.new("RGB", (41, 41)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(large).resize((41, 41), Image.Resampling.BILINEAR)
        for folder in ("SegmentationObject", "SegmentationClass"):
            mask.save(tmp_path / folder / f"{name}.png")
    with pytest.raises(InputError, match=r"SegmentationObject/.*must have hard edges"):
        prepare_voc(voc_dir=tmp_path, data_dir=tmp_path / "tfds")
