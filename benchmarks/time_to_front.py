"""How much sooner the default search finds what the published search finds after 200 evaluations.

Three ways to a front of (validation error, share of active features), all on one core:

1. **ours**: ``PruningProblem(data)`` and the guided search, all defaults. Its clock starts before the problem
   is made, and so holds the choice of rankings too.
2. **published search, our trainer**: MO-EvoPruneDeepTL's NSGA-II (population 30, two offspring, 200
   evaluations) with its head (512 units, 600 epochs).
3. **published search, sequential loop**: the same masks, trained one after the other by the loop in
   ``sequential.py``.

The time of 3 is extrapolated: some of its masks train for a few epochs, in turns with ours, and the mean
seconds per mask, fold and epoch are multiplied up. So is the time of 2. Nothing but training is counted for 3,
and as the papers score a mask on a single split, a second figure counts one fold per mask only.

Which masks 2 and 3 find depends on the scores the search sees. By default these are the default head's, which
is as accurate as the published one and so stands in for it; ``--full`` really trains 600 epochs with 512 units
(hours). The hypervolumes, up to (1, 1), compare like with like in three ways: by the scores that both searches
saw; **by the default head on folds drawn anew**, which neither has been able to fit; and by the accuracy on the
test rows after retraining. ``--own-head`` adds a fourth, which checks the stand-in: the published search's last
front trained as published, against ours with the default head.

    python benchmarks/time_to_front.py --data leaves_citrus.npz trashnet.npz
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from common import Bits, Case, Clock, Report, make_parser, mean, parse, plural, small_task, start, take_turns
from judging import SCORINGS, SEEN, Judge, plane
from sequential import SEQUENTIAL, train_in_a_loop

from moevoprune import HeadSettings, PruningProblem, load_features
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.heads.trainer import PopulationTrainer
from moevoprune.search.archive import hypervolume, non_dominated
from moevoprune.search.loop import run_search

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "features"
DEFAULT_DATA = [DATA / "leaves_citrus.npz", DATA / "trashnet.npz"]
PUBLISHED = "the published search after {} evaluations with the sequential loop ({})"
TARGET = 100.0
OWN = "each with its own head"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moment:
    """The front of (validation error, share of active bits) at some time of a search."""

    evaluations: int
    seconds: float
    masks: Bits
    accuracy: Values


class SeenEnough(Exception):
    """Ends a search that has been watched for long enough."""


class Recorder:
    """Takes down the fronts of a search as it goes, and ends it after so many seconds."""

    def __init__(self, problem: PruningProblem, started: float, most_seconds: float = math.inf) -> None:
        self._problem = problem
        self._started = started
        self._most_seconds = most_seconds
        self._masks = np.zeros((0, problem.n_var), dtype=np.bool_)
        self._accuracy = np.zeros(0)
        self.evaluated: list[Bits] = []
        self.moments: list[Moment] = []
        problem.listen(on_requested=self)

    def __call__(self, masks: Bits, values: Values) -> None:
        seconds = time.perf_counter() - self._started
        self.evaluated.append(masks.copy())
        masks = np.concatenate([self._masks, masks])
        column = self._problem.column("accuracy")
        accuracy = np.concatenate([self._accuracy, values[:, column]])
        kept = non_dominated(plane(self._problem, masks, accuracy))
        self._masks, self._accuracy = masks[kept], accuracy[kept]
        evaluations = sum(len(asked) for asked in self.evaluated)
        self.moments.append(Moment(evaluations, seconds, self._masks, self._accuracy))
        if seconds > self._most_seconds:
            raise SeenEnough


def search_ours(data: FeatureSet, head: HeadSettings, arguments: argparse.Namespace) -> Recorder:
    """The default search, from nothing until it ends or has been watched for long enough."""
    started = time.perf_counter()
    problem = PruningProblem(data, head=head, seed=arguments.seed, device="cpu")
    recorder = Recorder(problem, started, arguments.watch)
    with suppress(SeenEnough):
        run_search(problem, arguments.pop, arguments.generations, seed=arguments.seed)
    return recorder


def search_published(data: FeatureSet, head: HeadSettings, arguments: argparse.Namespace) -> Recorder:
    """The published search."""
    started = time.perf_counter()
    objectives = ["accuracy", "active_neurons"]
    problem = PruningProblem(data, objectives=objectives, head=head, seed=arguments.seed, device="cpu")
    recorder = Recorder(problem, started)
    run_search(problem, arguments.pop, budget=arguments.evaluations, algorithm="reference", seed=arguments.seed)
    return recorder


@dataclass(frozen=True)
class Pace:
    """Seconds of the published training per mask and fold, and the epochs it is multiplied up to."""

    loop: float
    ours: float
    epochs: float
    n_folds: int


def measure_pace(
    data: FeatureSet, published: HeadSettings, masks: Bits, stopped: int, arguments: argparse.Namespace
) -> Pace:
    """Time the published training of some masks on one fold, in turns, for a few epochs; scale it to all epochs.

    The papers stop a head whose training loss has not fallen for 10 epochs. How many epochs are left after that is
    found out by training the first ``stopped`` masks to the end.
    """
    problem = PruningProblem(data, objectives=["accuracy"], head=published, seed=arguments.seed, device="cpu")
    fitness = problem.fitness
    decoded = [problem.encoding.decode(mask) for mask in masks]
    features, labels = fitness.ranking_data(rows=fitness.folds.train[0]).sample
    rows = np.arange(len(labels))
    shape = problem.encoding.shape

    def clock_of_ours(epochs: int) -> Clock:
        settings = published.model_copy(update={"epochs": epochs, "early_stop": "none"})

        def fit() -> None:
            trainer = PopulationTrainer(features, labels, shape, settings, arguments.seed, device="cpu")
            for _ in trainer.fit(decoded, [rows]):
                pass

        return Clock(fit, len(decoded) * epochs)

    tensors = torch.from_numpy(features), torch.from_numpy(labels)
    short = published.model_copy(update={"epochs": arguments.loop_epochs})
    train_in_a_loop(*tensors, shape, short, decoded[:1])
    loop = Clock(lambda: train_in_a_loop(*tensors, shape, short, decoded), len(decoded) * arguments.loop_epochs)
    clock_of_ours(1).run()
    ours = clock_of_ours(arguments.our_epochs)
    take_turns([loop, ours], arguments.repeats)
    whole = PopulationTrainer(features, labels, shape, published, arguments.seed, device="cpu")
    epochs = mean([float(stack.epochs[0]) for stack in whole.fit(decoded[:stopped], [rows])])
    return Pace(loop.seconds * epochs, ours.seconds * epochs, epochs, len(fitness.folds))


def reached(judge: Judge, moments: Sequence[Moment], scoring: str, level: float) -> float:
    """Seconds until a search's front has a hypervolume; infinite where it never has."""
    for moment in moments:
        if judge.volumes(moment.masks, moment.accuracy)[scoring] >= level:
            return moment.seconds
    return float("inf")


