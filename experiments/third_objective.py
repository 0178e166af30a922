"""What does the third objective buy?

Evolves fronts with accuracy and active neurons alone, and with a third objective, at equal evaluations and with
the same seeds, and compares them on the test rows: hypervolume of (test error, active fraction), and the accuracy,
with and without noise on the features, of the member that is best on validation among those of at most a share of
the bits. Over the fronts in three objectives, rank correlations say how much the objectives repeat one another.

    python experiments/third_objective.py --quick
    python experiments/third_objective.py features.npz more.npz --third cka:dense
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from moevoprune import Front
from moevoprune.cli.sweeping import SweepRun
from moevoprune.errors import whole_number
from moevoprune.fronts.comparison import MethodResult, score
from moevoprune.fronts.plots.style import GREY, SKY, VERMILLION, new_figure
from moevoprune.fronts.robustness import feature_noise
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.saying import describe, number, paired_table
from moevoprune.studies.study import MOST_EVALUATIONS, Study, run_study

NOISES = (0.0, 0.5, 1.0, 2.0)
SHARES = (0.05, 0.25)
TWO = "two objectives"


def measure(run: SweepRun) -> dict[str, float]:
    """Hypervolume on test rows, and accuracies under noise of members that were picked by validation."""
    front = run.front()
    accuracy = front.column("accuracy")
    found = MethodResult("", "guided", run.seed, front.n_bits, front.active, accuracy, front.test, 0, 0)
    picks = {}
    for share in SHARES:
        small = np.flatnonzero(front.active <= max(share * front.n_bits, front.active.min()))
        picks[f"{share:.0%}"] = front.heads[small[np.argmax(accuracy[small])]]
    curves = feature_noise(picks, run.features(), NOISES, run.seed)
    measured = {"members": float(len(front)), "test hypervolume": score(found)["test_hypervolume"]}
    for curve in curves:
        for noise, value in zip(curve.severities, curve.accuracy, strict=True):
            measured[f"{curve.name}, noise {noise:g}"] = value
    return measured


def correlations(fronts: list[Front]) -> str:
    """One line: means over the fronts of the rank correlations between their objectives."""
    names, mean = fronts[0].objectives, np.mean([front.correlations() for front in fronts], axis=0)
    pairs = [
        f"{names[i]} and {names[j]} {number(mean[i, j], 2, sign=True)}"
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    return f"Rank correlation over the fronts in three objectives, mean over seeds: {', '.join(pairs)}."


def carry_out(study: Study) -> None:
    n_evaluations = whole_number("--budget", study.arguments.budget, 1, MOST_EVALUATIONS)
    three, budget = f"and {study.arguments.third}", {"search.budget": n_evaluations}
    names = {"two": TWO, study.arguments.third.replace(":", "-"): three}
    both = ["accuracy", "active_neurons"]
    runs = study.sweep(
        {
            variant: {**budget, "problem.objectives": both if name == TWO else [*both, study.arguments.third]}
            for variant, name in names.items()
        }
    )
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for run in runs:
        measured = measure(run)
        found.setdefault(run.name, {}).setdefault(names[run.variant], []).append(measured)
        study.rows.append({"data": run.name, "front": names[run.variant], "seed": run.seed, **measured})
    for data, sides in found.items():
        own = [run for run in runs if run.name == data]
        table = [["", *sides]]
        for key in sides[TWO][0]:
            digits = 0 if key == "members" else 3
            table.append([key, *(interval([row[key] for row in rows]).text(digits) for rows in sides.values())])
        lines = [f"## {describe(data, own[0].features())}", *markdown_table(table)]
        lines[1:1] = [""]
        fronts = [run.front() for run in own if names[run.variant] == three]
        study.sections.append("\n".join([*lines, "", correlations(fronts)]))
    for key in list(next(iter(found.values()))[TWO][0])[1:]:
        pairs = {
            data: ([row[key] for row in sides[three]], [row[key] for row in sides[TWO]])
            for data, sides in found.items()
        }
        study.sections.append(f"### {key}\n\n{paired_table(pairs, three, TWO)}")
    draw_and_write(study, found, three)


def draw_and_write(study: Study, found: dict[str, dict[str, list[dict[str, float]]]], three: str) -> None:
    """Draw accuracy over noise, and write everything."""
    figure = new_figure((max(3.2 * len(found) + 0.6, 6.0), 3.4))
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True, squeeze=True))
    for ax, (data, sides) in zip(panels, found.items(), strict=True):
        for (name, rows), color in zip(sides.items(), (SKY, VERMILLION), strict=True):
            for share, style in zip(SHARES, (":", "-"), strict=True):
                values = [interval([row[f"{share:.0%}, noise {noise:g}"] for row in rows]) for noise in NOISES]
                low, high = (
                    [value.mean - value.low for value in values],
                    [value.high - value.mean for value in values],
                )
                mean = [value.mean for value in values]
                label = f"{name}, at most {share:.0%}"
                error = np.nan_to_num(np.array([low, high]))
                ax.errorbar(NOISES, mean, error, color=color, ls=style, marker="o", ms=3, capsize=2, label=label)
        ax.set_title(data, fontsize=10)
        ax.set_xlabel("noise (training standard deviations)")
        ax.grid(color=GREY, alpha=0.2)
    panels[0].set_ylabel("test accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    study.write(
        "What the third objective buys",
        f"`{study.command}`\n\nFronts in accuracy and active neurons, and the same with {study.arguments.third}, "
        f"{study.arguments.budget} evaluations each, {len(study.seeds)} seeds; means with 95 % intervals over the "
        "seeds. Members are picked by validation rows, as the most accurate with at most 5 or 25 % of the bits; "
        "noise is in standard deviations of the training rows. The test rows only score.",
        panels[0],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--third", default="cka:noise", help="the third objective (default: cka:noise)")
    parser.add_argument("--budget", type=int, default=600, help="evaluations per search (default: 600)")


if __name__ == "__main__":
    sys.exit(run_study("third_objective", __doc__, carry_out, 5, {"seeds": 2, "budget": 80}, add_options))
