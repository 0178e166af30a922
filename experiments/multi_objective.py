"""What does MO-EvoPruneDeepTL's search find: accuracy, active neurons and out-of-distribution detection at once?

Runs the published search (NSGA-II with two offspring per generation) and this package's own, with equally many
evaluations, merges the fronts of each one's runs (the "super Pareto front" of arXiv 2302.10253), and sets their
hypervolumes and most accurate members beside each other and the published ones. Members are chosen by validation
rows; test rows score them. The out-of-distribution rows of a data set are the other data sets', so all must come
from one backbone; a data set that is alone lends its last class.

    python experiments/multi_objective.py --quick
    python experiments/multi_objective.py leaves_citrus.npz hymenoptera.npz trashnet.toml
"""

from __future__ import annotations

import argparse
import sys

from moevoprune.studies.saying import describe
from moevoprune.studies.study import Study, run_study
from moevoprune.studies.three_objectives import best_table, claims, paired_tables, rows_of, volume_table
from moevoprune.studies.three_objectives_figure import draw_merged_fronts
from moevoprune.studies.two_searches import BUDGET, OURS, PUBLISHED, SEEDS, grouped, variants


def carry_out(study: Study) -> None:
    """Run both searches, and write down what they found."""
    swept = study.sweep(variants(study.arguments.budget), study.with_others_as_ood())
    all_runs = grouped(swept)
    for runs in all_runs:
        study.rows += rows_of(runs, study.seeds)
    examples = {run.name: run for run in swept}
    study.sections += [
        "\n".join(f"* {describe(name, run.features())}" for name, run in examples.items()),
        "## Hypervolume\n\nMean [95 % interval] of the runs, and of their merged front. That is the best of "
        f"{len(study.seeds)} runs, and so larger than any on validation rows; the paper reports merged fronts "
        f"alone, on the test rows that chose their members.\n\n{volume_table(all_runs)}",
        "## The most accurate member\n\nAccuracy @ share of active neurons / AUROC; chosen by validation accuracy."
        f"\n\n{best_table(all_runs)}",
        f"## Our search against the published one\n\nPaired by seed.\n\n{paired_tables(all_runs)}",
        f"## Claims\n\n{claims(all_runs)}",
    ]
    ax = draw_merged_fronts(all_runs)
    study.write("Accuracy, active neurons and out-of-distribution detection", about(study), ax)


def about(study: Study) -> str:
    """What was run."""
    quick = "Quick form: nothing can be concluded from it. " if study.quick else ""
    return (
        f"`{study.command}`\n\n{quick}MO-EvoPruneDeepTL (arXiv 2302.10253): feature selection by accuracy, active "
        "neurons and AUROC of out-of-distribution rows (largest softmax at temperature 1000). "
        f"{len(study.seeds)} runs of {study.arguments.budget} evaluations each: *{PUBLISHED}* is NSGA-II with a "
        f"population of 30 and two offspring per generation, *{OURS}* the guided search with its own defaults. "
        "Members are chosen by validation rows alone; test rows score them, together with out-of-distribution "
        "rows that no search has seen. The hypervolume is the share of the unit cube of (accuracy, 1 - active, "
        "AUROC) that a front dominates. The paper's figures are of ResNet-50, on other images and another split, "
        "and its fitness was test accuracy. Figure: members of the merged fronts on test rows; dashed, the dense "
        "head."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option of this experiment."""
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"evaluations of a search (default: {BUDGET})")


if __name__ == "__main__":
    sys.exit(run_study("multi_objective", __doc__, carry_out, SEEDS, {"seeds": 2, "budget": 60}, add_options))
