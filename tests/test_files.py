"""Every file is written whole or not at all, and only by the one function for it."""

from __future__ import annotations

import ast
import contextlib
import os
import pathlib
import resource
import shutil

import pytest

import sphemb
from sphemb._files import written_whole
from sphemb.cli import main
from sphemb.training import train
from tests.models.pickles import write_state
from tests.models.states import resnet_state
from tests.scenes import write_folder
from tests.tiny import tiny_config

SOURCES = pathlib.Path(sphemb.__file__).parent
TIMED = {"images.csv", "summary.json"}  # have the seconds that a prediction took


@contextlib.contextmanager
def files_up_to(size):
    """A disk that takes no more than so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def workdir(drawings_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    config = tiny_config(drawings_dir)
    config.train.num_steps = 1
    train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("whole") / "data", 4)


def predict(workdir, folder, out):
    images = sorted((folder / "images").iterdir())[:1]
    given = ["predict", "--model", workdir, *images, "--out", out]
    return [*given, "--embeddings", "--overwrite"]


def check_data(workdir, folder, out):
    return ["check-data", folder, "--out", out / "report.json"]


def import_weights(workdir, folder, out):
    source = out.parent / "net.pth"
    if not source.exists():
        write_state(source, resnet_state("resnet18"))
    return ["import-weights", source, "--backbone", "resnet18", "--overwrite"]


def score_classes(workdir, folder, out):
    masks = folder / "masks"
    given = ["--predictions", masks, "--groundtruth", masks]
    return ["score", "semantic", *given, "--out", out, "--overwrite"]


def advise(workdir, folder, out):
    return ["advise", folder, "--no-costs", "--out", out, "--overwrite"]


def export(workdir, folder, out):
    given = ["--size", 16, 20, "--out", out, "--overwrite"]
    return ["export", "--workdir", workdir, *given]


def run(arguments):
    """The exit status of a verb."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize(
    "verb",
    [predict, check_data, import_weights, score_classes, advise, export],
    ids=lambda verb: verb.__name__,
)
def test_what_breaks_off_leaves_the_files_as_they_were(
    verb, workdir, folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("SPHEMB_WEIGHTS_DIR", str(out))
    arguments = verb(workdir, folder, out)
    assert run(arguments) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    sizes = sorted(len(content) for content in before.values())
    for limit in {sizes[-1] - 1, sizes[len(sizes) // 2] - 1, 16}:
        capsys.readouterr()
        with files_up_to(limit):
            status = run(arguments)
        assert status == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert set(after) == set(before)
        changed = {path.name for path in after if after[path] != before[path]}
        assert changed <= TIMED
    assert run(arguments) == 0


def test_a_full_disk_ends_evaluate_with_one_line(workdir, tmp_path, capsys):
    copy = shutil.copytree(workdir, tmp_path / "run")
    capsys.readouterr()
    with files_up_to(16):
        assert run(["evaluate", "--workdir", copy, "--split", "validation"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{copy} cannot be written to: " in line


class TestOneFunction:
    def test_names_may_be_as_long_as_a_disk_allows(self, tmp_path):
        path = tmp_path / ("ü" * 125 + ".csv")
        with written_whole(path) as unfinished:
            unfinished.write_text("1")
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    def test_a_pipe_is_written_to_and_stays(self, tmp_path):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        with written_whole(path) as unfinished:
            unfinished.write_text("report")
        assert os.read(end, 10) == b"report"
        assert path.is_fifo()

    def test_two_writers_do_not_meet(self, tmp_path):
        path = tmp_path / "weights.npz"
        with written_whole(path) as one, written_whole(path) as other:
            assert one != other
            one.write_text("1")
            other.write_text("2")
        assert path.read_text() == "1"
        assert len(list(tmp_path.iterdir())) == 1


WRITERS = {
    "save",
    "savez",
    "savez_compressed",
    "savefig",
    "imwrite",
    "save_file",
    "dump",
}


def written_elsewhere(source):
    """The lines of a module that write to a file which is not written whole.

    What may be written to has been bound in its function: to a file of `written_whole`,
    to one opened for it, or to bytes in memory.
    """
    tree = ast.parse(source)
    safe = {"written_whole", "image_written_whole", "BytesIO"}
    good = set()

    def is_good(node):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", getattr(function, "attr", ""))
            if name == "open" and isinstance(function, ast.Attribute):
                return is_good(function.value)
            return name in safe
        return isinstance(node, ast.Name) and node.id in good

    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and is_good(node.context_expr):
            good.add(getattr(node.optional_vars, "id", ""))
        if isinstance(node, ast.Assign) and is_good(node.value):
            good |= {target.id for target in node.targets}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function, arguments = node.func, node.args
        name = getattr(function, "id", getattr(function, "attr", ""))
        target = arguments[0] if arguments else None
        if name == "open":
            is_method = isinstance(function, ast.Attribute)
            owner = getattr(getattr(function, "value", None), "id", "")
            if is_method and owner not in {"os", "Image", "tarfile"}:
                target, arguments = function.value, [None, *arguments]
            mode = arguments[1] if len(arguments) > 1 else None
            text = mode.value if isinstance(mode, ast.Constant) else "r"
            writes = isinstance(text, str) and bool(set("wax+") & set(text))
        elif name in {"write_text", "write_bytes"}:
            writes, target = True, function.value
        else:
            writes = name in WRITERS
        if writes and not is_good(target):
            yield ast.unparse(node)


def test_nothing_else_opens_a_file_to_write():
    found = {
        (str(path.relative_to(SOURCES)), line)
        for path in SOURCES.rglob("*.py")
        for line in written_elsewhere(path.read_text())
    }
    # A log grows by lines, and its reader leaves out one that is cut short; steps are
    # Orbax's, which writes them whole; the reader of MATLAB files answers by a pipe.
    assert {path for path, _ in found} == {
        "data/files/_matlab.py",
        "training/_loop.py",
        "training/_workdir.py",
    }, found


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('a')",
        "open(path, 'w')",
        "with path.open('wb') as file:\n    np.savez(file, a=1)",
        "np.savez_compressed(path, a=1)",
        "figure.savefig(path)",
        "Image.fromarray(array).save(path)",
    ],
)
def test_a_line_that_does_is_found(line):
    assert list(written_elsewhere(line))
    whole = "with written_whole(path) as unfinished:\n    unfinished.write_text('')\n"
    assert not list(written_elsewhere(whole))
