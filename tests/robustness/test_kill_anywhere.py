"""A part of ``kill_anywhere.py``: each command killed at a few chosen and random moments, and resumed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kill_anywhere import CASES, Desk, Harness, Loss, check_whole, check_whole_folder, draw_nothing, prepare
from kills import Kill, Operation, Phase, run_forked

from moevoprune import Front, InputError
from moevoprune.cli.main import main
from moevoprune.cli.run import is_finished
from moevoprune.files import remove_leftovers
from moevoprune.search.journal import EvaluationJournal

pytestmark = [
    pytest.mark.skipif(
        not hasattr(os, "fork") or not Path("/proc/self/fd").is_dir(), reason="forks, and asks /proc"
    ),
    # the children use none of the threads that were there
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

Make = Callable[[str], Harness]


@pytest.fixture(scope="module")
def harness_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes the harness of a command, once; figures are written as files, but nothing is drawn on them."""
    from matplotlib.figure import Figure

    prepare()
    work = tmp_path_factory.mktemp("kills")
    (work / "desk").mkdir()
    desk = Desk(work / "desk")
    made: dict[str, Harness] = {}

    def harness(name: str) -> Harness:
        if name not in made:
            (work / name).mkdir()
            made[name] = Harness(name, desk, work / name, random.Random(name), twice=False)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        # set to what it is, so that it is put back
        patch.setattr(Figure, "savefig", Figure.savefig)
        draw_nothing()
        yield harness


def place(operations: tuple[Operation, ...], kind: str, name: str, which: int = 0) -> int:
    """Number of an operation on a file, or one that becomes that file; among several the one asked for."""
    numbers = [
        number
        for number, operation in enumerate(operations, start=1)
        if operation.kind == kind and (operation.target or operation.path).endswith(name)
    ]
    return numbers[which]


@pytest.mark.parametrize(
    ("kind", "name", "which", "phase"),
    [
        pytest.param("replace", "out/config.toml", 0, "before", id="before there are settings"),
        pytest.param("write", ".journal", 0, "within", id="within the header of the journal"),
        pytest.param("write", ".journal", -1, "within", id="within a record of the journal"),
        pytest.param("replace", "front.npz", 0, "before", id="between the heads and the front"),
        pytest.param("replace", "front.csv", 0, "after", id="between a rename and the sync of its folder"),
        pytest.param("replace", "report.html", 0, "before", id="before the last file"),
    ],
)
def test_a_run_that_is_killed_at_a_file_goes_on_to_the_same_end(harness_of, kind, name, which, phase):
    harness = harness_of("run")
    harness.kill([Kill(operation=place(harness.operations, kind, name, which), phase=phase)])


def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_end(harness_of):
    harness = harness_of("run")
    before = harness.tally.kills
    harness.kill([harness.random_kill(by_time=True), harness.random_kill(by_time=False)])
    assert harness.tally.kills > before


@pytest.mark.parametrize("name", ["extract", "compare", "sweep"])
def test_other_commands_go_on_to_the_same_end_too(harness_of, name):
    harness = harness_of(name)
    harness.kill([harness.random_kill(by_time=False)])
    kinds = {operation.kind for operation in harness.operations}
    assert {"write", "fsync", "replace", "fsync of a folder"} <= kinds
    harness.kill([Kill(operation=place(harness.operations, "write", "", -1), phase="within")])
    assert harness.tally.kills == 2
    assert harness.tally.resumes == 2


def test_commands_that_differentiate_go_on_to_the_same_end_too():
    """In a process of their own: PyTorch differentiates in no child of a process that has done so."""
    script = Path(__file__).with_name("kill_anywhere.py")
    options = ["--commands", "filters,construct", "--kills", "2"]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    assert "4 kills, lost: nothing" in done.stdout, done.stdout + done.stderr


def test_a_comparison_that_is_killed_before_it_has_settings_is_begun_anew(harness_of):
    harness = harness_of("compare")
    harness.kill([Kill(operation=place(harness.operations, "replace", "out/compare.json"), phase="before")])


def test_a_sweep_that_is_killed_between_two_runs_leaves_no_lock_behind(harness_of):
    harness = harness_of("sweep")
    harness.kill([Kill(operation=place(harness.operations, "unlink", "seed1/.moevoprune.lock"), phase="before")])


def test_an_extraction_that_is_killed_within_its_rows_computes_only_what_is_missing(harness_of):
    harness = harness_of("extract")
    for name, phase in (("rows.f32", "within"), ("batches.jsonl", "within"), ("rows.f32", "after")):
        number = place(harness.operations, "write", name, 3)
        harness.kill([Kill(operation=number, phase=phase)])


def finished_copy(harness: Harness, folder: Path) -> Path:
    return Path(shutil.copytree(harness.finished, folder / "out"))


