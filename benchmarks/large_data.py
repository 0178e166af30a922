"""Memory and time of one generation on features that are left on disk, in float16.

Feature folders of 1,280 columns are written, in blocks: 10 classes that overlap, about a third zeros, and a tenth
as many test rows. For each of them a process of its own opens the folder, makes a ``PruningProblem`` with the
default head (but for the epochs) and objectives, and evaluates one generation: 20 masks of the default start
densities, on the hold-out that large sets have. Reported are its peak resident memory, mapped pages of the files
included, and its time; and the time per row of each set against that of the smallest, so that 1 is exactly linear.

The target: 1,000,000 rows within 8 GB, at no more than 1.5 times the time per row of 100,000.

    python benchmarks/large_data.py

It needs 2.8 GB of free disk space where temporary files go, or in ``--folder``, and removes what it has written.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import Case, Report, make_parser, parse, plural, small_task, start
from numpy.lib.format import open_memmap

from moevoprune.errors import InputError

SEED = 0
N_FEATURES, N_CLASSES = 1280, 10
MOST_GIGABYTES, MOST_TIMES = 8.0, 1.5
TEST_SHARE = 0.1
_ROWS_AT_ONCE = 4096


def write_folder(folder: Path, n_rows: int, n_features: int) -> None:
    """Write a feature folder, some rows at a time; never more than these are in memory."""
    folder.mkdir()
    generator = np.random.default_rng([SEED, n_rows])
    centres = 0.15 * np.random.default_rng(SEED).normal(size=(N_CLASSES, n_features)).astype(np.float32)
    for part, count in (("test", max(int(n_rows * TEST_SHARE), N_CLASSES)), ("train", n_rows)):
        labels = generator.permutation(np.arange(count) % N_CLASSES)
        rows = open_memmap(folder / f"X_{part}.npy", mode="w+", dtype=np.float16, shape=(count, n_features))
        for begin in range(0, count, _ROWS_AT_ONCE):
            chosen = labels[begin : begin + _ROWS_AT_ONCE]
            noise = generator.standard_normal((len(chosen), n_features), dtype=np.float32)
            rows[begin : begin + len(chosen)] = np.maximum(0.25 + centres[chosen] + 0.65 * noise, 0.0)
        rows.flush()
        np.save(folder / f"y_{part}.npy", labels)


def generation(folder: Path, epochs: int, individuals: int) -> dict[str, float]:
    """Evaluate one generation of masks; what a process measures of itself."""
    from moevoprune import HeadSettings, PruningProblem
    from moevoprune.search.sampling import DensitySampling

    torch.set_num_threads(1)
    # what is imported on the way is no part of the time
    PruningProblem(small_task(), head=HeadSettings(epochs=1)).values(np.ones((1, 48), dtype=np.bool_))
    started = time.perf_counter()
    problem = PruningProblem(str(folder), head=HeadSettings(epochs=epochs), seed=SEED, device="cpu")
    opened = time.perf_counter()
    masks = DensitySampling("log")(problem, individuals, random_state=np.random.default_rng(SEED)).get("X")
    values = problem.values(masks.astype(np.bool_))
    done = time.perf_counter()
    # in KiB on Linux, in bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "opening_seconds": opened - started,
        "generation_seconds": done - opened,
        "peak_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "best_accuracy": float(values[:, 0].max()),
        "active_features": float(masks.sum(axis=1).mean()),
    }


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Run :func:`generation` in a process of its own."""
    command = [sys.executable, __file__, "--epochs", str(arguments.epochs), "--masks", str(arguments.masks)]
    done = subprocess.run([*command, "--measure", str(folder)], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise InputError(f"the process that was measured ended with code {done.returncode}: see above")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def report(arguments: argparse.Namespace) -> int:
    """Measure every size, and compare."""
    page = Report("large_data", "One generation on features left on disk", arguments)
    page.text(
        f"{arguments.features:,} features in float16, {N_CLASSES} classes;"
        f" {plural(arguments.masks, 'mask')} of the default start densities, default head,"
        f" {plural(arguments.epochs, 'epoch')}, a hold-out of a quarter of the rows. Peak memory is the process's,"
        " pages of the mapped files included. Opening reads every number twice: to check it and to standardise."
    )
    page.table(
        "rows", "peak memory", "opening", "generation", "per row and mask", "times the first", "best accuracy"
    )
    first: float | None = None
    for n_rows in sorted(arguments.rows):
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="moevoprune-large-") as scratch:
            folder = Path(scratch) / "features"
            write_folder(folder, n_rows, arguments.features)
            measured = measure(folder, arguments)
        seconds = measured["opening_seconds"] + measured["generation_seconds"]
        per_row = seconds / n_rows
        first = per_row if first is None else first
        page.row(
            f"{n_rows:,}",
            f"{measured['peak_bytes'] / 1e9:.2f} GB",
            f"{measured['opening_seconds']:.1f} s",
            f"{measured['generation_seconds']:.1f} s",
            f"{1e6 * per_row / arguments.masks:.2f} µs",
            f"{per_row / first:.2f}",
            f"{measured['best_accuracy']:.3f}",
        )
        details = {"rows": n_rows, "seconds": seconds, **measured}
        page.case(
            Case(
                f"{n_rows:,} rows, peak memory",
                measured["peak_bytes"] / (MOST_GIGABYTES * 1e9),
                f"{MOST_GIGABYTES:g} GB",
                at_most=1.0,
                details=details,
            )
        )
        if n_rows > min(arguments.rows):
            page.case(
                Case(
                    f"{n_rows:,} rows, time per row",
                    per_row / first,
                    f"time per row at {min(arguments.rows):,} rows",
                    at_most=MOST_TIMES,
                    details=details,
                )
            )
    page.end_table()
    return page.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="training rows")
    parser.add_argument("--features", type=int, default=N_FEATURES, help="columns")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the training rows")
    parser.add_argument("--masks", type=int, default=20, help="masks of the generation")
    parser.add_argument("--folder", type=Path, help="where to write the features (default: the temporary folder)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parse(parser, argv, {"rows": [1000, 2000], "features": 16, "masks": 2})
    if arguments.measure is not None:
        print(json.dumps(generation(arguments.measure, arguments.epochs, arguments.masks)))
        return 0
    return report(arguments)


if __name__ == "__main__":
    start(main)
