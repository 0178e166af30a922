"""Do ensembles of a front's members beat their best member, and the unpruned head?

The claim of MO-EvoPruneDeepTL (arXiv 2302.10253): members whose accuracy lies in a window of percentiles, 50-60
to 85-95, are together more accurate than the best one of the window, and better at telling other data sets'
images. Beside the windows stand all ways of this package to choose members. Members are chosen by validation
rows; test rows only score them. The runs are those of multi_objective.py: with its --work folder they are not
done twice.

    python experiments/ensembles.py features.npz more.npz
    python experiments/ensembles.py --quick
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from multi_objective import BUDGET, OURS, SEEDS, variants
from study import Study, describe, number, paired_table, run_study, shown_higher, verdict

from moevoprune import FeatureSet
from moevoprune.fronts.ensemble_study import study_ensembles
from moevoprune.fronts.ensemble_tables import BEST_MEMBER, DENSE, EnsembleStudy
from moevoprune.fronts.plots import plot_window_means
from moevoprune.fronts.plots.style import MEDIUM, SMALL, new_figure
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table

DATA = "`moevoprune run`'s features .npz and problem .toml; each has the others as its OoD rows (default: digits)"

# by data set, seed by seed
Studies = Mapping[str, list[EnsembleStudy]]
Pairs = dict[str, tuple[list[float], list[float]]]
Values = npt.NDArray[np.float64]

ACCURACY = {
    "soft": "soft vote",
    "hard": "majority vote",
    "best_by_validation": "member best on validation",
    "best_member": "member best on test",
    "mean_member": "mean of members",
}
AUROC = {
    "ood_auroc": "mean score",
    "ood_best_by_selection": "member best in the search",
    "ood_best_member": "member best on test",
    "ood_mean_member": "mean of members",
}
# both rows of the figure share it
LEGEND = (
    "ensemble: soft vote; of AUROC the mean score",
    "ensemble: majority vote",
    "member best on test",
    "member best on validation; of AUROC in the search",
    "mean of members",
)
# first, second, what it says
WINDOW_TESTS = (
    ("hard", "best_by_validation", "Accuracy: majority vote against the member one would have picked"),
    ("soft", "best_by_validation", "Accuracy: soft vote against the member one would have picked"),
    ("ood_auroc", "ood_best_by_selection", "AUROC: mean score against the member one would have picked"),
    ("hard", "best_member", "Accuracy: majority vote against the member best on test"),
    ("soft", "best_member", "Accuracy: soft vote against the member best on test"),
    ("ood_auroc", "ood_best_member", "AUROC: mean score against the member best on test"),
)
SINGLE_TESTS = (
    ("default", DENSE, "The default ensemble against the dense head"),
    ("default", BEST_MEMBER, "The default ensemble against the best member by validation"),
    ("greedy", DENSE, "The greedy ensemble, of few members, against the dense head"),
)
ABOUT = """`{command}`

Seeds 1 to {seeds}, {budget} evaluations of the guided search for accuracy, active neurons and OoD AUROC; tables
give means over the seeds, with 95 % intervals (Student) in brackets. Each data set has the others as
out-of-distribution (OoD) rows, balanced, one part for the search and another for the test; of a data set that
is alone the last class serves. Members are chosen by validation rows; test rows only score.{trial}

