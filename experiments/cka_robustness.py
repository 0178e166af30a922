"""What does CKA say: is a pruned head like the unpruned one, and does CKA under noise predict robustness?

Part A takes the best mask of EvoPruneDeepTL's search and compares its head, by what both make of the test rows and
by their weights, with that of the Hamming-nearest mask evaluated, with the unpruned head, and with controls.
Part B retrains all masks of a random and of a guided search, and asks whether the objective `cka:noise` tells more
about their accuracy on disturbed test rows than their size and validation accuracy do.

    python experiments/cka_robustness.py leaves.npz hymenoptera.npz
    python experiments/cka_robustness.py --quick
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moevoprune.cli.sweeping import SweepRun
from moevoprune.errors import whole_number
from moevoprune.studies.best_mask_similarity import best_mask_similarity, similarity_sections
from moevoprune.studies.cka_robustness_figure import plot_cka_robustness
from moevoprune.studies.measurements import measured
from moevoprune.studies.robustness_prediction import (
    OBJECTIVE,
    OTHER_OBJECTIVE,
    disturbed_accuracies,
    prediction_sections,
    relations,
)
from moevoprune.studies.saying import describe
from moevoprune.studies.study import MOST_EVALUATIONS, Settings, Study, run_study

GENETIC, ENCODINGS, SEARCHES = "genetic-", ("features", "neurons"), ("random", "guided")


def variants(budget: int, masks: int) -> dict[str, Settings]:
    """The searches of both parts."""
    objectives = ["accuracy", "active_neurons"]
    genetic = {"search.algorithm": "evo_prune_deeptl", "search.budget": budget, "problem.objectives": objectives}
    sampled = {"search.budget": masks, "problem.objectives": [*objectives, OBJECTIVE, OTHER_OBJECTIVE]}
    return {
        **{f"{GENETIC}{encoding}": {**genetic, "problem.encoding": encoding} for encoding in ENCODINGS},
        **{search: {**sampled, "search.algorithm": search} for search in SEARCHES},
    }


def carry_out(study: Study) -> None:
    """Search, compare and score the heads, and say what came out."""
    budget = whole_number("--budget", study.arguments.budget, 2, MOST_EVALUATIONS)
    n_masks = whole_number("--masks", study.arguments.masks, 10, MOST_EVALUATIONS)
    runs = study.sweep(variants(budget, n_masks))
    genetic = [run for run in runs if run.variant not in SEARCHES]
    sampled = [run for run in runs if run.variant in SEARCHES]
    jobs = study.arguments.jobs
    similar = measured(genetic, best_mask_similarity, "similarity.csv", jobs, study.say)
    masks = measured(sampled, disturbed_accuracies, "disturbed.csv", jobs, study.say)
    related = relations(masks)
    study.rows += [{"part": "A", **row} for row in similar] + [{"part": "B", **row} for row in related]
    study.sections += [*similarity_sections(similar), *prediction_sections(related)]
    figure = plot_cka_robustness(similar, related, masks)
    study.write("CKA: similarity and robustness", about(study, runs), figure)


def about(study: Study, runs: Sequence[SweepRun]) -> str:
    """What was run, on which data."""
    arguments = study.arguments
    paragraphs = [
        f"`{study.command}`",
        f"Seeds 1 to {arguments.seeds}. A: EvoPruneDeepTL's genetic algorithm for validation accuracy, "
        f"{arguments.budget} evaluations. B: {arguments.masks} masks each of the random and of the guided search "
        f"for accuracy, active neurons, {OBJECTIVE} and {OTHER_OBJECTIVE}; a mask is a set of features. Test rows "
        "score, and choose nothing.",
        "\n".join(f"- {describe(run.name, run.features())}" for run in {run.name: run for run in runs}.values()),
    ]
    if study.quick:
        paragraphs.insert(1, "**Quick form, a trial: nothing can be concluded.**")
    return "\n\n".join(paragraphs)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument(
        "--budget", type=int, default=200, help="evaluations of the genetic algorithm (default: 200)"
    )
    parser.add_argument(
        "--masks", type=int, default=160, help="masks of the random and of the guided search (default: 160)"
    )


if __name__ == "__main__":
    quick = {"seeds": 2, "budget": 40, "masks": 40}
    sys.exit(run_study("cka_robustness", __doc__, carry_out, 5, quick, add_options))
