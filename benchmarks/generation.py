"""Where the time of a search goes: training, scoring, choosing rankings, pymoo, and our own glue.

Measured is a whole ``evolve`` with a journal, as ``moevoprune run`` makes it, on one core: every span of wall
time is counted once, for the innermost of the functions that are watched. What cannot be told apart by watching
functions is the share of the single objectives, as they share their predictions. So masks of the run are scored
again and again with their heads trained beforehand, with and without CKA or OoD objectives, in turns; the
difference is what an objective costs, its own forward passes included.

    python benchmarks/generation.py --data digits features.npz
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import Bits, Case, Clock, Report, make_parser, parse, plural, small_task, start, take_turns
from pymoo.core.algorithm import Algorithm

from moevoprune import HeadSettings, PruningProblem, evolve, load_features
from moevoprune.features import FeatureSet
from moevoprune.fronts import evolve as evolve_module
from moevoprune.heads.trainer import HeadStack, PopulationTrainer
from moevoprune.search import loop as loop_module
from moevoprune.search.fitness import FitnessEvaluator
from moevoprune.search.journal import EvaluationJournal
from moevoprune.search.loop import Generation

TRAINING, SCORING = "training", "scoring"
# everything in the generations that is neither training nor scoring
GLUE = {
    "pymoo": "pymoo: sampling, variation, survival",
    "problem": "problem: packing, remembered masks",
    "decode": "decoding bits",
    "archive": "archive of non-dominated masks",
    "summary": "hypervolume, progress",
    "journal": "journal",
    "rest": "rest of the loop",
}
PHASES = {"rankings": "choosing and computing rankings", "generations": "generations", "front": "front"}


@dataclass(frozen=True)
class Objectives:
    """A run's objectives, and the one whose cost is judged."""

    title: str
    names: tuple[str, ...]
    judged: str

    @property
    def basic(self) -> list[str]:
        """The objectives without the judged one."""
        return [name for name in self.names if name != self.judged]


RUNS = [
    Objectives("default objectives", ("accuracy", "active_neurons", "cka"), "cka"),
    Objectives("with an OoD objective", ("accuracy", "active_neurons", "ood_auroc"), "ood_auroc"),
]


