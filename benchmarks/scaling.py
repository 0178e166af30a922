"""How the population trainer's time grows with rows, features, hidden units, masks, classes, epochs and workers.

One of them at a time changes around a base case. Every line of the tables is one such factor; its exponent is
the slope of a straight line through the logarithms: 1 is linear, 0 is free. Timed is a ``PopulationTrainer``
from its construction to the last mask's weights, on one thread, with the form of the first layer that the cost
model chooses; all values of a factor take turns.

    python benchmarks/scaling.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from common import Case, Clock, Report, make_masks, make_parser, make_task, parse, plural, start, take_turns

from moevoprune.device import usable_cores
from moevoprune.heads.encodings import HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import PopulationTrainer

SEED = 0
WARM_UP_SECONDS = 12.0


@dataclass(frozen=True)
class Work:
    """What is trained."""

    rows: int
    features: int
    hidden: int
    classes: int
    masks: int
    epochs: int
    workers: int = 1

    @property
    def shape(self) -> HeadShape:
        return HeadShape(self.features, (self.hidden,), self.classes)

    def trainer(self) -> PopulationTrainer:
        features, labels = make_task(self.rows, self.features, self.classes)
        settings = HeadSettings.preset("paper", hidden=self.shape.hidden, epochs=self.epochs, early_stop="none")
        return PopulationTrainer(features, labels, self.shape, settings, SEED, device="cpu", jobs=self.workers)

    def fit(self, trainer: PopulationTrainer, share: float, seed: int = SEED) -> None:
        masks = make_masks("features", share, self.shape, self.masks, seed)
        for _ in trainer.fit(masks, [np.arange(self.rows)]):
            pass


def _from_nothing(work: Work, share: float) -> None:
    work.fit(work.trainer(), share)


def seconds_of(works: Sequence[Work], share: float, repeats: int) -> list[float]:
    """Seconds from a trainer's construction to its last mask's weights."""
    for work in works:
        once = replace(work, masks=1, epochs=1)
        once.fit(once.trainer(), share)
    clocks = [Clock(partial(_from_nothing, work, share)) for work in works]
    take_turns(clocks, repeats)
    return [clock.seconds for clock in clocks]


def seconds_at_work(works: Sequence[Work], share: float, repeats: int) -> list[float]:
    """Seconds of one population after another, once the workers are running."""
    trainers = [work.trainer() for work in works]
    seeds = iter(range(SEED, SEED + repeats + 1))

    def clocks_of_next() -> list[Clock]:
        # other masks each time, so that nothing that a trainer may remember helps
        seed = next(seeds)
        return [
            Clock(partial(work.fit, trainer, share, seed)) for work, trainer in zip(works, trainers, strict=True)
        ]

    try:
        # worker processes start once there has been some work, and take seconds to do so
        deadline = time.monotonic() + (WARM_UP_SECONDS if max(work.workers for work in works) > 1 else 0.0)
        warm = clocks_of_next()
        take_turns(warm, 1)
        while time.monotonic() < deadline:
            take_turns(warm, 1)
        rounds = [clocks_of_next() for _ in range(repeats)]
        for clocks in rounds:
            take_turns(clocks, 1)
    finally:
        for trainer in trainers:
            trainer.close()
    return [min(clock.seconds for clock in of_work) for of_work in zip(*rounds, strict=True)]


def factors(base: Work, quick: bool) -> dict[str, list[int]]:
    """Values of every factor."""
    steps = (1, 2) if quick else (0.5, 1, 2, 4)
    grown = {
        name: [max(round(step * value), 1) for step in steps]
        for name, value in asdict(base).items()
        if name != "workers"
    }
    # workers come with the cores
    grown["workers"] = [number for number in (1, 2, 4, 8, 16) if number <= min(usable_cores(), base.masks)]
    return grown


def slope(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of a power law through times at several values."""
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def measure(report: Report, base: Work, share: float, arguments: argparse.Namespace) -> None:
    """All factors at one share of active features."""
    report.section(f"{share:.0%} of the features active")
    report.table("factor", "values", "seconds", "exponent")
    for name, values in factors(base, arguments.quick).items():
        if len(values) < 2:
            report.row(name, ", ".join(map(str, values)), "–", "one core only")
            continue
        works = [replace(base, **{name: value}) for value in values]
        timed = seconds_at_work if name == "workers" else seconds_of
        seconds = timed(works, share, arguments.repeats)
        exponent = slope(values, seconds)
        report.case(
            Case(
                f"{name} {values[0]} to {values[-1]}, {share:.0%} active",
                seconds[-1] / seconds[0],
                f"the same trainer with {name} = {values[0]}",
                details={"exponent": exponent, "values": values, "seconds": seconds},
            )
        )
        report.row(
            name,
            ", ".join(map(str, values)),
            ", ".join(f"{second:.2f}" for second in seconds),
            f"{exponent:.2f}",
        )
    report.end_table()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=480, help="training rows of the base case")
    parser.add_argument("--features", type=int, default=2048, help="features of the base case")
    parser.add_argument("--hidden", type=int, default=512, help="hidden units of the base case")
    parser.add_argument("--classes", type=int, default=14, help="classes of the base case")
    parser.add_argument("--masks", type=int, default=4, help="masks of the base case")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the base case")
    parser.add_argument("--share", type=float, nargs="+", default=[0.5, 0.15], help="shares of active features")
    parser.add_argument("--repeats", type=int, default=2, help="repeats; the fastest counts")
    quick = {
        "rows": 48, "features": 32, "hidden": 16, "classes": 3, "masks": 2, "epochs": 2, "share": [0.5],
        "repeats": 1,
    }  # fmt: skip
    arguments = parse(parser, argv, quick)
    base = Work(
        arguments.rows, arguments.features, arguments.hidden, arguments.classes, arguments.masks, arguments.epochs
    )
    report = Report("scaling", "How training time grows", arguments)
    report.text(
        f"Base case: {base.rows} rows, {base.features} features, {base.hidden} hidden units, {base.classes} "
        f"classes, {plural(base.masks, 'mask')}, {plural(base.epochs, 'epoch')}, batches of 32, one worker. "
        "Exponent: slope of log time over log value. Workers are timed once they run."
    )
    for share in arguments.share:
        measure(report, base, share, arguments)
    return report.close()


if __name__ == "__main__":
    start(main)
