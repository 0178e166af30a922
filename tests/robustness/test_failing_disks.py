"""Full, failing and vanishing disks: one clear line, nothing half written, the same results once they are mended.

Every writer is attacked at every file operation, some commands at some; ``failing_disks.py`` attacks all at all.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import failing_disks
import numpy as np
import pytest
from failing_disks import COMMANDS, FAULTS, FROM_THE_START, Command, Disk

from moevoprune import FeatureSet, Front, HeadSettings, InputError, PruningProblem, evolve
from moevoprune.cli import sweeping
from moevoprune.features.row_store import RowStore
from moevoprune.files import write_text
from moevoprune.fronts.plots import style
from moevoprune.search.journal import EvaluationJournal

resource = pytest.importorskip("resource", reason="limits of processes are POSIX'")

N_BITS = 12
IDENTITY = {"data": "small", "search.seed": 1}
NAMES = ("accuracy", "active_neurons")
GENERATOR = np.random.default_rng(5)
MASKS = GENERATOR.random((6, N_BITS)) < 0.5
VALUES = GENERATOR.random((6, 2))


# --- the journal -----------------------------------------------------------------------------------


def keep_journal(path: Path, resume: bool = False) -> None:
    """Write six masks, two at a time, as a search does; those that are there already are not written again."""
    if resume and path.exists():
        journal = EvaluationJournal.resume(path, IDENTITY, N_BITS, NAMES)
    else:
        journal = EvaluationJournal.create(path, IDENTITY, N_BITS, NAMES)
    with journal:
        for start in range(len(journal.entries), 6, 2):
            journal.append(MASKS[start : start + 2], VALUES[start : start + 2])
            journal.sync()


def refusal_of(write: Callable[[Path], object], path: Path) -> str | None:
    """What is said where something cannot be written; None where it was."""
    try:
        write(path)
    except InputError as error:
        why = str(error)
    else:
        return None
    assert "Errno" not in why
    assert "\n" not in why
    return why


def check_journal(path: Path, whole: bytes) -> None:
    """The journal holds whole records of the undisturbed one, and resuming completes it to the same bytes."""
    if path.exists():
        # what is behind the last whole record may be a torn one, which resuming cuts off
        journal = EvaluationJournal.resume(path, IDENTITY, N_BITS, NAMES)
        assert journal.damaged == 0
        journal.close()
        assert whole.startswith(path.read_bytes())
    path.parent.mkdir(exist_ok=True)
    keep_journal(path, resume=True)
    assert path.read_bytes() == whole


@pytest.fixture(scope="module")
def whole_journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("journal") / "whole"
    keep_journal(path)
    return path.read_bytes()


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int | None], None]]:
    """Sets how large files may become; the system itself then cuts a write short, in the middle of a record."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    try:
        yield limit
    finally:
        limit(None)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_journal_that_may_not_grow_beyond_any_byte(
    file_size_limit: Callable[[int | None], None], whole_journal: bytes, tmp_path: Path
) -> None:
    for size in range(len(whole_journal)):
        path = tmp_path / str(size) / "j"
        path.parent.mkdir()
        file_size_limit(size)
        try:
            with pytest.raises(InputError, match=r"cannot write .*File too large; check the disk"):
                keep_journal(path)
        finally:
            file_size_limit(None)
        check_journal(path, whole_journal)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_journal_on_a_disk_that_fails_at_any_operation(fault: str, whole_journal: bytes, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with Disk(disk) as counting:
        keep_journal(disk / "j")
    assert len(counting.operations) == 12
    for at in range(1, len(counting.operations) + 1):
        shutil.rmtree(disk)
        disk.mkdir()
        with Disk(disk, fault, at) as failing:
            why = refusal_of(keep_journal, disk / "j")
        # fsync of the folder is an extra that some file systems lack; a folder may go when all is written
        harmless = "fsync ." in failing.operations[at - 1] or (fault in ("removed", "replaced") and at >= 11)
        assert why or harmless, (at, failing.operations[at - 1])
        if disk.is_file():
            disk.unlink()
        check_journal(disk / "j", whole_journal)


def test_a_journal_that_is_removed_is_noticed_at_the_next_generation(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with EvaluationJournal.create(path, IDENTITY, N_BITS, NAMES) as journal:
        journal.append(MASKS[:4], VALUES[:4])
        path.unlink()
        with pytest.raises(InputError, match="was removed while it was written to; start the run again"):
            journal.sync()
        path.touch()


# --- writers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def front(small_features: FeatureSet) -> Front:
    head = HeadSettings(hidden=(4,), epochs=1, batch_size=32)
    problem = PruningProblem(small_features, objectives=["accuracy", "active_neurons"], head=head, cv=2, seed=1)
    return evolve(problem, pop_size=4, n_gen=1, seed=1, algorithm="nsga2")


@pytest.fixture
def writers(front: Front, small_features: FeatureSet) -> dict[str, Callable[[Path], object]]:
    return {
        "text": lambda disk: write_text(disk / "a.csv", "x" * 9000 + "\n"),
        "features": lambda disk: small_features.save(disk / "f.npz"),
        "front": lambda disk: front.save(disk / "run"),
        "rows": _append_rows,
    }


def _append_rows(disk: Path) -> None:
    digests = [bytes([number]) * 32 for number in range(1, 7)]
    rows = np.arange(30, dtype=np.float32).reshape(6, 5)
    with RowStore(disk / "cache", 5) as store:
        for start in (0, 3):
            missing = [n for n in range(start, start + 3) if store.find([digests[n]])[0] < 0]
            if missing:
                store.append([digests[n] for n in missing], rows[missing])
        assert np.array_equal(store.read(store.find(digests)), rows)


def contents(disk: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(disk)): path.read_bytes()
        for path in sorted(disk.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("fault", [*FAULTS, *FROM_THE_START])
@pytest.mark.parametrize("writer", ["text", "features", "front", "rows"])
def test_a_writer_on_a_disk_that_fails_at_any_operation(
    writer: str, fault: str, writers: dict[str, Callable[[Path], object]], tmp_path: Path
) -> None:
    disk, write = tmp_path / "disk", writers[writer]
    disk.mkdir()
    with Disk(disk) as counting:
        write(disk)
    expected = contents(disk)
    points = [0] if fault in FROM_THE_START else failing_disks.points(counting.operations, None, 0)
    failures = 0
    for at in points:
        shutil.rmtree(disk)
        disk.mkdir()
        with Disk(disk, fault, at):
            failures += refusal_of(write, disk) is not None
        if disk.is_file():
            disk.unlink()
        disk.mkdir(exist_ok=True)
        if writer != "rows":
            removable = fault not in ("readonly", "stale")
            left = [name for name in contents(disk) if name not in expected]
            assert not (left and removable), (at, left)
            # what is there is whole
            assert {name: content for name, content in contents(disk).items() if name not in left}.items() <= (
                expected.items()
            )
        write(disk)
        assert {name: contents(disk)[name] for name in expected} == expected
    assert failures > 0 or fault in FROM_THE_START


# --- commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 20)
        failing_disks.lay_out(folder)
        yield folder


def command(name: str) -> Command:
    return next(one for one in COMMANDS if one.name == name)


@pytest.mark.parametrize(
    ("name", "most"), [("run", 1), ("sweep", 2), ("ensemble", 2), ("export", 1), ("report", 1), ("construct", 2)]
)
def test_a_command_on_a_disk_that_fails(name: str, most: int, desk: Path, tmp_path: Path) -> None:
    faults = ("full", "removed") if name != "run" else ("full",)
    attacks = failing_disks.attack_all([command(name)], faults, desk, tmp_path, most, 1)
    assert [wrong for *_, wrong in attacks] == [[]] * len(faults)


def test_a_comparison_whose_tables_are_removed_before_its_figures_says_so(desk: Path, tmp_path: Path) -> None:
    one = command("compare")
    operations, expected = failing_disks.undisturbed(one, desk, tmp_path)
    disk = tmp_path / "disk"
    failing_disks.begin(one, desk, disk)
    with Disk(disk, "removed", operations.index("mkdir c/figures") + 1):
        outcome = failing_disks.give(one, desk, disk)
    assert outcome.code == 2
    assert (
        outcome.stderr
        == f"moevoprune: error: {disk / 'c'}: was removed while it was written to: give the same "
        + ("command again\n")
    )
    assert failing_disks.give_again(one, desk, disk).code == 0
    assert failing_disks.results_of(one, disk) == expected


def test_a_quiet_sweep_whose_runs_fail_says_so(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(sweeping, "search_into", fail)
    outcome = failing_disks.give(command("sweep"), desk, tmp_path)
    assert outcome.code == 1
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("moevoprune: error: 2 of 2 runs failed, the first is ")
    assert "the disk is full" in line
    assert "to go on: moevoprune sweep" in line


@pytest.mark.slow
def test_commands_on_real_small_file_systems() -> None:
    if not failing_disks.may_mount():
        pytest.skip("file systems cannot be mounted here: that needs Linux and root, or user namespaces")
    words = [sys.executable, failing_disks.__file__, "--mount", "--commands", "ensemble", "--points", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 wrong" in done.stdout.splitlines()[-1]