def measure(report: Report, data: FeatureSet, arguments: argparse.Namespace) -> list[Case]:
    """One data set: its tables and cases."""
    changes = {"epochs": 3, "hidden": 8} if arguments.quick else {}
    default = HeadSettings.preset("default", **changes)
    published = HeadSettings.preset("paper", epochs=arguments.epochs, hidden=arguments.hidden)
    ours = search_ours(data, default, arguments)
    theirs = search_published(data, published if arguments.full else default, arguments)
    evaluated = np.concatenate(theirs.evaluated)
    chosen = evaluated[np.linspace(0, len(evaluated) - 1, arguments.candidates).round().astype(int)]
    pace = measure_pace(data, published, chosen, arguments.stopped, arguments)
    judge = Judge(data, default, arguments.seed)
    last = theirs.moments[-1]

    report.section(data.name)
    report.text(
        f"{data.n_train} training rows, {data.n_features} features, {plural(pace.n_folds, 'fold')}. Published "
        f"training of one mask on one fold: {pace.loop:.2f} s by the sequential loop, {pace.ours:.2f} s by our "
        f"trainer, both measured on {len(chosen)} of the search's {last.evaluations} candidates "
        f"({plural(arguments.loop_epochs, 'epoch')} of the loop, {arguments.our_epochs} of ours) and scaled to "
        f"the {pace.epochs:.0f} epochs that {plural(min(arguments.stopped, len(chosen)), 'candidate')} trained "
        f"to the end took of the {arguments.epochs} allowed."
    )
    if arguments.full:
        report.text(f"The published search really trained: {last.seconds:.0f} s.")
    else:
        report.text(
            "The published search saw the default head's scores in place of the published head's, which took it "
            f"{last.seconds:.0f} s. The times of ways 2 and 3 are extrapolated."
        )
    per_mask = [pace.n_folds * pace.ours, pace.n_folds * pace.loop]
    extrapolated = ["2: our trainer, s", "3: loop, s"]
    show_fronts(report, "published search", _some(theirs.moments, arguments.lines), judge, extrapolated, per_mask)
    show_fronts(report, "ours", _some(ours.moments, arguments.lines), judge, ["1: ours, s"])

    levels = judge.volumes(last.masks, last.accuracy)
    if arguments.own_head:
        # each with the head that it would hand over: theirs with the published one, ours with the default
        levels[OWN] = _with_published_head(data, published, last, arguments.seed)
    return show_times(report, data.name, levels, ours.moments, judge, last.evaluations, pace)


