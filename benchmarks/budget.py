"""What a training budget buys: front quality at equal processor time.

Every variant searches for the same processor seconds with the default search: longer training means fewer masks.
Variants train longer or shorter, stop early, or race (``racing.py``: heads that look dominated on the way are not
trained to the end). As the heads differ, the fronts are judged by one protocol (``judging.py``): the default head
on folds drawn anew, and its accuracy on the test rows. Which rankings guide the search is decided once, before the
clock starts, for all variants; a search that is ended by the clock does not polish its knee.

    python benchmarks/budget.py --sets digits leaves_citrus.npz --seconds 10
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from common import Bits, Case, Report, make_parser, mean, parse, plural, small_task, start
from judging import ANEW, SCORINGS, SEEN, TEST, Judge, plane
from racing import Race, RacingProblem

from moevoprune import HeadSettings, PruningProblem, load_features
from moevoprune.errors import InputError, nearest
from moevoprune.features import FeatureSet
from moevoprune.search.algorithms import guided
from moevoprune.search.archive import non_dominated
from moevoprune.search.loop import run_search
from moevoprune.search.trust import trusted_rankings

ENDLESS = 10**6

# a front is looked at on the way, too: what helps early need not help late
SHARES = (0.5, 1.0)
CONFIDENCE = 0.95

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """A training budget.

    Attributes
    ----------
    name
        What to call it in a table.
    head
        Settings that differ from the preset's.
    preset
        Preset of the head.
    race
        How new masks race, if they do.
    loss_delta
        ``min_delta`` of early stopping as a share of the loss of guessing, ``log(classes)``.
    """

    name: str
    head: dict[str, Any]
    preset: str = "default"
    race: Race | None = None
    loss_delta: float | None = None

    def settings(self, data: FeatureSet, small: bool) -> HeadSettings:
        """Settings of the head; ``small`` ones train next to nothing."""
        changes = dict(self.head)
        if self.loss_delta is not None:
            changes["min_delta"] = self.loss_delta * math.log(data.n_outputs)
        if small:
            changes = {**changes, "hidden": (8,), "epochs": 4}
        return HeadSettings.preset(self.preset, **changes)


BASE = "default"
VARIANTS = {
    BASE: Variant("default: 20 epochs", {}),
    "epochs-5": Variant("5 epochs", {"epochs": 5}),
    "epochs-10": Variant("10 epochs", {"epochs": 10}),
    "epochs-40": Variant("40 epochs", {"epochs": 40}),
    "stop-validation-3": Variant(
        "stopped by validation loss, patience 3", {"early_stop": "validation", "patience": 3}
    ),
    "stop-validation-5": Variant(
        "stopped by validation loss, patience 5", {"early_stop": "validation", "patience": 5}
    ),
    "stop-training": Variant(
        "stopped by training loss, gains below 1 % of log(classes), patience 2",
        {"early_stop": "training", "patience": 2},
        loss_delta=0.01,
    ),
    "race-folds": Variant("race after folds 1 and 2", {}, race=Race(folds=(1, 2))),
    "race-folds-margin": Variant("race after folds 1 and 2, margin .02", {}, race=Race(folds=(1, 2), margin=0.02)),
    "race-folds-quality": Variant(
        "race after fold 1, by accuracy and size, margin .02",
        {},
        race=Race(folds=(1,), margin=0.02, by_quality=True),
    ),
    "race-epochs": Variant("race after 1/4 of the epochs", {}, race=Race(epochs=(0.25,))),
    "race-epochs-margin": Variant(
        "race after 1/4 of the epochs, margin .02", {}, race=Race(epochs=(0.25,), margin=0.02)
    ),
    "race-epochs-quality": Variant(
        "race after 1/4 of the epochs, by accuracy and size", {}, race=Race(epochs=(0.25,), by_quality=True)
    ),
    "published": Variant("published: 600 epochs", {}, "paper"),
    "published-stopped": Variant("published, stopped by validation loss", {"early_stop": "validation"}, "paper"),
}
AT_DEFAULT = [name for name in VARIANTS if name not in ("epochs-40", "stop-validation-5", "published-stopped")]
QUICKLY = ["stop-training", "race-folds-margin", "race-epochs"]


class OutOfTime(Exception):
    """Ends a search."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found by some time."""

    trained: int
    masks: Bits
    accuracy: Values


