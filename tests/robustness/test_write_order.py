"""What survives a power loss: a file is written, synced and renamed, and then its folder synced, in this order."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from kill_anywhere import CASES, Desk, prepare
from kills import Operation, run_forked

import moevoprune

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are asked of /proc"),
    # the children use none of the threads that were there
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

# PyTorch differentiates in no child of a process that has done so, as other tests do
OWN_PROCESS = "MOEVOPRUNE_TESTS_OWN_PROCESS"
differentiates = pytest.mark.skipif(
    OWN_PROCESS not in os.environ, reason="run by test_what_differentiates_in_a_process_of_its_own"
)

PACKAGE = Path(moevoprune.__file__).parent
# written to in place: a journal and a store of rows have checksums and grow, a lock holds nothing
GROWING = (".journal", "rows.f32", "batches.jsonl", "lock", ".lock")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    prepare()
    return Desk(tmp_path_factory.mktemp("desk"))


def recorded(command: Callable[[Sequence[str]], int], arguments: Sequence[str], folder: Path) -> list[Operation]:
    """What a command does to files below a folder."""
    environment = {"MOEVOPRUNE_CACHE": str(folder / "cache")}
    outcome = run_forked(command, arguments, folder, folder.with_suffix(".log"), environment=environment)
    assert outcome.code == 0, outcome.said
    return list(outcome.operations)


def check_order(operations: Sequence[Operation], folder: Path) -> int:
    """Check all files below a folder; returns how many were renamed into place."""
    folder = Path(os.path.realpath(folder))
    renamed = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(GROWING):
            check_file(operations, path)
            renamed += 1
    check_folders(operations)
    return renamed


def check_file(operations: Sequence[Operation], path: Path) -> None:
    """Check every time that a file came into its place, by itself or with its folder."""
    by_itself = [
        (number, operation.path)
        for number, operation in enumerate(operations)
        if operation.kind in ("replace", "rename") and operation.target == str(path)
    ]
    with_its_folder = [
        (number, str(Path(operation.path) / path.name))
        for number, operation in enumerate(operations)
        if operation.kind == "rename" and operation.target == str(path.parent)
    ]
    assert by_itself or with_its_folder, f"{path} was not renamed into place"
    written = [operation for operation in operations if operation.kind == "write" and operation.path == str(path)]
    assert not written, f"{path} is written under its final name"
    for number, temporary in by_itself:
        assert last(operations, "write", temporary) < last(operations, "fsync", temporary) < number, path
        assert first_after(operations, number, "fsync of a folder", path.parent), path
    for number, temporary in with_its_folder:
        folder = str(Path(temporary).parent)
        assert last(operations, "write", temporary) < last(operations, "fsync", temporary), path
        assert last(operations, "fsync", temporary) < last(operations, "fsync of a folder", folder) < number, path
        assert first_after(operations, number, "fsync of a folder", path.parent.parent), path


def last(operations: Sequence[Operation], kind: str, path: str | Path) -> int:
    numbers = [n for n, operation in enumerate(operations) if operation[:2] == (kind, str(path))]
    assert numbers, f"no {kind} of {path}"
    return numbers[-1]


def first_after(operations: Sequence[Operation], number: int, kind: str, path: str | Path) -> bool:
    """Whether something is done to a file before anything else is renamed."""
    for operation in operations[number + 1 :]:
        if operation[:2] == (kind, str(path)):
            return True
        if operation.kind in ("replace", "rename"):
            return False
    return False


def check_folders(operations: Sequence[Operation]) -> None:
    """A new folder is in its parent for good before a file in it is."""
    for number, operation in enumerate(operations):
        if operation.kind != "mkdir" or Path(operation.path).name.startswith("."):
            continue
        parent = str(Path(operation.path).parent)
        for later in operations[number + 1 :]:
            if later[:2] == ("fsync of a folder", parent):
                break
            inside = later.target is not None and later.target.startswith(operation.path + os.sep)
            assert not inside, f"{operation.path} is not in {parent} for good before {later}"


def cli(arguments: Sequence[str]) -> int:
    from moevoprune.cli.main import main

    return main(arguments)


def test_what_differentiates_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "synced", __file__],
        env={**os.environ, OWN_PROCESS: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout
    assert "skipped" not in done.stdout


@differentiates
@pytest.mark.parametrize("name", ["run", "compare", "sweep", "filters", "construct", "extract"])
def test_every_file_of_a_command_is_synced_before_it_has_its_name_and_its_folder_afterwards(name, desk, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    case = CASES[name]
    operations = recorded(cli, case.start(desk, folder / case.out), folder)
    if name == "extract":
        assert check_order(operations, folder) == 1
        rows, log = (os.path.realpath(next(folder.rglob(file))) for file in ("rows.f32", "batches.jsonl"))
        written = [last(operations, "write", file) for file in (rows, log)]
        synced = [last(operations, "fsync", file) for file in (rows, log)]
        assert max(written) < synced[0] < synced[1]
        return
    assert check_order(operations, folder) >= 3
    for journal in folder.rglob("*.journal"):
        check_journal(operations, journal)


def check_journal(operations: Sequence[Operation], journal: Path) -> None:
    """Every generation is synced at once, and before any result is written."""
    path = os.path.realpath(journal)
    own = [(number, operation.kind) for number, operation in enumerate(operations) if operation.path == path]
    kinds = [kind for _, kind in own if kind in ("write", "fsync")]
    # the header, and then the generations; a sync with nothing new does no harm
    assert kinds[:2] == ["write", "fsync"]
    assert kinds.count("write") >= 3
    assert "write write" not in " ".join(kinds)
    assert kinds[-1] == "fsync"
    header = next(number for number, kind in own if kind == "fsync")
    assert operations[header + 1][:2] == ("fsync of a folder", os.path.dirname(path))
    results = [
        number
        for number, operation in enumerate(operations)
        if operation.target in [os.path.join(os.path.dirname(path), name) for name in ("front.npz", "front.csv")]
    ]
    assert own[-1][0] < min(results)


@differentiates
def test_every_file_of_the_python_functions_is_synced_too(desk, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()

    def save_all(_: Sequence[str]) -> int:
        from moevoprune import FeatureSet, HeadSettings, evolve, load_features
        from moevoprune.fronts.export import export_head

        features = FeatureSet.load(desk.features)
        features.save(folder / "features.npz")
        features.save_folder(folder / "features")
        # made and kept in the cache
        load_features("digits")
        problem = moevoprune.PruningProblem(features, head=HeadSettings(hidden=(4,), epochs=1), cv=2, jobs=1)
        front = evolve(problem, pop_size=4, n_gen=1, seed=1)
        front.save(folder / "front")
        export_head(front.heads[0], folder / "head.safetensors", features.X_test, batches=())
        return 0

    operations = recorded(save_all, [], folder)
    assert check_order(operations, folder) >= 9


def test_the_check_of_the_order_would_notice(tmp_path):
    """Each of these orders loses something."""
    path = tmp_path / "a.csv"
    path.touch()
    write, fsync = Operation("write", f"{tmp_path}/t"), Operation("fsync", f"{tmp_path}/t")
    replace, folder = (
        Operation("replace", f"{tmp_path}/t", str(path)),
        Operation("fsync of a folder", str(tmp_path)),
    )
    check_file([write, fsync, replace, folder], path)
    for wrong in (
        [],
        [write, replace, folder],
        [fsync, write, replace, folder],
        [write, replace, fsync, folder],
        [write, fsync, replace],
        [write, fsync, folder, replace],
        [Operation("write", str(path)), write, fsync, replace, folder],
    ):
        with pytest.raises(AssertionError):
            check_file(wrong, path)


# what writes to files where the path is not one of atomic_path, and why that is well
KNOWN = {
    "features/corruptions.py": "into memory",
    "studies/merged_heat_maps.py": "into memory",
    "studies/digit_images.py": "images for an experiment, made anew by every call",
    "files.py": "atomic_path and write_text themselves",
    "search/journal.py": "grows, with a checksum for every record",
    "features/row_store.py": "grows, with a checksum for every batch",
    "features/feature_folder.py": "a new folder of synced files, renamed as a whole",
    "features/npz_files.py": "writes into an archive that is open",
    "fronts/export/exporting.py": "into the temporary file that it is given",
    "fronts/export/formats.py": "into memory",
    "fronts/report/pictures.py": "into memory",
    "fronts/report/heat.py": "into memory",
}
WRITERS = {
    "write_bytes",
    "write_text",
    "savefig",
    "save",
    "savez",
    "savez_compressed",
    "ZipFile",
    "imsave",
    "tofile",
}


def test_no_writer_goes_past_the_one_that_syncs_and_renames():
    past, found = set(), 0
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sheltered = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.With) and "atomic_path" in ast.unparse(block.items[0])
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _writes_a_file(node):
                found += 1
                if id(node) not in sheltered and name not in KNOWN:
                    past.add(f"{name}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert found > 15
    assert not past


def _writes_a_file(call: ast.Call) -> bool:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    if name == "open":
        words = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
        return any(isinstance(word, str) and word in _WRITING for word in words)
    if name == "ZipFile":
        return len(call.args) > 1
    if name == "save":
        # of numpy, torch and pictures; those of this package are looked at where they are
        return owner in ("np", "torch", "numpy", "torch.export", "onnx", "image", "picture")
    if name == "write_text":
        return bool(owner)
    return name in WRITERS or (name in ("rename", "replace") and owner == "os")


_WRITING = {f"{kind}{b}{plus}" for kind in "wax" for b in ("", "b") for plus in ("", "+")} | {"r+", "rb+", "r+b"}


def test_arrays_that_are_read_back_are_those_that_were_saved(desk, tmp_path):
    """The recorder itself changes nothing."""

    def save(_: Sequence[str]) -> int:
        from moevoprune import FeatureSet

        FeatureSet.load(desk.features).save(tmp_path / "files" / "again.npz")
        return 0

    (tmp_path / "files").mkdir()
    recorded(save, [], tmp_path / "files")
    with np.load(desk.features) as one, np.load(tmp_path / "files" / "again.npz") as other:
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