class Stopwatch:
    """Counts wall time by phase and by the innermost watched function."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._open: list[tuple[str, str]] = []
        self._since = 0.0

    @contextmanager
    def span(self, kind: str, phase: str | None = None) -> Iterator[None]:
        """Count what happens inside for this kind, and for this phase or the one around it."""
        self._turn()
        self._open.append((phase or self._open[-1][0], kind))
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def watch(self, owner: Any, name: str, kind: str, phase: str | None = None) -> Any:
        """Patch that counts the time of a function, once it is entered."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.span(kind, phase):
                return original(*args, **kwargs)

        return patch.object(owner, name, watched)

    def watch_generator(self, owner: Any, name: str, kind: str) -> Any:
        """The same for a function that yields: the time between its yields is its caller's."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with self.span(kind):
                items = iter(original(*args, **kwargs))
            while True:
                with self.span(kind):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item

        return patch.object(owner, name, watched)

    def of(self, phase: str | None = None, kind: str | None = None) -> float:
        """Seconds of a phase and a kind; None for all of them."""
        return sum(
            seconds
            for (in_phase, of_kind), seconds in self.seconds.items()
            if phase in (None, in_phase) and kind in (None, of_kind)
        )

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def _said(generation: Generation) -> None:
    """What ``moevoprune run`` does with a generation, without the terminal."""
    str(generation)


def watched_run(
    data: FeatureSet, names: Sequence[str], head: HeadSettings, pop: int | None, generations: int | None, seed: int
) -> tuple[Stopwatch, Bits]:
    """Evolve a front under the stopwatch; returns it and all masks that were trained, in order."""
    clock = Stopwatch()
    problem = PruningProblem(data, objectives=list(names), head=head, seed=seed, device="cpu")
    trained: list[Bits] = []
    problem.listen(on_trained=lambda masks, values: trained.append(masks.copy()))
    watched: list[tuple[Callable[..., Any], Any, str, str]] = [
        (clock.watch_generator, PopulationTrainer, "fit", TRAINING),
        (clock.watch_generator, FitnessEvaluator, "evaluate", SCORING),
        (clock.watch, type(problem.encoding), "decode", "decode"),
        (clock.watch, PruningProblem, "values", "problem"),
        (clock.watch, Algorithm, "next", "pymoo"),
        (clock.watch, loop_module._Observer, "__call__", "archive"),
        (clock.watch, loop_module, "_generation", "summary"),
        (clock.watch, EvaluationJournal, "append", "journal"),
        (clock.watch, EvaluationJournal, "sync", "journal"),
    ]
    with ExitStack() as patches, tempfile.TemporaryDirectory() as folder:
        for watch, owner, name, kind in watched:
            patches.enter_context(watch(owner, name, kind))
        patches.enter_context(clock.watch(loop_module, "make_algorithm", "rest", "rankings"))
        patches.enter_context(clock.watch(evolve_module, "declare_front", "rest", "front"))
        with clock.span("rest", "generations"):
            evolve(problem, pop, generations, seed=seed, journal=Path(folder) / "journal", progress=_said)
    return clock, np.concatenate(trained)


def share_of_judged(
    data: FeatureSet, run: Objectives, head: HeadSettings, masks: Bits, seed: int, repeats: int
) -> tuple[float, float]:
    """Share of the judged objective in the scoring of masks, and seconds of scoring per mask."""
    fitness = {
        "with": PruningProblem(data, objectives=list(run.names), head=head, seed=seed, device="cpu").fitness,
        "without": PruningProblem(data, objectives=run.basic, head=head, seed=seed, device="cpu").fitness,
    }
    trained = fitness["with"]
    stacks = list(trained.trainer.fit([trained.encoding.decode(row) for row in masks], trained.folds.train))

    def score(evaluator: FitnessEvaluator) -> None:
        at_hand = iter(stacks)

        def replay(wanted: Sequence[Any], *args: Any, **kwargs: Any) -> Iterator[HeadStack]:
            return (next(at_hand) for _ in wanted)

        with patch.object(evaluator.trainer, "fit", replay):
            for _ in evaluator.evaluate(masks):
                pass

    clocks = {name: Clock(partial(score, one), len(masks)) for name, one in fitness.items()}
    take_turns(list(clocks.values()), repeats)
    whole = clocks["with"].seconds
    return max(1.0 - clocks["without"].seconds / whole, 0.0), whole


def measure(report: Report, data: FeatureSet, run: Objectives, arguments: Any) -> None:
    """One run: its table and its cases."""
    head = HeadSettings.preset("default", **({"epochs": 2, "hidden": 8} if arguments.quick else {}))
    clock, masks = watched_run(data, run.names, head, arguments.pop, arguments.generations, arguments.seed)
    chosen = masks[np.linspace(0, len(masks) - 1, min(arguments.scored, len(masks))).round().astype(int)]
    share, per_mask = share_of_judged(data, run, head, chosen, arguments.seed, arguments.repeats)
    whole, in_loop = clock.of(), clock.of("generations")
    scoring = clock.of("generations", SCORING)
    glue = {kind: clock.of("generations", kind) for kind in GLUE}
    report.section(f"{data.name}, {run.title}")
    report.text(
        f"{', '.join(run.names)}; {data.n_train} rows, {data.n_features} features; {len(masks)} masks trained. "
        f"Scoring takes {1e3 * per_mask:.2f} ms a mask, of which {run.judged} {share:.0%}, measured on "
        f"{len(chosen)} of the masks."
    )
    report.table("part", "seconds", "of the generations", "of the whole run")

    def row(name: str, seconds: float, generations: bool = True) -> None:
        inside = f"{seconds / in_loop:.1%}" if generations else ""
        report.row(name, f"{seconds:.3f}", inside, f"{seconds / whole:.1%}")

    row("training", clock.of("generations", TRAINING))
    row(f"scoring: {', '.join(run.basic)}", (1 - share) * scoring)
    row(f"scoring: {run.judged}", share * scoring)
    for kind, title in GLUE.items():
        row(title, glue[kind])
    row("**all generations**", in_loop)
    row("rankings before them: training", clock.of("rankings", TRAINING), False)
    row("rankings before them: the rest", clock.of("rankings") - clock.of("rankings", TRAINING), False)
    row("front after them: training", clock.of("front", TRAINING), False)
    row("front after them: the rest", clock.of("front") - clock.of("front", TRAINING), False)
    row("**whole run**", whole, False)
    report.end_table()
    name = f"{data.name}, {run.title}"
    cases = [
        Case(f"{name}: pymoo and glue", sum(glue.values()) / in_loop, "time of the generations", at_most=0.05),
        Case(f"{name}: pymoo and glue, whole run", sum(glue.values()) / whole, "time of evolve", at_most=0.05),
        Case(f"{name}: {run.judged}", share * scoring / in_loop, "time of the generations", at_most=0.10),
    ]
    shown = [report.case(case) for case in cases]
    report.text(
        " ".join(f"{case.name}: {case.ratio:.1%} of the {case.baseline} ({_judged(case)})." for case in shown)
    )


def _judged(case: Case) -> str:
    return case.verdict("%") or "not judged"


def with_ood(data: FeatureSet) -> tuple[FeatureSet, str]:
    """The data, with out-of-distribution rows made of mixed-up features where they have none."""
    if data.X_ood is not None:
        return data, f"{data.name} has {plural(len(data.X_ood), 'OoD row')} of its own."
    mixed = np.random.default_rng(0).permuted(data.X_test, axis=0)
    return replace(data, X_ood=mixed), (
        f"{data.name} has no OoD rows: {len(mixed)} were made of its test rows, every feature permuted by itself."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", nargs="+", default=["digits"], help="digits, or features .npz files")
    parser.add_argument("--pop", type=int, help="individuals per generation (default: the search's own)")
    parser.add_argument("--generations", type=int, help="generations (default: the search's own)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the search")
    parser.add_argument("--scored", type=int, default=60, help="masks that objectives are timed on")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of timing the objectives")
    quick = {"data": ["synthetic"], "pop": 4, "generations": 2, "scored": 4, "repeats": 1}
    arguments = parse(parser, argv, quick)
    report = Report("generation", "Where the time of a search goes", arguments)
    report.text(
        "One default `evolve` each, with a journal, on one core. Wall time, each moment counted once; the figures "
        "and tables that `moevoprune run` writes afterwards are not in it."
    )
    for source in arguments.data:
        data = small_task() if source == "synthetic" else load_features(source)
        for run in RUNS:
            if run.judged == "ood_auroc":
                data, note = with_ood(data)
                report.text(note)
            measure(report, data, run, arguments)
    return report.close()


if __name__ == "__main__":
    start(main)
