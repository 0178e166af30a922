"""A run of thousands of generations: memory, time per generation, open files and threads stay as they are.

    python tests/robustness/long_run.py [--generations 2000] [--evaluations 500000] [--seed 0]

A small problem is searched with journal and progress as ``moevoprune run`` does it, by each algorithm in a process
of its own. Every 20 generations it is measured what the process holds. At the end the journal is replayed, and the
front must be the same. Then a journal as two days fill it (masks of 1,280 bits, three objectives) is written and
read back. Times are processor time. Exit code 1 where anything grew, or was lost. Linux, as it looks into /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moevoprune import FeatureSet, HeadSettings, PruningProblem
from moevoprune.search.journal import EvaluationJournal
from moevoprune.search.loop import Generation, SearchResult, run_search
from moevoprune.search.mask_memory import MaskValues

N_FEATURES, N_ROWS, N_TEST_ROWS = 200, 90, 30
# what lies before is start-up: caches fill, the allocator finds its size
SETTLED = 100
MOST_MEMORY = 1.05
MOST_TIME = 1.25
LONG_MASK, LONG_OBJECTIVES = 1280, ["accuracy", "active_neurons", "cka"]
# what is kept of a mask, twice over, as arrays are copied to grow
MOST_BYTES_HELD = 400
MOST_BYTES_WRITTEN = 320
# a minute for half a million
MOST_REPLAY_SECONDS = 60 / 500_000


@dataclass
class Sample:
    """What a process holds after a generation.

    Attributes
    ----------
    generation
        Its number.
    resident
        Bytes of memory in use.
    blocks
        Python's own memory blocks, which the allocator's habits do not blur.
    files, threads
        Open file handles, and threads.
    archive
        Members of the archive.
    """

    generation: int
    resident: int
    blocks: int
    files: int
    threads: int
    archive: int


class TimedProblem(PruningProblem):
    """A problem that knows how much processor time its training took."""

    training_seconds = 0.0

    def _measure(self, bits: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
        measured = super()._measure(bits)
        while True:
            started = time.process_time()
            entry = next(measured, None)
            self.training_seconds += time.process_time() - started
            if entry is None:
                return
            yield entry


class Watch:
    """Told of every generation; keeps its time, and at times what the process holds."""

    def __init__(self, problem: TimedProblem, every: int) -> None:
        self.samples: list[Sample] = []
        self.training: list[float] = []
        self.searching: list[float] = []
        self._problem = problem
        self._every = every
        self._started = time.process_time()
        self._trained = problem.training_seconds

    def __call__(self, generation: Generation) -> None:
        taken = time.process_time() - self._started
        training = self._problem.training_seconds - self._trained
        self.training.append(training)
        self.searching.append(taken - training)
        if generation.number % self._every == 0:
            self.samples.append(take_sample(generation))
        self._trained = self._problem.training_seconds
        self._started = time.process_time()


def take_sample(generation: Generation) -> Sample:
    """Measure this process."""
    return Sample(
        generation.number,
        resident_bytes(),
        sys.getallocatedblocks(),
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        generation.archive_size,
    )


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_problem(seed: int) -> TimedProblem:
    """200 features, of which 16 tell three classes; a head trains in a millisecond."""
    generator = np.random.default_rng(seed)
    labels = np.arange(N_ROWS + N_TEST_ROWS) % 3
    rows = generator.normal(size=(len(labels), N_FEATURES))
    rows[:, :16] += generator.normal(size=(3, 16))[labels]
    features = FeatureSet(rows[:N_ROWS], labels[:N_ROWS], rows[N_ROWS:], labels[N_ROWS:], name="long")
    return TimedProblem(features, head=HeadSettings(hidden=(4,), epochs=1, batch_size=32), cv=1, seed=seed)


def search(folder: Path, algorithm: str, generations: int, seed: int, every: int) -> dict[str, Any]:
    """Search, replay, and tell what was measured, as plain values."""
    journal = folder / "journal"
    with make_problem(seed) as problem:
        watch = Watch(problem, every)
        started = time.process_time()
        result = run_search(
            problem, n_gen=generations, algorithm=algorithm, seed=seed, journal=journal, progress=watch
        )
        seconds = time.process_time() - started
        trained = problem.n_trained
    size = journal.stat().st_size
    with make_problem(seed) as problem:
        started = time.process_time()
        again = run_search(
            problem, n_gen=generations, algorithm=algorithm, seed=seed, journal=journal, resume=True
        )
        replay = time.process_time() - started
        retrained = problem.n_trained
    return {
        "samples": [asdict(sample) for sample in watch.samples],
        "training": watch.training,
        "searching": watch.searching,
        "seconds": seconds,
        "trained": trained,
        "journal_bytes": size,
        "replay_seconds": replay,
        "retrained": retrained,
        "same": same(result, again),
    }


def long_journal(folder: Path, evaluations: int, seed: int) -> dict[str, Any]:
    """Write a journal and take it up again as a resumed run does; tells what was measured, as plain values."""
    generator = np.random.default_rng(seed)
    path, belonging = folder / "long.journal", ({"seed": seed}, LONG_MASK, LONG_OBJECTIVES)
    with EvaluationJournal.create(path, *belonging) as journal:
        for start in range(0, evaluations, 1000):
            n = min(1000, evaluations - start)
            masks, values = generator.random((n, LONG_MASK)) < 0.5, generator.random((n, len(LONG_OBJECTIVES)))
            journal.append(masks, values)
    before, started = resident_bytes(), time.process_time()
    known = MaskValues(len(LONG_OBJECTIVES))
    with EvaluationJournal.resume(path, *belonging) as journal:
        for block in journal.iter_blocks():
            known.put(*block)
        journal.forget_entries()
    return {
        "evaluations": evaluations,
        "journal_bytes": path.stat().st_size,
        "replay_seconds": time.process_time() - started,
        "held": resident_bytes() - before,
        # the last ones, as the generator would not give the first again
        "same": len(known) == evaluations and bool(np.array_equal(known.get(masks), values)),
    }


def judge_journal(measured: dict[str, Any]) -> list[str]:
    """What of a long journal was too much, or lost; prints the figures."""
    n = measured["evaluations"]
    written, held = measured["journal_bytes"] / n, measured["held"] / n
    print(f"journal of {n} evaluations of {LONG_MASK} bits: {measured['journal_bytes'] / 1e6:.0f} MB")
    print(f"  {written:.0f} bytes an evaluation on disk, {held:.0f} in memory after it was read back")
    print(f"  read back in {measured['replay_seconds']:.1f} s")
    complaints = []
    if written > MOST_BYTES_WRITTEN or held > MOST_BYTES_HELD:
        complaints.append(f"an evaluation takes {written:.0f} bytes on disk and {held:.0f} in memory")
    if measured["replay_seconds"] > MOST_REPLAY_SECONDS * n:
        complaints.append(f"the journal is read back in {measured['replay_seconds']:.0f} s")
    if not measured["same"]:
        complaints.append("the journal gives other values back")
    return complaints


def same(one: SearchResult, other: SearchResult) -> bool:
    """Whether two searches found the same front, to the bit, on the same way."""
    pairs = zip((one.masks, one.values, one.losses), (other.masks, other.values, other.losses), strict=True)
    ways = [[generation.hypervolume for generation in result.history] for result in (one, other)]
    return all(np.array_equal(a, b) for a, b in pairs) and ways[0] == ways[1]


def judge(measured: dict[str, Any], generations: int) -> list[str]:
    """What grew or was lost, one line each; prints the figures."""
    samples = [Sample(**sample) for sample in measured["samples"]]
    settled = next((sample for sample in samples if sample.generation >= SETTLED), samples[0])
    later = [sample for sample in samples if sample.generation >= settled.generation]
    searching, training = np.array(measured["searching"]), np.array(measured["training"])
    tenth = max(generations // 10, 1)
    early, late = slice(tenth, 2 * tenth), slice(-tenth, None)
    figures = {
        "memory": max(sample.resident for sample in later) / settled.resident,
        "time of the search": float(np.median(searching[late]) / np.median(searching[early])),
    }
    print(f"  evaluations {measured['trained']}, archive {later[-1].archive}, {measured['seconds']:.0f} s")
    print(
        f"  memory {settled.resident / 2**20:.1f} MB after generation {settled.generation}, "
        f"at most {figures['memory']:.4f} times that; {settled.blocks} → {later[-1].blocks} blocks"
    )
    times = [
        1e3 * np.median(part) for part in (searching[early], searching[late], training[early], training[late])
    ]
    print("  a generation: search {:.1f} → {:.1f} ms, training {:.1f} → {:.1f} ms".format(*times))
    files, threads = ({getattr(sample, what) for sample in later} for what in ("files", "threads"))
    print(f"  open files {sorted(files)}, threads {sorted(threads)}")
    size, replay = measured["journal_bytes"], measured["replay_seconds"]
    print(f"  journal {size / 1e6:.2f} MB, {size / measured['trained']:.0f} bytes an evaluation")
    print(f"  run again from it in {replay:.1f} s, {replay / measured['seconds']:.2f} of the run")
    complaints = []
    if figures["memory"] > MOST_MEMORY:
        complaints.append(f"memory grew to {figures['memory']:.3f} times what it was")
    if figures["time of the search"] > MOST_TIME:
        complaints.append(f"generations take {figures['time of the search']:.2f} times as long at the end")
    if len(files) > 1 or len(threads) > 1:
        complaints.append(f"open files {sorted(files)} or threads {sorted(threads)} changed")
    if not measured["same"] or measured["retrained"]:
        complaints.append(f"the replay trained {measured['retrained']} masks, same front: {measured['same']}")
    return complaints


def in_a_process(what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own: memory of one search is not given back before the next."""
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "one": folder,
            "algorithms": what,
            "generations": arguments.generations,
            "evaluations": arguments.evaluations,
            "every": arguments.every,
            "seed": arguments.seed,
        }
        options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, __file__, *options], check=True)
        measured: dict[str, Any] = json.loads((Path(folder) / "measured.json").read_text())
        return measured


def main() -> int:
    """Carry out the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=2000)
    parser.add_argument("--every", type=int, default=20, help="generations between two measurements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--algorithms", nargs="+", default=["guided", "nsga2"])
    parser.add_argument("--evaluations", type=int, default=500_000, help="in the long journal")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        (algorithm,) = arguments.algorithms
        if algorithm == "journal":
            measured = long_journal(arguments.one, arguments.evaluations, arguments.seed)
        else:
            measured = search(arguments.one, algorithm, arguments.generations, arguments.seed, arguments.every)
        (arguments.one / "measured.json").write_text(json.dumps(measured))
        return 0
    complaints = []
    for algorithm in arguments.algorithms:
        measured = in_a_process(algorithm, arguments)
        print(f"{algorithm}, {arguments.generations} generations:")
        complaints += [f"{algorithm}: {line}" for line in judge(measured, arguments.generations)]
    complaints += judge_journal(in_a_process("journal", arguments))
    for line in complaints:
        print("LOST", line)
    print("lost:", len(complaints) or "nothing")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
