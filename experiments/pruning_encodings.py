"""EvoPruneDeepTL's encodings (arXiv 2202.03844): what does a single-objective search evolve, and what a front?

Evolves heads with the steady-state genetic algorithm of the paper in its six encodings, with accuracy on
validation rows as its fitness (there it was test accuracy), and fronts of accuracy and active bits at the same
number of evaluations. Beside them stand the dense head, and the paper's comparators at the density of the evolved
head. All choices are made by validation rows; the test rows score once.

    python experiments/pruning_encodings.py --quick
    python experiments/pruning_encodings.py leaves_citrus.npz hymenoptera.npz trashnet.toml
    python experiments/pruning_encodings.py leaves_citrus.npz --preset paper --hidden 512
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from study import Study, describe, number, p_cell, run_study

from moevoprune.cli.run_baselines import WantedBaseline, run_baselines
from moevoprune.cli.sweeping import SweepRun
from moevoprune.errors import whole_number
from moevoprune.fronts.comparison import MethodResult
from moevoprune.fronts.front import Front
from moevoprune.fronts.plots import style
from moevoprune.fronts.readings import (
    DENSE,
    PruningVerdict,
    Readings,
    judge_pruning,
    read_fronts,
    smallest_at_least,
)
from moevoprune.fronts.statistics import PairedTest, holm, interval, paired_test
from moevoprune.fronts.tables import markdown_table

# encoding, hidden layers and evaluations as a multiple of those of one layer; all as published
ENCODINGS = {
    "1 layer": ("neurons", 1, 1.0),
    "FC1": ("neurons:1", 2, 1.0),
    "FC2": ("neurons:2", 2, 1.0),
    "both layers": ("neurons:both", 2, 1.5),
    "FS": ("features", 1, 1.0),
    "connections": ("connections", 1, 1.0),
}
GUIDED_POP = 40
BASELINES = {
    "weight_magnitude": "weight pruning",
    "gradual_magnitude": "polynomial decay",
    "neuron_norm": "neuron pruning",
    "best_fixed": "best fixed",
}
READINGS = {
    "evolved": "the GA's winner",
    "best": "the front's best head on validation rows",
    "as dense": "the front's smallest head that is no worse than the dense one on validation rows",
}
# fixed before there were results
MARGIN, LARGEST_SHARE, ALPHA = 0.01, 0.6, 0.05
# the paper's LEAVES: the dense heads of one and two layers; accuracy and % active; accuracy at FS's density
PUBLISHED_DENSE = (0.923, 0.919)
PUBLISHED = {
    "1 layer": (0.935, 38),
    "FC1": (0.937, 28),
    "FC2": (0.935, 12),
    "both layers": (0.936, 34),
    "FS": (0.943, 59),
    "connections": (0.932, 45),
}
PUBLISHED_AT_FS = {"weight pruning": 0.947, "polynomial decay": 0.940, "neuron pruning": 0.946}
COLORS = {
    "1 layer": style.BLUE,
    "FC1": style.SKY,
    "FC2": style.GREEN,
    "both layers": style.PURPLE,
    "FS": style.VERMILLION,
    "connections": style.ORANGE,
}
MEASURED = ("active_share", "validation_accuracy", "test_accuracy")

ABOUT = """\
EvoPruneDeepTL evolves the mask of a head with a single-objective steady-state genetic algorithm (GA). Here it \
runs as published, with one change that matters: its fitness is accuracy on validation rows, the paper's was \
test accuracy. (The public code's replacement can let one individual fill the population; that slip is \
described in the docstring of `moevoprune.search.evo_prune_deeptl`, and not copied.) Beside it stands a front \
of accuracy and active bits, by the guided search with no more evaluations; heads that it trains to choose its \
rankings are not among them. The front is read where its validation accuracy is at least that of the GA's \
winner (the smallest such head; the best, where there is none), and at its best. Baselines have the size of the \
GA's winner of the same seed; best fixed chooses its own.