def show_fronts(
    report: Report,
    search: str,
    moments: Sequence[Moment],
    judge: Judge,
    times: Sequence[str],
    seconds_per_mask: Sequence[float] = (),
) -> None:
    """Table of a search's fronts: their hypervolumes, and when they were there, measured or by time per mask."""
    report.table(search, "members", *(f"hypervolume, {name}" for name in SCORINGS), *times)
    for moment in moments:
        volumes = judge.volumes(moment.masks, moment.accuracy)
        seconds = [moment.evaluations * each for each in seconds_per_mask] or [moment.seconds]
        report.row(
            plural(moment.evaluations, "evaluation"),
            str(len(moment.masks)),
            *(f"{volumes[name]:.4f}" for name in SCORINGS),
            *(f"{second:,.1f}" if second < 1000 else f"{second:,.0f}" for second in seconds),
        )
    report.end_table()


def show_times(
    report: Report,
    data: str,
    levels: dict[str, float],
    moments: Sequence[Moment],
    judge: Judge,
    evaluations: int,
    pace: Pace,
) -> list[Case]:
    """Table of when ours reaches the published search's hypervolumes; returns its cases."""
    loop, trainer = (evaluations * pace.n_folds * seconds for seconds in (pace.loop, pace.ours))
    report.table(
        f"reached by ours: what the published search has after {evaluations} evaluations",
        "hypervolume",
        "ours, s",
        f"3: loop, s ({plural(pace.n_folds, 'fold')})",
        "3 / ours",
        "3 / ours, one fold",
        "2 / ours",
        "target",
    )
    cases = []
    for name, level in levels.items():
        seconds = reached(judge, moments, SEEN if name == OWN else name, level)
        # a front that is never reached is reached infinitely late
        ratio = loop / seconds
        details = {
            "hypervolume": level,
            "seconds_ours": seconds if math.isfinite(seconds) else None,
            "seconds_baseline": loop,
            "ratio_with_one_fold": ratio / pace.n_folds,
            "ratio_to_our_trainer": trainer / seconds,
        }
        baseline = PUBLISHED.format(evaluations, SEQUENTIAL)
        case = report.case(Case(f"{data}, {name}", ratio, baseline, TARGET, details=details))
        cases.append(case)
        report.row(
            name,
            f"{level:.4f}",
            f"{seconds:.1f}" if math.isfinite(seconds) else f"not within {moments[-1].seconds:.0f} s",
            f"{loop:,.0f}",
            f"{ratio:,.0f}",
            f"{ratio / pace.n_folds:,.0f}",
            f"{trainer / seconds:,.0f}",
            case.verdict(),
        )
    report.end_table()
    return cases