def test_the_report_of_an_interrupted_run_does_not_make_a_killed_resume_look_finished(harness_of, tmp_path):
    """An interrupted run has a report, and the record says that it was interrupted."""

    def resume(folder: Path, kill: Kill | None) -> tuple[Operation, ...]:
        folder.mkdir()
        out = finished_copy(harness_of("run"), folder)
        record = json.loads((out / "run.json").read_text())
        (out / "run.json").write_text(json.dumps({**record, "interrupted": True}))
        command = ["run", "--out", str(out), "--resume", "--jobs", "1"]
        outcome = run_forked(main, command, folder, tmp_path / "said.txt", kill)
        assert outcome.code == (0 if kill is None else None), outcome.said
        return outcome.operations

    operations = resume(tmp_path / "whole", None)
    assert is_finished(tmp_path / "whole" / "out")
    resume(tmp_path / "killed", Kill(operation=place(operations, "replace", "run.json"), phase="after"))
    assert not is_finished(tmp_path / "killed" / "out")


def test_heads_of_another_front_are_refused(harness_of, tmp_path):
    runs = harness_of("sweep").finished
    mixed = shutil.copytree(runs / "small-seed1", tmp_path / "mixed")
    assert len(Front.load(mixed)) > 0
    shutil.copy(runs / "small-seed2" / "heads.safetensors", mixed)
    with pytest.raises(InputError, match=r"heads\.safetensors: belongs to another front"):
        Front.load(mixed)


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    kept = ["front.csv", ".hidden", ".name.0123456.csv", "name.01234567.csv"]
    left = [".front.01234567.csv", ".heads.89abcdef.safetensors", ".noending.89abcdef"]
    for name in kept + left:
        (tmp_path / name).touch()
    # what a feature folder leaves, which another command may be writing
    (tmp_path / ".folder.01234567").mkdir()
    remove_leftovers(tmp_path, "front.npz")
    assert not (tmp_path / left[0]).exists()
    assert (tmp_path / left[1]).exists()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".folder.01234567"}


@pytest.mark.parametrize(
    ("name", "whole", "torn"),
    [
        ("a.csv", "a,b\n1,2\n", "a,b\n1,"),
        ("a.csv", "a,b\n1,2\n", "a,b\n1\n"),
        ("a.json", "{}", "{"),
        ("a.html", "<html></html>", "<html></ht"),
        ("a.md", "words\n", "wor"),
    ],
)
def test_the_check_would_notice_half_a_file(tmp_path, name, whole, torn):
    path = tmp_path / name
    path.write_text(whole)
    check_whole_folder(tmp_path)
    path.write_text(torn)
    with pytest.raises(Loss):
        check_whole(path)


def test_the_check_would_notice_half_of_any_file_of_a_run(harness_of, tmp_path):
    """But of the journal, whose last record may be torn."""
    for path in sorted(harness_of("run").finished.rglob("*")):
        if path.is_file() and path.suffix != ".journal":
            torn = tmp_path / path.name
            torn.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            with pytest.raises(Loss):
                check_whole(torn)


def test_the_comparison_would_notice_a_lost_record(harness_of):
    """A resume that went on with another journal would end with another one."""
    harness = harness_of("run")
    path = harness.finished / "evaluations.journal"
    _, masks, values = EvaluationJournal.read(path)
    assert len(masks) == len(values) > 6
    with pytest.raises(Loss, match=r"front\.csv"):
        harness.compare({**harness.expected, "front.csv": b""}, "changed")
    with pytest.raises(Loss, match="not in both"):
        harness.compare({**harness.expected, "more.csv": b""}, "changed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "compare"])
def test_workers_end_with_a_killed_process(harness_of, name):
    harness = harness_of(name)
    harness.kill_with_workers(2)
    assert harness.tally.losses == []
    assert harness.tally.workers > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_commands_are_killed_anywhere(harness_of, name):
    harness = harness_of(name)
    harness.kill_often(20)
    assert harness.tally.losses == []


def test_the_phases_of_a_kill_are_what_they_say(tmp_path):
    """Before a rename there is nothing, after it the file; within a write there is half of it."""

    def write(_: object) -> int:
        path = tmp_path / "files" / "temporary"
        path.write_bytes(b"0123456789")
        os.replace(path, tmp_path / "files" / "final")
        return 0

    def killed(operation: int, phase: Phase) -> dict[str, bytes]:
        shutil.rmtree(tmp_path / "files", ignore_errors=True)
        (tmp_path / "files").mkdir()
        outcome = run_forked(
            write, [], tmp_path / "files", tmp_path / "log", Kill(operation=operation, phase=phase)
        )
        assert outcome.code is None
        return {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}

    assert killed(1, "before") == {}
    assert killed(2, "before") == {"temporary": b""}
    assert killed(2, "within") == {"temporary": b"01234"}
    assert killed(3, "before") == {"temporary": b"0123456789"}
    assert killed(3, "after") == {"final": b"0123456789"}
