"""What a training budget buys: front quality at equal wall time.

Every variant searches for the same wall time with the default search: longer training means fewer masks. As the
heads differ, the fronts are judged by one protocol (``judging.py``): the default head on folds drawn anew, and
its accuracy on the test rows. Which rankings guide the search is decided once, before the clock starts, for all
variants; a search that is ended by the clock does not polish its knee.

    python benchmarks/budget.py --data leaves_citrus.npz --seconds 30
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from common import Bits, Case, Report, make_parser, mean, parse, plural, small_task, start
from judging import ANEW, SCORINGS, Judge, plane

from moevoprune import HeadSettings, PruningProblem, load_features
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.search.algorithms import guided
from moevoprune.search.archive import non_dominated
from moevoprune.search.loop import run_search
from moevoprune.search.trust import trusted_rankings

ENDLESS = 10**6

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """A training budget: the head's settings, and what else the problem is told."""

    name: str
    head: HeadSettings
    problem: dict[str, Any] = field(default_factory=dict)


BASE = Variant("default, 20 epochs", HeadSettings())
# what shortens the training of some heads only (racing) belongs here too, as settings of the problem
VARIANTS = [
    Variant("published, 600 epochs", HeadSettings.preset("paper")),
    Variant("published, stopped early", HeadSettings.preset("paper", early_stop="validation")),
    Variant("default, 10 epochs", HeadSettings(epochs=10)),
    BASE,
    Variant("default, 40 epochs", HeadSettings(epochs=40)),
    Variant("default, 80 epochs, stopped early", HeadSettings(epochs=80, early_stop="validation")),
]
SMALL = [
    Variant("published, 600 epochs", HeadSettings.preset("paper", hidden=(8,), epochs=8)),
    Variant(BASE.name, HeadSettings(hidden=(8,), epochs=3)),
]


class OutOfTime(Exception):
    """Ends a search."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found when its time was up."""

    trained: int
    masks: Bits
    accuracy: Values


def search(data: FeatureSet, variant: Variant, rankings: Sequence[str], seconds: float, seed: int) -> Found:
    """Search until the time is up; the mask in training then is lost."""
    problem = PruningProblem(data, head=variant.head, seed=seed, device="cpu", **variant.problem)
    column = problem.column("accuracy")
    masks: list[Bits] = []
    accuracy: list[Values] = []
    started = time.perf_counter()

    def take(trained: Bits, values: Values) -> None:
        if time.perf_counter() - started > seconds:
            raise OutOfTime
        feasible = (problem.violations(trained) <= 0).all(axis=1)
        masks.append(trained[feasible].copy())
        accuracy.append(values[feasible, column])

    problem.listen(on_trained=take)
    with suppress(OutOfTime):
        run_search(problem, n_gen=ENDLESS, algorithm=guided(problem, rankings=rankings), seed=seed)
    if not masks:
        return Found(0, np.zeros((0, problem.n_var), dtype=np.bool_), np.zeros(0))
    all_masks, all_accuracy = np.concatenate(masks), np.concatenate(accuracy)
    kept = non_dominated(plane(problem, all_masks, all_accuracy))
    return Found(len(all_masks), all_masks[kept], all_accuracy[kept])


def measure(report: Report, data: FeatureSet, variants: Sequence[Variant], arguments: Any) -> None:
    """One data set: all variants in turns, with every seed."""
    base = next(variant for variant in variants if variant.name == BASE.name)
    rows: dict[str, list[list[float]]] = {variant.name: [] for variant in variants}
    for seed in range(1, arguments.seeds + 1):
        judge = Judge(data, base.head, seed)
        rankings = trusted_rankings(PruningProblem(data, head=base.head, seed=seed, device="cpu"))
        for variant in variants:
            found = search(data, variant, rankings, arguments.seconds, seed)
            volumes = judge.volumes(found.masks, found.accuracy)
            rows[variant.name].append([found.trained, len(found.masks), *(volumes[name] for name in SCORINGS)])
    report.section(data.name)
    report.table("training", "masks trained", "members", *(f"hypervolume, {name}" for name in SCORINGS))
    for name, measured in rows.items():
        columns = list(zip(*measured, strict=True))
        report.row(
            name,
            f"{mean(columns[0]):.0f}",
            f"{mean(columns[1]):.0f}",
            *(f"{mean(column):.4f}{_error(column)}" for column in columns[2:]),
        )
    report.end_table()
    judged = 2 + SCORINGS.index(ANEW)
    of_base = mean([row[judged] for row in rows[base.name]])
    for name, measured in rows.items():
        if name != base.name:
            volume = mean([row[judged] for row in measured])
            report.case(
                Case(
                    f"{data.name}: {name}",
                    volume / of_base,
                    f"hypervolume on folds drawn anew of '{base.name}', same wall time",
                    details={"hypervolume": volume, "masks_trained": mean([row[0] for row in measured])},
                )
            )


def _error(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    return f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", nargs="+", default=["digits"], help="digits, or features .npz files")
    parser.add_argument("--seconds", type=float, default=20.0, help="wall time of every search")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1..N")
    quick = {"data": ["synthetic"], "seconds": 0.5, "seeds": 1}
    arguments = parse(parser, argv, quick)
    if arguments.seeds < 1 or arguments.seconds <= 0:
        raise InputError("--seeds and --seconds: use at least one seed, and more than no time")
    variants = SMALL if arguments.quick else VARIANTS
    report = Report("budget", "What a training budget buys", arguments)
    report.text(
        f"Every search has {arguments.seconds:g} s on one core; {plural(arguments.seeds, 'seed')}, means ± "
        "standard error. Hypervolume of (error, share of active bits) up to (1, 1): as the search saw it (which "
        "differs between heads and cannot be compared), by the default head on folds drawn anew, and by its "
        "accuracy on the test rows."
    )
    for source in arguments.data:
        data = small_task() if source == "synthetic" else load_features(source)
        measure(report, data, variants, arguments)
    return report.close()


if __name__ == "__main__":
    start(main)
