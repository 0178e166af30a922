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
from typing import Any

from moevoprune import InputError
from moevoprune.errors import whole_number
from moevoprune.studies.pruning_encodings import baselines_at_winners_size, cell_rows, read_cells, variant_name
from moevoprune.studies.pruning_encodings_claims import HOW_JUDGED, READINGS, claims, compare_cells
from moevoprune.studies.pruning_encodings_figure import plot_pruning_encodings
from moevoprune.studies.pruning_encodings_tables import data_sections, verdicts_table
from moevoprune.studies.saying import describe
from moevoprune.studies.study import MOST_EVALUATIONS, Study, run_study

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


def variants(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of all searches, by the name of the search and of the encoding."""
    found = {}
    for name in chosen_encodings(arguments):
        encoding, depth, factor = ENCODINGS[name]
        budget = round(factor * arguments.budget)
        common = {
            "problem.encoding": encoding,
            "problem.objectives": "accuracy,active_neurons",
            "head.preset": arguments.preset,
            "head.hidden": [arguments.hidden] * depth,
        }
        ga = {"search.algorithm": "evo_prune_deeptl", "search.budget": budget}
        # generations: by a budget it would begin another one where the start had a mask twice
        pop = min(GUIDED_POP, budget // 2)
        guided = {"search.algorithm": "guided", "search.pop": pop, "search.gens": budget // pop}
        for search, own in {"ga": ga, "guided": guided}.items():
            found[variant_name(search, name)] = {**common, **own}
    return found


def chosen_encodings(arguments: argparse.Namespace) -> list[str]:
    """Titles of the encodings, in their own order."""
    if arguments.encodings is None:
        return list(ENCODINGS)
    asked = [name.strip() for name in arguments.encodings.split(",")]
    for name in asked:
        if name not in ENCODINGS:
            raise InputError(f"--encodings: {name!r} is none of {', '.join(ENCODINGS)}")
    return [name for name in ENCODINGS if name in asked]


def carry_out(study: Study) -> None:
    """Run searches and baselines, and say what came out."""
    whole_number("--budget", study.arguments.budget, 4, MOST_EVALUATIONS)
    runs = study.sweep(variants(study.arguments))
    baselines = baselines_at_winners_size(runs, study.arguments.jobs, study.say)
    cells = read_cells(runs, chosen_encodings(study.arguments), baselines)
    compared = compare_cells(cells)
    study.rows += cell_rows(cells)
    study.sections += ["## Claims", claims(compared)]
    first = {run.name: run for run in reversed(runs)}
    for name, of in cells.items():
        study.sections += [f"## {name}", describe(name, first[name].features()) + "."]
        study.sections += data_sections(name, of, compared)
    for what, title in READINGS.items():
        study.sections += [f"## Beside the dense head: {title}", verdicts_table(cells, what, compared)]
    study.write("Encodings of EvoPruneDeepTL", about(study), plot_pruning_encodings(cells))


def about(study: Study) -> str:
    """What was run, and the rules."""
    arguments = study.arguments
    note = " (20 epochs; published: up to 600)" if arguments.preset == "default" else ""
    trial = " **The quick form: a trial of the script, from which nothing can be concluded.**"
    return (
        "EvoPruneDeepTL evolves the mask of a head with a single-objective steady-state genetic algorithm (GA). "
        "Here it runs as published, with one change that matters: its fitness is accuracy on validation rows, the "
        "paper's was test accuracy. (The public code's replacement can let one individual fill the population; "
        "that slip is described in the docstring of `moevoprune.search.evo_prune_deeptl`, and not copied.) Beside "
        "it stands a front of accuracy and active bits, by the guided search with no more evaluations; heads that "
        "it trains to choose its rankings are not among them. The front is read where its validation accuracy is "
        "at least that of the GA's winner (the smallest such head; the best, where there is none), and at its "
        "best. Baselines have the size of the GA's winner of the same seed; best fixed chooses its own.\n\n"
        f"`{study.command}`: seeds 1 to {arguments.seeds}, {arguments.budget} evaluations per search "
        f"({round(1.5 * arguments.budget)} for both layers), {arguments.hidden} units per hidden layer "
        f"(published: 512), training preset `{arguments.preset}`{note}. Brackets are 95 % intervals over the "
        "seeds. Everything is chosen by validation rows; test rows score once. p-values are of tests paired by "
        f"seed, corrected over the data sets by Holm's method.{trial if study.quick else ''}\n\n{HOW_JUDGED}"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--encodings", metavar="A,B", help=f"some of {', '.join(ENCODINGS)} (default: all)")
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
    quick = {"seeds": 2, "budget": 32, "hidden": 16}
    sys.exit(run_study("pruning_encodings", __doc__, carry_out, 5, quick, add_options))
