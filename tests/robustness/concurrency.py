"""Many commands at once on one cache folder: all end, with what each gives alone, and the cache is whole.

    python tests/robustness/concurrency.py [--rounds 3] [--images 600] [--seed 0]

Each round has a new cache folder, and one of its own for what runs alone:

- four ``extract`` at once, of the same images and of others that share some with them;
- four ``run`` at once on the images, each with a seed of its own;
- the process that holds the cache's lock killed with SIGKILL while three others wait for it;
- two ``sweep`` at once;
- ``show`` and ``report`` over and over while a ``run`` writes the folder that they read.

Exit code 1 where a command fails or hangs, a byte differs, or a row of the cache is missing or another. Linux, as
it looks into /proc for who holds what.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from moevoprune.features.row_store import RowStore

PATIENCE = 1200.0
BACKBONE = ["--backbone", "mobilenet_v2", "--backbone-arg", "width_mult=0.1", "--weights", "none", "--size", "32"]
FRONTS = ["--pop", "6", "--gens", "3", "--cv", "3", "--set", "epochs=2", "--set", "hidden=[4]"]
QUICK = [*FRONTS, "--no-baselines"]


@dataclass
class Account:
    """What was tried, how often, and what was lost."""

    tried: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def count(self, what: str, times: int = 1) -> None:
        """Note that something was tried."""
        self.tried[what] = self.tried.get(what, 0) + times

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a loss where something does not hold."""
        if not holds:
            self.lost.append(otherwise)


