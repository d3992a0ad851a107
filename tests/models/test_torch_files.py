"""PyTorch's files: read without PyTorch, and never run."""

import os
import pathlib
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.models import read_state_dict
from tests.models.pickles import (
    Call,
    Global,
    dumps,
    tensor,
    write_legacy,
    write_state,
    write_zip,
)

A = np.arange(6, dtype=np.float32).reshape(2, 3)
STATE = {
    "a.weight": A,
    "half": np.linspace(0, 1, 4, dtype=np.float16),
    "count": np.array(7),
    "none": np.zeros((0, 3), np.float32),
}


def check_equal(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture(params=[write_zip, write_legacy], ids=["zip", "legacy"])
def write(request):
    return request.param


def refused(path):
    with pytest.raises(InputError) as error:
        read_state_dict(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message.removeprefix(str(path)).strip()


class TestFormats:
    @pytest.mark.parametrize("legacy", [False, True])
    def test_arrays_come_back_by_name(self, tmp_path, legacy):
        path = write_state(tmp_path / "net.pth", STATE, legacy=legacy)
        check_equal(read_state_dict(path), STATE)

    @pytest.mark.parametrize("modern", [False, True])
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_files_of_torch_are_read(self, tmp_path, modern, protocol):
        torch = pytest.importorskip("torch")
        base = torch.arange(24, dtype=torch.float64)
        module = torch.nn.BatchNorm1d(3)  # its state dict carries attributes
        state = module.state_dict()
        state["view"] = base[2:14].view(3, 4).t()
        state["same"] = base[5]
        state["bits"] = torch.tensor([1.5, -2.0, 3e38], dtype=torch.bfloat16)
        state["flag"] = torch.tensor([True, False])
        state["parameter"] = torch.nn.Parameter(torch.ones(2))
        path = tmp_path / "net.pt"
        settings = {"pickle_protocol": protocol}
        torch.save(state, path, _use_new_zipfile_serialization=modern, **settings)
        wide = {k: v.float() if k == "bits" else v for k, v in state.items()}
        check_equal(
            read_state_dict(path), {k: v.detach().numpy() for k, v in wide.items()}
        )

    def test_files_of_safetensors_are_read(self, tmp_path):
        numpy = pytest.importorskip("safetensors.numpy")
        path = tmp_path / "net.safetensors"
        bits = np.array([1.5, -2], jnp.bfloat16)
        numpy.save_file({**STATE, "bits": bits}, path)
        found = read_state_dict(path)
        wanted = {**STATE, "bits": bits.astype(np.float32)}
        check_equal({name: found[name] for name in wanted}, wanted)
        path.write_bytes(path.read_bytes()[:-3])
        assert refused(path).startswith("is damaged or truncated")

    @pytest.mark.parametrize("wrapper", ["state_dict", "model"])
    def test_the_network_of_a_checkpoint_is_found(self, tmp_path, write, wrapper):
        legacy = write is write_legacy
        network = {"module.a": tensor("0", A, legacy=legacy)}
        checkpoint = {"epoch": 3, wrapper: network, "optimizer": {"state": []}}
        path = write(tmp_path / "net.pth", dumps(checkpoint), {"0": A})
        check_equal(read_state_dict(path), {"a": A})


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class TestMalice:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("container", ["plain", "zip", "legacy"])
    def test_code_in_a_pickle_is_refused_and_not_run(
        self, tmp_path, container, protocol
    ):
        marker, path = tmp_path / "marker", tmp_path / "net.pth"
        evil = pickle.dumps({"a": Evil(marker)}, protocol=protocol)
        if container == "plain":
            path.write_bytes(evil)
        else:
            (write_zip if container == "zip" else write_legacy)(path, evil, {"0": A})
        message = refused(path)
        assert "must hold only tensors" in message
        assert f"'{os.system.__module__}.system': nothing of it was run" in message
        assert not marker.exists()
        pickle.loads(evil)  # the file would have been left
        assert marker.exists()

    @pytest.mark.parametrize(
        ("function", "named"),
        [
            (Global("builtins", "eval"), "builtins.eval"),
            (Global("torch", "load"), "torch.load"),
            (Global("torch._utils", "_rebuild_tensor_v2.__globals__"), "globals"),
            (Global("numpy.core.multiarray", "_reconstruct"), "numpy.core"),
        ],
    )
    def test_other_names_are_refused(self, tmp_path, write, function, named):
        evil = dumps({"a": Call(function, ("1",))})
        assert named in refused(write(tmp_path / "net.pth", evil, {}))

    @pytest.mark.parametrize(
        "instructions",
        [
            b"(S'touch x'\nios\nsystem\n.",  # INST
            b"ctorch\nFloatStorage\n)\x81.",  # NEWOBJ
            b"\x82\x01.",  # EXT1
            b"}q\x00h\x002.",  # DUP
        ],
    )
    def test_other_instructions_are_refused(self, tmp_path, write, instructions):
        message = refused(write(tmp_path / "net.pth", b"\x80\x02" + instructions, {}))
        assert "nothing of it was run" in message

    @pytest.mark.parametrize(
        "pickle",
        [
            b"\x80\x02R.",  # a call of nothing
            b"\x80\x02h\x07.",  # a memory that was never filled
            b"\x80\x02}(]Ku.",  # a list as key, and it ends too early
            b"\x80\x02})" + b"\x85" * 10**6 + b"Ns.",  # a key too deep to hash
            b"\x80\x02ctorch\nFloatStorage\n)R.",
            b"\x80\x02}(NNs",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x0fabc.",
            b"\x80\x02",
            b"\x80\x02\xff",
            dumps(Call(Global("collections", "OrderedDict"), ([(1,)],))),
        ],
    )
    def test_nonsense_is_one_line(self, tmp_path, write, pickle):
        refused(write(tmp_path / "net.pth", pickle, {}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"offset": 1},
            {"shape": (2**40,), "strides": (0,)},
            {"size": 2**40, "shape": (2**40,), "strides": (1,)},
            {"shape": (2, 3), "strides": (2**61, 1)},
            {"shape": (-2, 3)},
            {"shape": (2,)},
            {"size": 5, "shape": (5,), "strides": (1,)},
        ],
    )
    def test_a_tensor_beyond_its_storage_is_refused(self, tmp_path, write, changes):
        evil = tensor("0", A, legacy=write is write_legacy, **changes)
        path = write(tmp_path / "net.pth", dumps({"a": evil}), {"0": A})
        assert refused(path).startswith("is damaged or truncated")

    def test_an_archive_that_grows_is_refused(self, tmp_path):
        zeros = np.zeros(2**20, np.float32)
        content = dumps({"a": tensor("0", zeros)})
        path = write_zip(
            tmp_path / "net.pth",
            content,
            {"0": zeros},
            compression=zipfile.ZIP_DEFLATED,
        )
        assert "must be an uncompressed archive" in refused(path)


class TestFiles:
    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_truncated_file_is_refused_wherever_it_ends(self, tmp_path, legacy):
        whole = write_state(tmp_path / "net.pth", STATE, legacy=legacy).read_bytes()
        path = tmp_path / "short.pth"
        for length in range(0, len(whole) - 1, 7):
            path.write_bytes(whole[:length])
            refused(path)

    def test_a_missing_storage_is_named(self, tmp_path, write):
        legacy = write is write_legacy
        content = dumps({"a": tensor("key7", A, legacy=legacy)})
        path = write(tmp_path / "net.pth", content, {})
        assert "storage 'key7' is missing" in refused(path)

    def test_a_value_that_is_not_a_tensor_is_named(self, tmp_path, write):
        content = dumps({"a": tensor("0", A, legacy=write is write_legacy), "lr": 1})
        path = write(tmp_path / "net.pth", content, {"0": A})
        assert "of tensors, got int under 'lr'" in refused(path)

    def test_a_file_of_another_kind_is_refused(self, tmp_path):
        path = tmp_path / "net.pth"
        path.write_text("no network")
        assert "must be a file of torch.save or safetensors" in refused(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme", "no network")
        assert "a zip archive without data.pkl" in refused(path)
        path.write_bytes(pickle.dumps([1, 2]))
        assert "must be a file of torch.save, got another pickle" in refused(path)
        path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
        refused(path)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        assert "No such file" in refused(tmp_path / "net.pth")
        assert "Is a directory" in refused(pathlib.Path(tmp_path))
