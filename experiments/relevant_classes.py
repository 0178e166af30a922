"""Which features do the classes need? Leaves classes out, adds one step by step, and evolves again.

The relevant-classes study of EvoPruneDeepTL (arXiv 2202.03844): (a) one class is left out at a time; (b) one class
is added in steps of 20 % of its training rows. Fronts before and after are compared by the features that their
members read.

    python experiments/relevant_classes.py --quick
    python experiments/relevant_classes.py leaves_citrus.npz trashnet.toml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moevoprune import Front
from moevoprune.cli.sweeping import SweepRun, WantedRun, run_wanted
from moevoprune.errors import whole_number
from moevoprune.fronts.tables import markdown_text
from moevoprune.studies.class_variants import ClassVariants, class_variants
from moevoprune.studies.relevant_classes import (
    HOW_COMPARED,
    ClassFronts,
    claims,
    compare_classes,
    front_values,
    left_out_tables,
    steps_table,
)
from moevoprune.studies.relevant_classes_figure import plot_relevant_classes
from moevoprune.studies.saying import describe
from moevoprune.studies.study import MOST_EVALUATIONS, Study, run_study

STEPS = (0.2, 0.4, 0.6, 0.8)
POP = 30


def run_all(study: Study, sets: Sequence[ClassVariants]) -> list[SweepRun]:
    """Evolve a front of every variant of every data set with every seed."""
    search = {
        "problem.objectives": "accuracy,active_neurons",
        "search.algorithm": "guided",
        "search.pop": POP,
        "search.gens": study.arguments.budget // POP,
    }
    wanted = [
        WantedRun(data.source, seed, variant, {**search, **own})
        for data in sets
        for variant, own in data.settings(study.arguments.work / "data").items()
        for seed in study.seeds
    ]
    return run_wanted(wanted, study.arguments.work, study.arguments.jobs, study.say)


def carry_out(study: Study) -> None:
    """Run the searches and say what came out."""
    whole_number("--budget", study.arguments.budget, POP, MOST_EVALUATIONS)
    # no test over pairs of seeds without
    whole_number("--seeds", study.arguments.seeds, 3, 1000)
    sets = class_variants(study, STEPS)
    fronts: dict[str, dict[str, list[Front]]] = {}
    for run in run_all(study, sets):
        front = run.front()
        fronts.setdefault(run.name, {}).setdefault(run.variant, []).append(front)
        what = {"data": run.name, "classes": run.variant, "seed": run.seed, "members": len(front)}
        study.rows.append({**what, **front_values(front)})
    results = [ClassFronts(data, fronts[data.name]) for data in sets]
    tests = compare_classes(results)
    study.sections += ["## What comes of it", claims(tests)]
    for result in results:
        data = result.data
        study.sections += [
            f"## {data.name}",
            describe(data.name, data.features) + ".",
            "### One class left out",
            *left_out_tables(result, tests[data.name]),
            f"### {markdown_text(data.added_name)} added in steps",
            steps_table(result),
        ]
    study.write("Which features the classes need", about(study), plot_relevant_classes(results, tests))


def about(study: Study) -> str:
    """What was run, measured and tested."""
    trial = "**Quick form: short searches, from which nothing can be concluded.**\n\n" if study.quick else ""
    return (
        f"{trial}`{study.command}`\n\n"
        f"Guided search for accuracy and active_neurons, {study.arguments.seeds} seeds, {study.arguments.budget} "
        "evaluations. Best: the member with the best validation accuracy. Knee: nearest to the ideal point. Both "
        "are chosen by validation rows; accuracies are of the test rows, the share is that of the active bits. "
        "Means with 95 % intervals over the seeds, which share one test split.\n\n"
        f"{HOW_COMPARED} EvoPruneDeepTL (arXiv "
        "2202.03844) evolved again without each class, and with growing shares of one, and reports that the "
        "chosen neurons change. How much two runs on the same classes differ is not known from there, nor are "
        "figures to set beside these."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument(
        "--budget", type=int, default=300, help="evaluations per search, of whole generations of 30 (default: 300)"
    )


if __name__ == "__main__":
    data_help = "features .npz or problem .toml, of three classes at least (default: digits)"
    trial = {"seeds": 3, "budget": 60}
    sys.exit(run_study("relevant_classes", __doc__, carry_out, 5, trial, add_options, data_help=data_help))