def make_images(folder: Path, numbers: Sequence[int]) -> Path:
    """Write images of two classes; an image's content is that of its number."""
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 100, (40, 36, 3), dtype=np.uint8)
        pixels[..., number % 2] += 120
        path = folder / ("red", "green")[number % 2] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def cached_rows(cache: Path) -> dict[bytes, bytes]:
    """Rows of the one extraction of a cache folder by the digest of their image, read as the program does it."""
    (folder,) = (cache / "extractions").iterdir()
    log = [line for line in (folder / "batches.jsonl").read_text().splitlines() if line]
    size = (folder / "rows.f32").stat().st_size
    digests = [bytes.fromhex(digest) for line in log for digest in json.loads(line)["images"]]
    with RowStore(folder, size // 4 // max(len(digests), 1)) as store:
        numbers = store.find(digests)
        if len(store) != len(digests) or (numbers < 0).any():
            raise ValueError(f"{folder}: {len(digests)} images in the log, {len(store)} rows that count")
        return {digest: row.tobytes() for digest, row in zip(digests, store.read(numbers), strict=True)}


class Round:
    """One round of attacks, in a folder of its own."""

    def __init__(self, folder: Path, images: int, account: Account) -> None:
        self.folder = folder
        self.account = account
        self.images = make_images(folder / "images", range(images))
        # half of these are among the first
        self.others = make_images(folder / "others", range(images // 2, images + images // 2))

    def start(self, cache: str, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command on one of the round's cache folders."""
        environment = {**os.environ, "MOEVOPRUNE_CACHE": str(self.folder / cache), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "moevoprune", *map(str, command)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], what: str, codes: Sequence[int] = (0,)) -> str:
        """Wait for a command; returns what it said, and notes whether it ended as it should."""
        try:
            out, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            self.account.lost.append(f"{what}: still waiting after {PATIENCE:.0f} s")
            return errors
        ended = process.returncode in codes and "Traceback" not in errors
        self.account.expect(ended, f"{what}: exit code {process.returncode}: {errors[-500:]}")
        return out + errors

    def alone(self, *command: str | Path) -> None:
        """Carry a command out on the cache of those that run alone."""
        self.end(self.start("cache-alone", *command), f"alone: {command[0]}")

    def same_bytes(self, one: str, other: str, what: str) -> None:
        """Note whether two files of the round are there and the same."""
        first, second = (self.folder / name for name in (one, other))
        there = first.exists() and second.exists()
        self.account.expect(there and first.read_bytes() == second.read_bytes(), f"{what}: {one} is not {other}")

    def same_cache(self, cache: str, what: str) -> None:
        """Note whether every row of a cache is that of the commands that ran alone, and none is missing."""
        try:
            rows, wanted = cached_rows(self.folder / cache), cached_rows(self.folder / "cache-alone")
        except ValueError as error:
            self.account.lost.append(f"{what}: {error}")
            return
        missing = sum(digest not in rows for digest in wanted)
        different = sum(rows[digest] != row for digest, row in wanted.items() if digest in rows)
        self.account.expect(not missing and not different, f"{what}: {missing} rows missing, {different} others")

    def extracts(self) -> None:
        """Four extractions at once; what they give alone is kept for the other attacks."""
        for name in ("images", "others"):
            self.alone("extract", name, "--out", f"{name}.npz", "--quiet", *BACKBONE)
        sources = ["images", "others", "images", "others"]
        started = [
            self.start("cache", "extract", name, "--out", f"{name}-{i}.npz", "--quiet", *BACKBONE)
            for i, name in enumerate(sources)
        ]
        for i, (name, process) in enumerate(zip(sources, started, strict=True)):
            self.end(process, f"extract {i} of 4")
            self.same_bytes(f"{name}-{i}.npz", f"{name}.npz", "four extracts")
        self.same_cache("cache", "four extracts")
        self.account.count("extract beside three others", 4)

    def runs(self) -> None:
        """Four runs at once on images, each extracting what is not there yet."""
        seeds = ["1", "2", "3", "4"]
        for seed in seeds:
            self.alone("run", "images", "--seed", seed, "--out", f"alone-{seed}", "--quiet", *BACKBONE, *QUICK)
        started = [
            self.start(
                "cache-runs", "run", "images", "--seed", seed, "--out", f"run-{seed}", "--quiet", *BACKBONE, *QUICK
            )
            for seed in seeds
        ]
        for seed, process in zip(seeds, started, strict=True):
            self.end(process, f"run {seed} of 4")
            self.same_bytes(f"run-{seed}/front.csv", f"alone-{seed}/front.csv", "four runs")
            self.same_bytes(f"run-{seed}/evaluations.journal", f"alone-{seed}/evaluations.journal", "four runs")
        self.account.count("run beside three others", 4)

    def killed_holder(self) -> None:
        """Kill whoever holds the cache's lock while three others wait."""
        command = ["extract", "images", "--quiet", *BACKBONE]
        holder = self.start("cache-killed", *command, "--out", "killed.npz")
        held = self.folder / "cache-killed" / "extractions"
        # it has the lock, and rows that count
        wait_until(lambda: any(log.stat().st_size for log in held.glob("*/batches.jsonl")), holder)
        waiting = [self.start("cache-killed", *command, "--out", f"waiting-{i}.npz") for i in range(3)]
        os.kill(holder.pid, signal.SIGSTOP)
        for process in waiting:
            wait_until(lambda pid=process.pid: has_open(pid, "lock"), process)
        alive = holder.poll() is None
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
        for i, process in enumerate(waiting):
            self.end(process, f"extract {i} of 3 behind a killed one")
            self.same_bytes(f"waiting-{i}.npz", "images.npz", "behind a killed holder")
        if alive:
            self.account.count("holder of the cache's lock killed")
        # the killed one, again
        self.end(self.start("cache-killed", *command, "--out", "killed.npz"), "extract after its kill")
        self.same_bytes("killed.npz", "images.npz", "after a kill")

    def sweeps(self) -> None:
        """Two sweeps at once on the same images, whose runs are those of other sweeps alone."""
        options = ["--seeds", "1,2", "--quiet", *BACKBONE, *FRONTS]
        self.alone("sweep", "images", "--out", "sweep-alone", *options)
        started = [
            self.start("cache-sweeps", "sweep", "images", "--out", f"sweep-{i}", *options) for i in range(2)
        ]
        for i, process in enumerate(started):
            self.end(process, f"sweep {i} of 2")
            for seed in (1, 2):
                name = f"images-seed{seed}/front.csv"
                self.same_bytes(f"sweep-{i}/{name}", f"sweep-alone/{name}", "two sweeps")
        self.account.count("sweep beside another", 2)

    def readers(self) -> None:
        """Read a run folder over and over while it is written."""
        command = ["run", "images.npz", "--out", "read", "--quiet", *FRONTS]
        process = self.start("cache", *command)
        readings = 0
        while process.poll() is None:
            for reading in (["show", "read"], ["report", "read", "--out", "page.html"]):
                said = self.end(self.start("cache", *reading), f"{reading[0]} beside a run", codes=(0, 2))
                lines = said.strip().splitlines()
                self.account.expect(bool(lines), f"{reading[0]} beside a run says nothing")
                readings += 1
        self.end(process, "run that is read")
        self.account.count("show and report while a run writes", readings)


def has_open(pid: int, name: str) -> bool:
    """Whether a process has a file of this name open."""
    try:
        return any(os.readlink(entry).endswith(f"/{name}") for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something holds, or a process has ended."""
    while process.poll() is None and not holds():
        time.sleep(0.005)


def main() -> int:
    """Carry out the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="shuffles the attacks of a round")
    arguments = parser.parse_args()
    account, shuffled = Account(), np.random.default_rng(arguments.seed)
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            attacks = Round(Path(folder), arguments.images, account)
            # first, as the others compare with what it gives alone
            attacks.extracts()
            others = [attacks.runs, attacks.killed_holder, attacks.sweeps, attacks.readers]
            for i in shuffled.permutation(len(others)):
                others[i]()
        print(f"round {number + 1}: {len(account.lost)} lost so far", flush=True)
    for what, times in account.tried.items():
        print(f"{times:>4} times: {what}")
    for line in account.lost:
        print("LOST", line)
    print("lost:", len(account.lost) or "nothing")
    return 1 if account.lost else 0


if __name__ == "__main__":
    sys.exit(main())
