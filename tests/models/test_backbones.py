"""The backbones: sizes, dilation, and the same numbers as PyTorch's networks."""

import jax
import numpy as np
import pytest

from sphemb import InputError
from sphemb.models import BACKBONES, convert_state_dict
from sphemb.models.backbones import EfficientNetLite0, ResNet, last_map_at
from tests.models.peers import import_timm
from tests.models.states import efficientnet_state, resnet_state

IMAGE = np.random.default_rng(0).uniform(size=(1, 64, 32, 3)).astype(np.float32)


def shapes(model, image=IMAGE):
    """The model's maps as shapes; nothing is computed."""
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.eval_shape(model.apply, variables, image)


class TestSizes:
    @pytest.mark.parametrize(
        ("backbone", "output_stride"),
        [(backbone, 8) for backbone in BACKBONES]
        + [("resnet50", 4), ("resnet18", 16), ("resnet18", 32)]
        + [("efficientnet_lite0", stride) for stride in (4, 16, 32)],
    )
    def test_maps_are_as_announced(self, backbone, output_stride):
        model = BACKBONES[backbone](output_stride=output_stride)
        found = {name: m.shape for name, m in shapes(model).items()}
        assert found == {
            name: (1, 64 // stride, 32 // stride, channels)
            for name, stride, channels, _ in model.feature_maps
        }
        assert model.feature_maps[-1].stride == output_stride == model.stride

    @pytest.mark.parametrize(
        ("depth", "millions"), [(18, 11.177), (34, 21.285), (50, 23.508), (101, 42.5)]
    )
    def test_resnets_have_the_parameters_of_the_paper(self, depth, millions):
        # torchvision's counts without the classifier: 512 or 2048 x 1000 + 1000.
        params = jax.eval_shape(ResNet(depth).init, jax.random.key(0), IMAGE)["params"]
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert count / 1e6 == pytest.approx(millions, abs=1e-3)

    def test_the_deepest_map_of_a_stride_is_found(self):
        maps = EfficientNetLite0(output_stride=8).feature_maps
        assert [last_map_at(maps, s).name for s in (2, 4, 8)] == [
            "stage1",
            "stage2",
            "stage7",
        ]
        with pytest.raises(InputError, match=r"stride must be that of a map .* got 16"):
            last_map_at(maps, 16)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ResNet(19), "depth must be one of 18, 34, 50, 101, got 19"),
            (lambda: ResNet(output_stride=2), "output_stride must be one of 4, 8, 16"),
            (lambda: EfficientNetLite0(batch_norm="no"), "batch_norm must be one of"),
            (lambda: ResNet(dtype="float16"), "dtype must be one of 'float32', 'bfl"),
        ],
    )
    def test_wrong_settings_are_named(self, make, message):
        with pytest.raises(InputError, match=message):
            make()

    def test_a_size_that_does_not_divide_is_refused(self):
        with pytest.raises(InputError, match=r"divisible by 32, got \(64, 40\): pad"):
            shapes(ResNet(18), np.zeros((1, 64, 40, 3)))


class TestDilation:
    """A dilated network holds the values of the undilated one."""

    def test_of_a_resnet_at_the_first_of_every_eight(self):
        variables = convert_state_dict(resnet_state("resnet18"), "resnet18")
        check_dilation(ResNet(18), ResNet(18, output_stride=4), variables, "stage4", 0)

    def test_of_an_efficientnet_at_the_last_of_every_eight(self):
        variables = convert_state_dict(efficientnet_state(), "efficientnet_lite0")
        coarse, fine = EfficientNetLite0(), EfficientNetLite0(output_stride=4)
        check_dilation(coarse, fine, variables, "stage7", 7)


def check_dilation(coarse, fine, variables, name, phase):
    wanted = jax.jit(coarse.apply)(variables, IMAGE)[name]
    found = jax.jit(fine.apply)(variables, IMAGE)[name][:, phase::8, phase::8]
    np.testing.assert_allclose(
        found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max()
    )


class TestParity:
    """The same weights in timm's PyTorch networks."""

    @pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
    def test_of_a_resnet(self, backbone):
        torch, timm = import_timm()
        state = resnet_state(backbone)
        # timm dilates bottlenecks only; the others are compared undilated.
        stride = 8 if backbone == "resnet50" else 32
        peer = timm.create_model(backbone, num_classes=10, output_stride=stride).eval()
        peer.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        x = (IMAGE - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            x = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)
            wanted = [peer.act1(peer.bn1(peer.conv1(x)))]
            x = peer.maxpool(wanted[0])
            for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
                wanted.append(x := layer(x))
        variables = convert_state_dict(state, backbone)
        model = BACKBONES[backbone](output_stride=stride)
        check_parity(model, variables, IMAGE, wanted)

    def test_of_an_efficientnet(self):
        torch, timm = import_timm()
        state = efficientnet_state()
        peer = lite0(timm, torch, state, num_classes=10)
        x = (255 * IMAGE - 127) / 128
        with torch.no_grad():
            x = peer.bn1(peer.conv_stem(torch.tensor(x.transpose(0, 3, 1, 2))))
            wanted = [x]
            for stage in peer.blocks:
                wanted.append(x := stage(x))
        variables = convert_state_dict(state, "efficientnet_lite0")
        check_parity(EfficientNetLite0(), variables, IMAGE, wanted)


def lite0(timm, torch, state, *, num_classes):
    """timm's network with our arrays; both list their layers in the same order."""
    peer = timm.create_model("tf_efficientnet_lite0", num_classes=num_classes).eval()
    names = list(peer.state_dict())
    assert len(names) == len(state)
    arrays = map(torch.tensor, state.values())
    peer.load_state_dict(dict(zip(names, arrays, strict=True)))
    return peer


def check_parity(model, variables, image, wanted):
    """Compares every map, from the image inwards."""
    found = jax.jit(model.apply)(variables, image)
    for (name, *_), theirs in zip(model.feature_maps, wanted, strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        error = np.abs(found[name] - theirs).max() / np.abs(theirs).max()
        print(f"{name}: {error:.1e}")
        assert error < 1e-5