`{command}`: seeds 1 to {seeds}, {budget} evaluations per search ({both} for both layers), {hidden} units per \
hidden layer (published: 512), training preset `{preset}`{preset_note}. Brackets are 95 % intervals over the \
seeds. Everything is chosen by validation rows; test rows score once. p-values are of tests paired by seed, \
corrected over the data sets by Holm's method.{quick}

**The published pattern**: a head no less accurate than the dense one, with under {largest} % of the bits. The \
rule, fixed beforehand: an encoding reaches it on a data set if a one-sided paired t-test over the seeds shows \
its test accuracy to be less than {margin} below the dense head's (p at most {alpha} after Holm), and the mean \
share of active bits is below {largest} %. It is less accurate if the two-sided interval over the seeds lies \
below 0. The claim holds on a data set if all encodings of neurons and features reach it, and in part if some \
do; it is not shown if none does and some could, and does not hold if all are less accurate or too large. Seeds \
share their test rows: the interval over test rows (bootstrap of the seeds' mean) is what other test rows could \
give.

**Of the other claims**, one holds if the difference is significant (p at most {alpha} after Holm) in more than \
half of all pairs of encoding and data set, and the reverse in none; in part if it is in some; it does not hold \
if only the reverse is, and is not shown if neither is. Over both layers, the magnitude baselines rank the \
units of two layers by one scale and may empty a layer; the claims about them leave this encoding out."""
SEARCHES_TABLE = """\
Test accuracy @ active bits. Differences are those of the front's head to the GA's winner; as accurate is how \
many seeds have a front with a head that reaches the validation accuracy of the GA's winner."""
BASELINES_TABLE = """\
Baselines at the size of the GA's winner; in brackets, what the winner has more, with the p-value after Holm."""


@dataclass(frozen=True, eq=False)
class Cell:
    """An encoding on a data set.

    Attributes
    ----------
    heads
        Heads of all seeds by what they are: "dense", "evolved", "same" (of the front, as accurate as the evolved
        one on validation rows), and the others of :data:`READINGS`.
    baselines
        Share of active bits, validation and test accuracy of all seeds, shape (3, seeds), by the baseline's title.
    reached
        Seeds whose front has a head as accurate as the evolved one on validation rows.
    """

    heads: dict[str, Readings]
    baselines: dict[str, npt.NDArray[np.float64]]
    reached: int


@dataclass(frozen=True)
class Tested:
    """A paired test on one data set, and its p-value corrected over the data sets."""

    test: PairedTest
    p_value: float | None

    @property
    def sign(self) -> int:
        """Sign of a significant difference, otherwise 0."""
        return 0 if self.p_value is None or self.p_value > ALPHA else int(np.sign(self.test.difference.mean))

    def __str__(self) -> str:
        p_value = f", p {p_cell(self.p_value)}" if self.p_value is not None else ""
        return f"{self.test.difference.text(sign=True)}{p_value}"


Cells = dict[str, dict[str, Cell]]
# by encoding and data set
Tests = dict[str, dict[str, Tested]]
Verdicts = dict[str, dict[str, PruningVerdict]]