An ensemble's OoD score of a row is the mean of its members' scores (largest softmax probability at temperature
1000), however they vote: what the paper took for it is not known, so this is our choice. Against a member "best
on test" the paper compares; nobody could have picked it. The member that one would have picked is, of accuracy,
the best on validation rows; of AUROC, the best in the search, on other OoD rows."""
RULE = """Rule: per seed, a difference is averaged over the eight windows. A claim holds on a data set where the
mean over the seeds is above 0 with p at most .05 in a paired t-test, corrected over the data sets (Holm), and
in part where that is so on some of them. Where it does not hold, "behind" says that the opposite is shown by
the same rule."""
PUBLISHED = """The paper reports gains over the best member of a window of up to +.033 (CATARACT), +.051 (RPS)
and +.014 (PAINTING): other data sets and another backbone (ResNet-50), and a search whose fitness was test
accuracy. Here the largest gains, of the means over the seeds in the eight windows, are (the largest of eight
flatters, there as here):"""


def study_runs(study: Study) -> tuple[dict[str, FeatureSet], Studies]:
    """Search, or take up what was found, and score every ensemble."""
    wanted = {OURS: variants(study.arguments.budget)[OURS]}
    features: dict[str, FeatureSet] = {}
    studies: dict[str, list[EnsembleStudy]] = {}
    for run in study.sweep(wanted, study.with_others_as_ood()):
        if run.name not in features:
            features[run.name] = run.features()
        studies.setdefault(run.name, []).append(
            study_ensembles(run.front(), features[run.name], odin_epsilon=run.config.problem.odin_epsilon)
        )
    return features, studies


def estimate(values: Sequence[float | None]) -> str:
    """Mean and interval; nothing where a value is missing."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return interval(known).text() if len(known) == len(values) else ""


def ways_table(seeds: Sequence[EnsembleStudy]) -> str:
    """Markdown: one line per ensemble and single head."""
    table = [["", "members", "share of features", "test accuracy", "its best member", "ECE", "OoD AUROC"]]
    for first in seeds[0].ensembles:
        rows = [study.row(first.name, first.voting) for study in seeds]
        table.append(
            [
                first.name if first.voting is None else f"{first.name}, {first.voting}",
                f"{np.mean([row.members for row in rows]):.0f}",
                number(float(np.mean([row.union_fraction for row in rows])), 2),
                estimate([row.test for row in rows]),
                estimate([row.best_member_test for row in rows]),
                estimate([row.ece for row in rows]),
                estimate([row.ood_auroc for row in rows]),
            ]
        )
    return "\n".join(markdown_table(table))


def windows_table(seeds: Sequence[EnsembleStudy], columns: Mapping[str, str]) -> str:
    """Markdown: one line per window."""
    table = [["window", "members", *columns.values()]]
    for windows in zip(*(study.windows for study in seeds), strict=True):
        cells = [estimate([getattr(window, column) for window in windows]) for column in columns]
        members = f"{np.mean([window.members for window in windows]):.0f}"
        table.append([f"{windows[0].low}\N{EN DASH}{windows[0].high}", members, *cells])
    return "\n".join(markdown_table(table))


def of_windows(studies: Studies, column: str) -> dict[str, Values]:
    """A column of the windows by data set, shape (seeds, windows)."""
    return {
        name: np.array([[getattr(window, column) for window in study.windows] for study in seeds])
        for name, seeds in studies.items()
    }


def window_pairs(studies: Studies, first: str, second: str) -> Pairs:
    """Means over the windows of two columns, by data set and seed."""
    ours, theirs = of_windows(studies, first), of_windows(studies, second)
    return {name: (ours[name].mean(axis=1).tolist(), theirs[name].mean(axis=1).tolist()) for name in studies}


def single_pairs(studies: Studies, first: str, second: str) -> Pairs:
    """Test accuracies of a soft vote and of a single head, by data set and seed."""
    return {
        name: ([study.row(first).test for study in seeds], [study.row(second).test for study in seeds])
        for name, seeds in studies.items()
    }


def test_section(claims: Mapping[str, Pairs], study: Study) -> list[str]:
    """Tests of claims that a first column is above a second, each with its verdict."""
    lines = []
    for claim, pairs in claims.items():
        ahead = shown_higher(pairs)
        behind = shown_higher({name: (second, first) for name, (first, second) in pairs.items()})
        words = [
            f"{'ahead' if ahead[n] else 'behind' if behind[n] else 'no difference shown'} on {n}" for n in pairs
        ]
        said = "nothing can be concluded" if study.quick else verdict(ahead.values())
        lines += [paired_table(pairs, "ensemble", "member"), f"{claim}: **{said}** ({', '.join(words)})."]
    return lines