def search(
    data: FeatureSet,
    variant: Variant,
    rankings: Sequence[str],
    seconds: Sequence[float],
    seed: int,
    small: bool,
) -> tuple[list[Found], float]:
    """Search until the last of some times; what is in training then is lost.

    Returns what was found at each time, and the share of new masks that dropped out of a race.
    """
    head = variant.settings(data, small)
    problem: PruningProblem
    if variant.race is None:
        problem = PruningProblem(data, head=head, seed=seed, device="cpu")
    else:
        problem = RacingProblem(data, variant.race, head=head, seed=seed)
    column = problem.column("accuracy")
    masks: list[Bits] = []
    accuracy: list[Values] = []
    times: list[float] = []
    started = time.process_time()

    def take(trained: Bits, values: Values) -> None:
        now = time.process_time() - started
        if now > seconds[-1]:
            raise OutOfTime
        feasible = (problem.violations(trained) <= 0).all(axis=1)
        masks.append(trained[feasible].copy())
        accuracy.append(values[feasible, column])
        times.extend([now] * int(feasible.sum()))

    problem.listen(on_trained=take)
    with suppress(OutOfTime):
        run_search(problem, n_gen=ENDLESS, algorithm=guided(problem, rankings=rankings), seed=seed)
    all_masks = np.concatenate([np.zeros((0, problem.n_var), dtype=np.bool_), *masks])
    all_accuracy = np.concatenate([np.zeros(0), *accuracy])
    found = []
    for end in seconds:
        n_trained = int(np.searchsorted(times, end, side="right"))
        kept = non_dominated(plane(problem, all_masks[:n_trained], all_accuracy[:n_trained])) if n_trained else []
        found.append(Found(n_trained, all_masks[:n_trained][kept], all_accuracy[:n_trained][kept]))
    n_dropped = problem.n_dropped if isinstance(problem, RacingProblem) else 0
    return found, n_dropped / max(n_dropped + len(times), 1)


@dataclass(eq=False)
class Measured:
    """Figures of one variant on one set: one row per seed and, but for ``dropped``, one column per time."""

    trained: list[list[int]]
    dropped: list[float]
    volumes: dict[str, list[list[float]]]

    def differences(self, base: Measured, scoring: str, at: int) -> Values:
        """By how much it is better than another variant, shape (seeds,)."""
        ours, others = np.array(self.volumes[scoring]), np.array(base.volumes[scoring])
        return np.asarray(ours[:, at] - others[:, at])


def measure(data: FeatureSet, names: Sequence[str], seconds: float, arguments: Any) -> dict[str, Measured]:
    """One data set: all variants in turns, with every seed."""
    measured = {name: Measured([], [], {scoring: [] for scoring in SCORINGS}) for name in names}
    head = VARIANTS[BASE].settings(data, arguments.quick)
    for seed in range(1, arguments.seeds + 1):
        judge = Judge(data, head, seed)
        rankings = trusted_rankings(PruningProblem(data, head=head, seed=seed, device="cpu"))
        for name in names:
            ends = [share * seconds for share in SHARES]
            found, dropped = search(data, VARIANTS[name], rankings, ends, seed, arguments.quick)
            volumes = [judge.volumes(front.masks, front.accuracy) for front in found]
            measured[name].trained.append([front.trained for front in found])
            measured[name].dropped.append(dropped)
            for scoring in SCORINGS:
                measured[name].volumes[scoring].append([of_front[scoring] for of_front in volumes])
    return measured


def tell(report: Report, data: FeatureSet, measured: dict[str, Measured], seconds: float) -> None:
    """Tables and cases of one data set."""
    base = measured[BASE]
    for at, share in enumerate(SHARES):
        report.section(f"{data.name}, after {share * seconds:g} s")
        columns = [f"hypervolume, {name}" for name in SCORINGS]
        report.table("training", "masks trained", "dropped", *columns, f"gain, {ANEW}", f"gain, {TEST}")
        for name, figures in measured.items():
            volumes = [mean([row[at] for row in figures.volumes[scoring]]) for scoring in SCORINGS]
            gains = [interval([figures.differences(base, scoring, at)]) for scoring in (ANEW, TEST)]
            report.row(
                VARIANTS[name].name,
                f"{mean([row[at] for row in figures.trained]):.0f}",
                f"{100 * mean(figures.dropped):.0f} %" if VARIANTS[name].race else "",
                *(f"{volume:.4f}" for volume in volumes),
                *("" if name == BASE else shown(*gain) for gain in gains),
            )
        report.end_table()
    longer = [
        interval([np.array(base.volumes[name])[:, -1] - np.array(base.volumes[name])[:, 0]]) for name in SCORINGS
    ]
    told = [f"{shown(*gain)} ({name})" for gain, name in zip(longer, SCORINGS, strict=True) if name != SEEN]
    # what saves training buys time, and cannot buy more than the time is worth
    report.text(f"{SHARES[-1] / SHARES[0]:g} times the time buys the default {' and '.join(told)}.")
    for name, figures in measured.items():
        if name != BASE:
            ours, others = (mean([row[-1] for row in each.volumes[ANEW]]) for each in (figures, base))
            gain, half = interval([figures.differences(base, ANEW, -1)])
            if others == 0.0:
                raise InputError(f"{data.name}: the default found nothing in {seconds:g} s: use more --seconds")
            n_trained = mean([row[-1] for row in figures.trained])
            details = {"hypervolume": ours, "gain": gain, "masks_trained": n_trained}
            if math.isfinite(half):
                details["gain_half_width"] = half
            report.case(
                Case(
                    f"{data.name}: {VARIANTS[name].name}",
                    ours / others,
                    f"hypervolume on folds drawn anew of '{VARIANTS[BASE].name}', same processor time",
                    details=details,
                )
            )


