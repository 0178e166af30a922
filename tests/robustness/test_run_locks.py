"""A folder has one writer at a time, and a killed writer locks nobody out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from moevoprune import FeatureSet, InputError, PruningProblem, evolve
from moevoprune.cli.main import main
from moevoprune.locks import LOCK, claim, only_writer, only_writer_of
from moevoprune.search.journal import EvaluationJournal

# a holder that imports nothing heavy, so that it is there at once
HOLDER = """
import sys
from pathlib import Path
from moevoprune.locks import only_writer, only_writer_of
path = Path(sys.argv[2])
with only_writer(path) if sys.argv[1] == "folder" else only_writer_of(path):
    print("held", flush=True)
    sys.stdin.read()
"""

needs_flock = pytest.mark.skipif(os.name != "posix", reason="locks of open files are POSIX's")


@contextmanager
def another_process(path: Path, kind: str = "folder") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is killed, or the block ends."""
    command = [sys.executable, "-c", HOLDER, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def features_file(small_features: FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.npz"
    small_features.save(path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


QUICK = ["--pop", "4", "--gens", "1", "--set", "hidden=4", "--set", "epochs=1", "--cv", "2", "--quiet"]


def commands(data: Path, out: Path) -> dict[str, list[str]]:
    """Every command that writes into a folder of its own."""
    folder = ["--out", str(out)]
    return {
        "run": ["run", str(data), *folder, *QUICK],
        "resumed run": ["run", *folder, "--resume", "--quiet"],
        "sweep": ["sweep", str(data), *folder, "--seeds", "1", "--jobs", "1", *QUICK],
        "compare": ["compare", str(data), *folder, "--seeds", "1", "--jobs", "1", "--methods", "dense"],
        "resumed comparison": ["compare", *folder, "--resume"],
        "filters": ["filters", *folder, "--network", "cnn"],
        "resumed filters": ["filters", *folder, "--resume"],
        "construct": ["construct", str(data), *folder, "--quick"],
    }


def test_a_second_process_is_refused_by_every_command_and_changes_nothing(features_file, tmp_path, capsys):
    out = tmp_path / "out"
    with another_process(out) as holder:
        (out / "config.toml").write_text("what the other one writes")
        before = content(out)
        for name, arguments in commands(features_file, out).items():
            assert main(arguments) == 2, name
            said = capsys.readouterr().err
            assert said == (
                f"moevoprune: error: {out}: another process ({holder.pid}) is writing to it: wait until that has "
                "ended, or choose another --out folder\n"
            ), name
        assert content(out) == before


def test_the_lock_of_a_killed_process_locks_nobody_out(features_file, tmp_path, capsys):
    out = tmp_path / "out"
    with another_process(out) as holder:
        os.kill(holder.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        holder.wait()
    assert (out / LOCK).exists()
    # neither is the folder taken for that of another run
    filters = commands(features_file, out)["filters"]
    assert main([*filters, "--weights", str(tmp_path / "missing")]) == 2
    assert f"{tmp_path / 'missing'}: no state dict" in capsys.readouterr().err
    (out / LOCK).touch()
    assert main(commands(features_file, out)["run"]) == 0
    assert (out / "front.csv").exists()
    assert not (out / LOCK).exists()


def test_readers_are_not_kept_out(features_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(commands(features_file, out)["run"]) == 0
    with another_process(out):
        for command in ("show", "report"):
            assert main([command, str(out)]) == 0, command
        EvaluationJournal.read(out / "evaluations.journal")


def test_a_run_of_a_sweep_that_is_under_way_elsewhere_stops_no_other(features_file, tmp_path, capsys):
    out = tmp_path / "sweep"
    sweep = [*commands(features_file, out)["sweep"], "--fronts-only"]
    sweep[sweep.index("--seeds") + 1] = "2"
    sweep.remove("--quiet")
    with another_process(out / "small-seed1") as holder:
        assert main(sweep) == 1
        assert f"small-seed1: another process ({holder.pid}) is writing to it" in capsys.readouterr().out
    assert (out / "small-seed2" / "front.csv").exists()
    assert main([*sweep, "--resume"]) == 0
    assert not list(tmp_path.rglob(LOCK))


def test_a_feature_file_is_extracted_by_one_process(tmp_path, capsys):
    out = tmp_path / "features.npz"
    with another_process(out, "file") as holder:
        assert main(["extract", str(tmp_path), "--out", str(out)]) == 2
        assert f"{out}: another process ({holder.pid}) is writing to it" in capsys.readouterr().err
        assert not out.exists()


def test_a_command_that_fails_leaves_no_folder_behind(tmp_path, capsys):
    out = tmp_path / "a" / "b"
    assert main(["run", str(tmp_path / "missing.npz"), "--out", str(out)]) == 2
    assert main(["run", "--out", str(out), "--resume"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_free_again_after_its_block_also_where_that_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), only_writer(tmp_path):
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_two_writers_in_one_process_are_refused_and_do_not_wait_for_each_other(tmp_path):
    refused: list[str] = []

    def try_it() -> None:
        with pytest.raises(InputError) as error, only_writer(tmp_path):
            pass
        refused.append(str(error.value))

    with only_writer(tmp_path):
        try_it()
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join(20)
    assert len(refused) == 2
    assert all(f"({os.getpid()})" in said for said in refused)


@needs_flock
# what is forked here uses none of the threads that were there
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path):
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        lock = only_writer(tmp_path)
        lock.__enter__()
        child = os.fork()
        if child == 0:
            os.write(writing, str(os.getpid()).encode())
            signal.pause()
        signal.pause()
    try:
        child = int(os.read(reading, 20))
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.kill(child, 0)
        with only_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


@needs_flock
def test_hostile_files_in_place_of_the_lock_are_not_written_to(tmp_path):
    (tmp_path / "treasure").write_text("gold")
    for number, make in enumerate(
        [
            lambda path: path.symlink_to(tmp_path / "treasure"),
            lambda path: os.mkfifo(path),
            lambda path: path.mkdir(),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / LOCK)
        with only_writer(folder):
            pass
    assert (tmp_path / "treasure").read_text() == "gold"


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"12 elsewhere\x1b[2J\n", b"9" * 1000, b"x y\n"])
def test_what_a_lock_says_of_its_holder_is_not_trusted(tmp_path, text):
    with only_writer(tmp_path):
        (tmp_path / LOCK).write_bytes(text)
        with pytest.raises(InputError, match="is writing to it") as error, only_writer(tmp_path):
            pass
        said = str(error.value)
        assert said.isprintable()
        assert len(said) < 600 + len(str(tmp_path))


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch):
    import errno

    from filelock import FileLock

    def unable(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(FileLock, "acquire", unable)
    monkeypatch.setattr("filelock.lock_descriptor", unable)
    with only_writer(tmp_path), only_writer(tmp_path), only_writer_of(tmp_path / "file"):
        assert claim(0)


@needs_flock
def test_a_journal_has_one_writer(tmp_path, small_features, quick_head):
    path = tmp_path / "search.journal"
    problem = PruningProblem(small_features, head=quick_head, cv=2, jobs=1)
    names = [objective.name for objective in problem.objectives]
    journal = EvaluationJournal.create(path, problem.identity() | {"search.seed": 1}, problem.n_var, names)
    journal.append(np.ones((1, problem.n_var), dtype=bool), np.ones((1, len(names))))
    journal.sync()
    before = path.read_bytes()
    with pytest.raises(InputError, match="is being written by another search"):
        evolve(problem, pop_size=4, n_gen=1, seed=1, journal=path, resume=True)
    assert path.read_bytes() == before
    assert len(EvaluationJournal.read(path)[1]) == 1
    journal.close()
    evolve(problem, pop_size=4, n_gen=1, seed=1, journal=path, resume=True)


@needs_flock
def test_a_journal_that_grew_until_it_could_be_locked_is_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "search.journal"
    mask, value = np.array([[True, False]]), np.array([[0.5]])

    def late(_: int, wait: bool = False) -> bool:
        # a writer that ends just before the lock is taken
        monkeypatch.undo()
        with EvaluationJournal.resume(path, {}, 2, ["a"]) as other:
            other.append(mask, value)
        return True

    EvaluationJournal.create(path, {}, 2, ["a"]).close()
    monkeypatch.setattr("moevoprune.search.journal.claim", late)
    with EvaluationJournal.resume(path, {}, 2, ["a"]) as journal:
        assert len(journal.entries) == 1
        journal.append(~mask, value)
    assert len(EvaluationJournal.read(path)[1]) == 2