def variants(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of all searches, by the name of the search and of the encoding."""
    found = {}
    for name, (encoding, depth, factor) in ENCODINGS.items():
        budget = round(factor * arguments.budget)
        common = {
            "problem.encoding": encoding,
            "problem.objectives": "accuracy,active_neurons",
            "head.preset": arguments.preset,
            "head.hidden": [arguments.hidden] * depth,
        }
        found[_variant("ga", name)] = {**common, "search.algorithm": "evo_prune_deeptl", "search.budget": budget}
        # generations: by a budget it would begin another one where the start had a mask twice
        pop = min(GUIDED_POP, budget // 2)
        guided = {"search.algorithm": "guided", "search.pop": pop, "search.gens": budget // pop}
        found[_variant("guided", name)] = {**common, **guided}
    return found


def _variant(search: str, encoding: str) -> str:
    return f"{search}-{encoding.replace(' ', '_')}"


def at_winners_size(study: Study, runs: Sequence[SweepRun]) -> dict[tuple[Path, str], MethodResult]:
    """Carry out the baselines at the sizes of the winners of the GA's runs; results by run folder and title."""
    wanted = []
    for run in runs:
        front = run.front()
        size = int(front.active[front.best("accuracy")])
        wanted += [WantedBaseline(run, method, size) for method in BASELINES]
    results = run_baselines(wanted, study.arguments.jobs, study.say)
    return {(one.run.out, BASELINES[one.method]): result for one, result in zip(wanted, results, strict=True)}


def read_cell(
    study: Study, encoding: str, runs: Sequence[SweepRun], results: Mapping[tuple[Path, str], MethodResult]
) -> Cell:
    """Choose heads of an encoding by validation rows, and score them; adds the lines of the CSV file."""
    ga_runs = [run for run in runs if run.variant == _variant("ga", encoding)]
    ga = [run.front() for run in ga_runs]
    guided = [run.front() for run in runs if run.variant == _variant("guided", encoding)]
    winners, best = ([front.best("accuracy") for front in fronts] for fronts in (ga, guided))
    levels, tops = (_accuracies(*chosen) for chosen in ((ga, winners), (guided, best)))
    dense = _accuracies(ga, [DENSE] * len(ga))
    chosen = {
        "dense": (ga, [DENSE] * len(ga)),
        "evolved": (ga, winners),
        "same": (guided, _smallest(guided, levels)),
        "best": (guided, best),
        "as dense": (guided, _smallest(guided, dense)),
    }
    heads = {what: read_fronts(*those) for what, those in chosen.items()}
    scores = {
        what: (heads[what].share, _accuracies(*those), heads[what].accuracy) for what, those in chosen.items()
    }
    baselines = {}
    for title in BASELINES.values():
        of_seeds = [results[run.out, title] for run in ga_runs]
        shares = [r.active[0] / r.n_bits for r in of_seeds]
        baselines[title] = np.array([shares, [r.validation[0] for r in of_seeds], [r.test[0] for r in of_seeds]])
    for what, columns in {**scores, **baselines}.items():
        for run, *values in zip(ga_runs, *columns, strict=True):
            of = {"data": run.name, "encoding": encoding, "seed": run.seed, "head": what}
            study.rows.append({**of, **dict(zip(MEASURED, map(float, values), strict=True))})
    return Cell(heads, baselines, sum(top >= level for top, level in zip(tops, levels, strict=True)))


def _smallest(fronts: Sequence[Front], levels: Sequence[float]) -> list[int]:
    return [smallest_at_least(front, "accuracy", level) for front, level in zip(fronts, levels, strict=True)]


def _accuracies(fronts: Sequence[Front], members: Sequence[int]) -> list[float]:
    """Validation accuracies of a member of each front."""
    columns = (np.append(f.column("accuracy"), f.dense_values[f.objectives.index("accuracy")]) for f in fronts)
    return [float(column[member]) for column, member in zip(columns, members, strict=True)]


def paired(cells: Cells, first: Callable[[Cell], Any], second: Callable[[Cell], Any]) -> Tests:
    """Test two values per seed against each other, for every encoding over the data sets."""
    found: Tests = {}
    for encoding in ENCODINGS:
        tests = [paired_test(first(of[encoding]), second(of[encoding])) for of in cells.values()]
        corrected = holm([test.p_value for test in tests])
        found[encoding] = dict(zip(cells, map(Tested, tests, corrected), strict=True))
    return found


def judged(cells: Cells, what: str) -> Verdicts:
    """Set a reading beside the dense head, for every encoding over the data sets."""
    found = {}
    for encoding in ENCODINGS:
        heads = {name: of[encoding].heads for name, of in cells.items()}
        pairs = {name: (those[what], those["dense"]) for name, those in heads.items()}
        found[encoding] = judge_pruning(pairs, MARGIN, LARGEST_SHARE, ALPHA)
    return found


def percent(share: Any) -> str:
    """Mean share in percent, small ones with a digit more."""
    mean = 100 * float(np.mean(share))
    return f"{mean:.{1 if mean < 9.5 else 0}f} %"


def sized(share: Any, accuracy: Any) -> str:
    """Accuracy with its interval, and the share of active bits."""
    return f"{interval(accuracy)} @ {percent(share)}"


def searches_table(of: Mapping[str, Cell], name: str, shares: Tests, accuracies: Tests) -> list[str]:
    """Markdown: the GA's winner, and the front read at its accuracy."""
    head = ["", "GA's winner", "front, same accuracy", "difference in share", "in accuracy"]
    head += ["front, best", "as accurate"]
    table = [head]
    for encoding, cell in of.items():
        evolved, same, best = (
            sized(cell.heads[what].share, cell.heads[what].accuracy) for what in ("evolved", "same", "best")
        )
        differences = [str(tests[encoding][name]) for tests in (shares, accuracies)]
        table.append(
            [encoding, evolved, same, *differences, best, f"{cell.reached} of {len(cell.heads['best'].share)}"]
        )
    return markdown_table(table)


def baselines_table(of: Mapping[str, Cell], name: str, tests: Mapping[str, Tests]) -> list[str]:
    """Markdown: test accuracy of the baselines, and what the GA's winner has more."""
    table = [["", "GA's winner", *BASELINES.values()]]
    for encoding, cell in of.items():
        row = [encoding, sized(cell.heads["evolved"].share, cell.heads["evolved"].accuracy)]
        for title, (share, _, test) in cell.baselines.items():
            size = f" @ {percent(share)}" if title == BASELINES["best_fixed"] else ""
            row.append(f"{number(float(np.mean(test)))}{size} ({tests[title][encoding][name]})")
        table.append(row)
    return markdown_table(table)


def published_table(of: Mapping[str, Cell]) -> list[str]:
    """Markdown: the paper's figures for LEAVES beside those of this data set."""
    table = [["", "published", "here"]]
    for encoding, title, accuracy in zip(
        ("1 layer", "FC1"), ("1 layer", "2 layers"), PUBLISHED_DENSE, strict=True
    ):
        table.append(
            [f"not pruned, {title}", number(accuracy), str(interval(of[encoding].heads["dense"].accuracy))]
        )
    for encoding, cell in of.items():
        evolved, (accuracy, active) = cell.heads["evolved"], PUBLISHED[encoding]
        table.append(
            [f"evolved, {encoding}", f"{number(accuracy)} @ {active} %", sized(evolved.share, evolved.accuracy)]
        )
    for title, accuracy in PUBLISHED_AT_FS.items():
        table.append([f"{title} at FS's density", number(accuracy), str(interval(of["FS"].baselines[title][2]))])
    return markdown_table(table)


def verdicts_table(cells: Cells, what: str, found: Verdicts) -> list[str]:
    """Markdown: a reading beside the dense head."""
    table = [["", "dense", "pruned", "active", "difference [over seeds]", "[over test rows]", "p, Holm", ""]]
    for name, of in cells.items():
        for encoding, cell in of.items():
            verdict = found[encoding][name]
            accuracies = [number(float(cell.heads[which].accuracy.mean())) for which in ("dense", what)]
            over_rows = verdict.over_rows.text(sign=True).partition(" ")[2]
            difference = verdict.over_seeds.difference.text(sign=True)
            cells_ = [percent(verdict.share), difference, over_rows, p_cell(verdict.p_value), verdict.word]
            table.append([f"{name}, {encoding}", *accuracies, *cells_])
    return markdown_table(table)


def pattern_claim(name: str, what: str, found: Verdicts) -> str:
    """Say whether the published pattern holds on a data set."""
    by_word: dict[str, list[str]] = {}
    # of neurons and features
    for encoding in (one for one in found if one != "connections"):
        by_word.setdefault(found[encoding][name].word, []).append(encoding)
    if "reached" in by_word:
        says = "holds" if len(by_word) == 1 else "holds in part"
    else:
        says = "is not shown" if "not shown" in by_word else "does not hold"
    listed = "; ".join(f"{word}: {', '.join(encodings)}" for word, encodings in by_word.items())
    return f"* {name}, {READINGS[what]}: the published pattern **{says}** ({listed})."


def counted_claim(claim: str, tests: Tests, wanted: int = 1) -> str:
    """Say whether a difference has the claimed sign in most pairs of encoding and data set, by the rule."""
    signs = [tested.sign * wanted for of in tests.values() for tested in of.values()]
    for_it, against = signs.count(1), signs.count(-1)
    if for_it:
        says = "holds" if 2 * for_it > len(signs) and not against else "holds in part"
    else:
        says = "does not hold" if against else "is not shown"
    return f"* {claim}: **{says}** (significant in {for_it} of {len(signs)} pairs, the reverse in {against})."


def draw(cells: Cells) -> Axes:
    """Draw how much more accurate than the dense head heads are, over the share that is active, per data set."""
    columns = min(len(cells), 3)
    rows = -(-len(cells) // columns)
    figure = style.new_figure((max(3.5 * columns, 6.5), 3.4 * rows + 0.9))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    searches = {"evolved": ("o", "GA's winner"), "same": ("s", "front, same validation accuracy")}
    for panel, (name, of) in zip(panels, cells.items(), strict=False):
        panel.axhline(0, color=style.BLACK, linewidth=1.0, linestyle=style.DASHED, zorder=1)
        for encoding, cell in of.items():
            for what, (marker, _) in searches.items():
                over = interval(cell.heads[what].accuracy - cell.heads["dense"].accuracy)
                bars = None if np.isnan(over.low) else over.high - over.mean
                fill = COLORS[encoding] if what == "evolved" else "white"
                at = cell.heads[what].share.mean(), over.mean
                panel.errorbar(*at, bars, fmt=marker, color=COLORS[encoding], markerfacecolor=fill, elinewidth=0.9)
            if is_leaves(name):
                accuracy, active = PUBLISHED[encoding]
                gain = accuracy - PUBLISHED_DENSE[ENCODINGS[encoding][1] - 1]
                panel.plot(active / 100, gain, "x", color=COLORS[encoding])
        panel.set_xlim(-0.02, 1)
        panel.set_title(style.plain_text(name), fontsize=style.MEDIUM)
        panel.set_xlabel("active bits", fontsize=style.MEDIUM)
        panel.xaxis.set_major_formatter(PercentFormatter(1))
        style.plain(panel)
        style.rule(panel)
    # all panels have one scale: drawn last, as tall as what is there
    low, high = panels[0].get_ylim()
    for panel in panels[: len(cells)]:
        panel.fill_between([0, LARGEST_SHARE], -MARGIN, high, color=style.RULE, linewidth=0, zorder=0)
        panel.set_ylim(low, high)
    for panel in panels[len(cells) :]:
        panel.set_visible(False)
    panels[0].set_ylabel("test accuracy less the dense head's", fontsize=style.MEDIUM)
    handles: list[Any] = [Line2D([], [], color=color, linewidth=5, label=name) for name, color in COLORS.items()]
    for what, (marker, label) in searches.items():
        fill = style.GREY if what == "evolved" else "white"
        handles.append(
            Line2D([], [], marker=marker, color=style.GREY, markerfacecolor=fill, linewidth=0, label=label)
        )
    if any(map(is_leaves, cells)):
        handles.append(Line2D([], [], marker="x", color=style.GREY, linewidth=0, label="published, LEAVES"))
    handles.append(Patch(color=style.RULE, label="published pattern"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=style.SMALL)
    return panels[0]


def is_leaves(name: str) -> bool:
    """Whether a data set goes by the name of the papers' LEAVES."""
    return "leaves" in name.casefold()


def carry_out(study: Study) -> None:
    """Run searches and baselines, and say what came out."""
    arguments = study.arguments
    whole_number("--budget", arguments.budget, 4)
    runs = study.sweep(variants(arguments))
    results = at_winners_size(study, [run for run in runs if run.variant.startswith("ga-")])
    by_data = {name: [run for run in runs if run.name == name] for name in dict.fromkeys(run.name for run in runs)}
    cells = {
        name: {encoding: read_cell(study, encoding, own, results) for encoding in ENCODINGS}
        for name, own in by_data.items()
    }
    shares = paired(cells, lambda cell: cell.heads["same"].share, lambda cell: cell.heads["evolved"].share)
    accuracies = paired(
        cells, lambda cell: cell.heads["same"].accuracy, lambda cell: cell.heads["evolved"].accuracy
    )
    baselines = {}
    for title in BASELINES.values():
        baselines[title] = paired(
            cells, lambda cell: cell.heads["evolved"].accuracy, lambda cell, title=title: cell.baselines[title][2]
        )
    found = {what: judged(cells, what) for what in READINGS}
    claims = [pattern_claim(name, what, found[what]) for name in cells for what in READINGS]
    for title, tests in baselines.items():
        # see ABOUT
        fair = {one: of for one, of in tests.items() if one != "both layers" or title == BASELINES["best_fixed"]}
        claims.append(counted_claim(f"the GA's winner is more accurate than {title}", fair))
    claims.append(counted_claim("the front's head of the same validation accuracy is smaller", shares, wanted=-1))
    claims.append(
        counted_claim(
            "the front's head of the same validation accuracy is more accurate on the test rows", accuracies
        )
    )
    study.sections += ["## Claims", "\n".join(claims)]
    for name, of in cells.items():
        study.sections += [f"## {name}", describe(name, by_data[name][0].features()) + "."]
        dense = [interval(of[encoding].heads["dense"].accuracy) for encoding in ("1 layer", "FC1")]
        study.sections.append(f"Not pruned: one layer {dense[0]}, two layers {dense[1]}.")
        study.sections.append(SEARCHES_TABLE)
        study.sections.append("\n".join(searches_table(of, name, shares, accuracies)))
        study.sections.append(BASELINES_TABLE)
        study.sections.append("\n".join(baselines_table(of, name, baselines)))
        if is_leaves(name):
            study.sections.append(
                "Published for LEAVES: ResNet-50, 512 units, another split, and fitness by test rows."
            )
            study.sections.append("\n".join(published_table(of)))
    for what, title in READINGS.items():
        study.sections += [
            f"## Beside the dense head: {title}",
            "\n".join(verdicts_table(cells, what, found[what])),
        ]
    study.write("Encodings of EvoPruneDeepTL", about(study), draw(cells))


def about(study: Study) -> str:
    """What was run, and the rules."""
    arguments = study.arguments
    return ABOUT.format(
        command=study.command,
        seeds=arguments.seeds,
        budget=arguments.budget,
        both=round(1.5 * arguments.budget),
        hidden=arguments.hidden,
        preset=arguments.preset,
        preset_note=" (20 epochs; published: up to 600)" if arguments.preset == "default" else "",
        largest=f"{100 * LARGEST_SHARE:.0f}",
        margin=number(MARGIN, 2),
        alpha=number(ALPHA, 2),
        quick=" **The quick form: a trial of the script, from which nothing can be concluded.**"
        if study.quick
        else "",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument(
        "--budget", type=int, default=200, help="evaluations per search, for both layers 1.5 times (default: 200)"
    )
    parser.add_argument(
        "--hidden", type=int, default=64, help="units per hidden layer (default: 64; published: 512)"
    )
    parser.add_argument(
        "--preset", default="default", help="training of heads: default, or paper for the published protocol"
    )


if __name__ == "__main__":
    sys.exit(
        run_study(
            "pruning_encodings", __doc__, carry_out, 5, {"seeds": 2, "budget": 32, "hidden": 16}, add_options
        )
    )