def tell_overall(report: Report, sets: Sequence[dict[str, Measured]]) -> None:
    """Mean gains over the sets."""
    report.section("All sets")
    heads = [f"gain, {scoring}, {100 * share:g} % of the time" for share in SHARES for scoring in (ANEW, TEST)]
    report.table("training", *heads)
    for name in sets[0]:
        if name != BASE:
            gains = [
                interval([measured[name].differences(measured[BASE], scoring, at) for measured in sets])
                for at in range(len(SHARES))
                for scoring in (ANEW, TEST)
            ]
            report.row(VARIANTS[name].name, *(shown(*gain) for gain in gains))
    report.end_table()


def interval(by_set: Sequence[Values]) -> tuple[float, float]:
    """Mean over the sets of the mean over the seeds, and half the width of its confidence interval.

    Student's t with Welch and Satterthwaite's degrees of freedom, for these sets: seeds are what is random. The
    half width is NaN with one seed.
    """
    from scipy.stats import t

    centre = mean([float(values.mean()) for values in by_set])
    if min(len(values) for values in by_set) < 2:
        return centre, math.nan
    parts = np.array([values.var(ddof=1) / len(values) for values in by_set])
    variance = float(parts.sum())
    if variance == 0.0:
        return centre, 0.0
    n_free = variance**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, by_set, strict=True))
    return centre, float(t.ppf((1 + CONFIDENCE) / 2, n_free)) * variance**0.5 / len(by_set)


def shown(gain: float, half: float) -> str:
    """A gain with its confidence interval."""
    return f"{gain:+.4f}" + (f" ± {half:.4f}" if math.isfinite(half) else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--sets", nargs="+", default=["digits"], help="digits, or features .npz files")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[10.0],
        help="processor time of every search: one number, or one for each set",
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1..N")
    parser.add_argument(
        "--variants", nargs="+", default=AT_DEFAULT, metavar="NAME", help=f"among {', '.join(VARIANTS)}"
    )
    quick = {"sets": ["synthetic"], "seconds": [0.3], "seeds": 1, "variants": QUICKLY}
    arguments = parse(parser, argv, quick)
    if arguments.seeds < 1 or min(arguments.seconds) <= 0:
        raise InputError("--seeds and --seconds: use at least one seed, and more than no time")
    if len(arguments.seconds) not in (1, len(arguments.sets)):
        raise InputError("--seconds: give one number, or one for each of --sets")
    for name in arguments.variants:
        if name not in VARIANTS:
            raise InputError(
                f"--variants: unknown {name!r}{nearest(name, VARIANTS)}: use some of {', '.join(VARIANTS)}"
            )
    names = list(dict.fromkeys([BASE, *arguments.variants]))
    report = Report("budget", "What a training budget buys", arguments)
    report.text(
        "Every search has the same processor time on one core, spent by this process alone; "
        f"{plural(arguments.seeds, 'seed')}. Hypervolume of (error, share of active bits) up to (1, 1): as the "
        "search saw it (which differs between heads and cannot be compared), by the default head on folds drawn "
        "anew, and by its accuracy on the test rows. Gains are differences to the default in the same seed, ± "
        "half of their 95 % confidence interval (Student's t over the seeds); with many variants, some intervals "
        "leave out 0 by chance. Fronts hold masks that were trained to the end; 'dropped' is the share of new "
        "masks that were not, over the whole search."
    )
    seconds = arguments.seconds * (len(arguments.sets) if len(arguments.seconds) == 1 else 1)
    of_sets = []
    for source, of_set in zip(arguments.sets, seconds, strict=True):
        data = small_task() if source == "synthetic" else load_features(source)
        of_sets.append(measure(data, names, of_set, arguments))
        tell(report, data, of_sets[-1], of_set)
    if len(of_sets) > 1:
        tell_overall(report, of_sets)
    return report.close()


if __name__ == "__main__":
    start(main)