def gains_table(studies: Studies) -> str:
    """Markdown: by data set, the largest of the windows' mean gains over a member."""
    tests = [(first, second) for first, second, _ in WINDOW_TESTS if first != "soft"]
    columns = {**ACCURACY, **AUROC}
    table = [["", *(f"{columns[first]} over {columns[second]}" for first, second in tests)]]
    for name in studies:
        gains = [of_windows(studies, first)[name] - of_windows(studies, second)[name] for first, second in tests]
        table.append([name, *(number(float(gain.mean(axis=0).max()), sign=True) for gain in gains)])
    return "\n".join(markdown_table(table))


def draw(studies: Studies) -> Axes:
    """Draw the windows of every data set: accuracy above, AUROC below."""
    figure = new_figure((4.2 * len(studies) + 0.6, 6.6))
    axes = figure.subplots(2, len(studies), squeeze=False)
    for column, (name, seeds) in enumerate(studies.items()):
        windows = [study.windows for study in seeds]
        for ax, measure in zip(axes[:, column], ("accuracy", "ood_auroc"), strict=True):
            plot_window_means(windows, measure, ax)
            ax.get_legend().remove()
            ax.tick_params(axis="x", labelsize=SMALL - 2)
            ax.set_xlabel("percentiles of validation accuracy; members", fontsize=SMALL)
            ax.set_ylabel(ax.get_ylabel() if column == 0 else "")
        axes[0, column].set_title(name, fontsize=MEDIUM)
    handles = axes[0, 0].get_legend_handles_labels()[0][::-1]
    figure.legend(handles, LEGEND, loc="outside upper left", ncols=3, frameon=False, fontsize=SMALL)
    return axes[0, 0]


def rows_of(name: str, seed: int, study: EnsembleStudy) -> list[dict[str, object]]:
    """Lines of the CSV file: ways and single heads, then windows."""
    first = {"data": name, "seed": seed}
    ways = [
        {**first, "ensemble": row.name, "voting": row.voting, "members": row.members} for row in study.ensembles
    ]
    for line, row in zip(ways, study.ensembles, strict=True):
        line |= {
            "share_of_features": row.union_fraction,
            "test": row.test,
            "best_member_test": row.best_member_test,
        }
        line |= {"ece": row.ece, "ood_auroc": row.ood_auroc, "ood_fpr95": row.ood_fpr95}
    return [*ways, *({**first, "ensemble": "window", **asdict(window)} for window in study.windows)]


def carry_out(study: Study) -> None:
    """Run the experiment."""
    features, studies = study_runs(study)
    for name, seeds in studies.items():
        parts = [
            f"## {describe(name, features[name])}",
            ways_table(seeds),
            "Windows, test accuracy:",
            windows_table(seeds, ACCURACY),
            "Windows, OoD AUROC on test rows:",
            windows_table(seeds, AUROC),
        ]
        study.sections += parts
        for seed, one in zip(study.seeds, seeds, strict=True):
            study.rows += rows_of(name, seed, one)
    singles = {said: single_pairs(studies, first, second) for first, second, said in SINGLE_TESTS}
    windows = {said: window_pairs(studies, first, second) for first, second, said in WINDOW_TESTS}
    study.sections += ["## Does the claim hold?", RULE, *test_section({**windows, **singles}, study)]
    study.sections += [PUBLISHED, gains_table(studies)]
    about = ABOUT.format(
        command=study.command,
        seeds=study.arguments.seeds,
        budget=study.arguments.budget,
        trial=" **Quick form: nothing can be concluded.**" if study.quick else "",
    )
    study.write("Ensembles of a front's members", about, draw(studies))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this experiment has to choose."""
    parser.add_argument(
        "--budget", type=int, default=BUDGET, help=f"evaluations of each search (default: {BUDGET})"
    )


if __name__ == "__main__":
    trial = {"seeds": 2, "budget": 60}
    sys.exit(run_study("ensembles", __doc__, carry_out, SEEDS, trial, add_options, data_help=DATA))