def _with_published_head(data: FeatureSet, published: HeadSettings, last: Moment, seed: int) -> float:
    """Hypervolume of the published search's front, trained on the search's folds as published."""
    problem = PruningProblem(
        data, objectives=["accuracy", "active_neurons"], head=published, seed=seed, device="cpu"
    )
    return hypervolume(plane(problem, last.masks, problem.values(last.masks)[:, 0]), np.ones(2))


def _some(moments: Sequence[Moment], number: int) -> list[Moment]:
    """At most so many moments of a search, more of them from its start, with the first and the last."""
    last = len(moments) - 1
    chosen = {round(place) - 1 for place in np.geomspace(1, last + 1, number)}
    return [moments[place] for place in sorted(chosen)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data", nargs="+", default=[str(path) for path in DEFAULT_DATA], help="features .npz files"
    )
    parser.add_argument("--evaluations", type=int, default=200, help="evaluations of the published search")
    parser.add_argument("--generations", type=int, help="generations of ours (default: the search's own)")
    parser.add_argument("--watch", type=float, default=90.0, help="seconds after which ours is ended")
    parser.add_argument("--pop", type=int, help="population of both (default: each search's own)")
    parser.add_argument("--epochs", type=int, default=600, help="epochs of the published training")
    parser.add_argument("--hidden", type=int, default=512, help="hidden units of the published head")
    parser.add_argument(
        "--full", action="store_true", help="really train the published search's masks; takes hours"
    )
    parser.add_argument(
        "--own-head",
        action="store_true",
        help="also train the published search's last front as published, and compare it with ours; takes minutes",
    )
    parser.add_argument("--candidates", type=int, default=10, help="masks of the published search that are timed")
    parser.add_argument("--loop-epochs", type=int, default=3, help="epochs that the sequential loop trains them")
    parser.add_argument("--our-epochs", type=int, default=20, help="epochs that our trainer trains them")
    parser.add_argument("--stopped", type=int, default=1, help="masks trained to the end, to see where they stop")
    parser.add_argument("--repeats", type=int, default=2, help="repeats of the timing")
    parser.add_argument("--seed", type=int, default=1, help="seed of folds, heads and searches")
    parser.add_argument("--lines", type=int, default=8, help="lines of a table")
    quick = {
        "data": ["synthetic"], "evaluations": 6, "generations": 2, "pop": 4, "epochs": 4, "hidden": 16,
        "candidates": 2, "loop_epochs": 1, "our_epochs": 2, "repeats": 1, "lines": 3,
    }  # fmt: skip
    arguments = parse(parser, argv, quick)
    report = Report("time_to_front", "Time to the front that the published search finds", arguments)
    report.text(
        "All on one core. Hypervolume of (error, share of active features) up to (1, 1): by the scores that the "
        "search saw, by the default head on folds drawn anew (which neither search has fitted), and by accuracy "
        "on the test rows after retraining. Ours: all defaults, its clock starts before the problem is made; it "
        f"is watched until it ends or {arguments.watch:g} s have passed."
    )
    cases = []
    for source in arguments.data:
        if source != "synthetic" and not Path(source).is_file():
            report.text(f"{Path(source).name} is left out: there is no such file (--data FILE.npz).")
            continue
        cases += measure(report, small_task() if source == "synthetic" else load_features(source), arguments)
    if not cases:
        raise InputError("no data to search: give features .npz files (--data FILE.npz)")
    worst = min(cases, key=lambda case: case.ratio)
    report.text(
        f"The smallest of these ratios is {worst.ratio:,.0f} ({worst.name}; {worst.verdict() or 'not judged'})."
    )
    return report.close()


if __name__ == "__main__":
    start(main)
