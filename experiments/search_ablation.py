"""What does each part of the guided search buy, and how does it stand against other searches?

Leaves the parts of the guided search out one at a time, and runs standard searches beside it, all with the same
number of evaluations, the same population and the same seeds.

    python experiments/search_ablation.py --quick
    python experiments/search_ablation.py leaves_citrus.npz hymenoptera.npz trashnet.toml
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from typing import Any

from moevoprune import InputError
from moevoprune.errors import whole_number
from moevoprune.search.algorithms import GUIDED_PARTS
from moevoprune.studies.saying import describe
from moevoprune.studies.search_ablation import (
    GUIDED,
    HOW_COMPARED,
    MEAN,
    PREFIX,
    claims,
    differences_table,
    differences_to_guided,
    front_row,
    means_table,
    scores_of,
)
from moevoprune.studies.search_ablation_figure import plot_search_ablation
from moevoprune.studies.study import MOST_EVALUATIONS, Study, run_study

OTHERS = ("nsga2", "nsga3", "sms_emoa", "age_moea", "spea2", "reference", "random")
REFERENCE_CHILDREN = 2


def variants(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of all searches, by name; age_moea is missing where numba is."""
    pop = whole_number("--pop", arguments.pop, 2, 10_000)
    budget = whole_number("--budget", arguments.budget, pop, MOST_EVALUATIONS)
    if pop % REFERENCE_CHILDREN or budget % pop:
        # a generation is two masks in the reference search
        raise InputError(
            f"--budget {budget}, --pop {pop}: only whole generations cost all searches the same; use an even "
            "population, and a multiple of it as the budget"
        )
    objectives = [name.strip() for name in arguments.objectives.split(",")]
    if "accuracy" not in objectives:
        raise InputError(f"--objectives {arguments.objectives}: searches are compared by accuracy: add it")
    if len(objectives) < 2:
        raise InputError(f"--objectives {arguments.objectives}: searches are for fronts: add a second objective")
    # not by evaluations: a start that lost a mask it held twice would earn a generation more
    generations = budget // pop
    common = {"problem.objectives": arguments.objectives, "search.pop": pop, "search.gens": generations}
    searches: dict[str, dict[str, Any]] = {GUIDED: {"search.algorithm": GUIDED}}
    for part in GUIDED_PARTS:
        searches[PREFIX + part] = {"search.algorithm": GUIDED, "search.leave_out": [part]}
    for other in OTHERS:
        if other != "age_moea" or find_spec("numba"):
            searches[other] = {"search.algorithm": other}
    if "reference" in searches:
        searches["reference"]["search.gens"] = 1 + (budget - pop) // REFERENCE_CHILDREN
    return {name: {**common, **settings} for name, settings in searches.items()}


def carry_out(study: Study) -> None:
    """Run the searches and say what came out."""
    arguments = study.arguments
    searches = variants(arguments)
    runs = study.sweep(searches)
    fronts = [run.front() for run in runs]
    study.rows += [front_row(run, front) for run, front in zip(runs, fronts, strict=True)]
    scores = scores_of(study.rows)
    first = {run.name: run for run in reversed(runs)}
    names = list(scores["test"][GUIDED])
    if arguments.seeds > 1:
        together = differences_to_guided(scores, {MEAN: names})
        single = differences_to_guided(scores, {name: [name] for name in names})
        study.sections += [f"## Differences to guided, {MEAN}", differences_table(together, MEAN)]
        study.sections += ["## What comes of it", claims({**together, **single})]
    for name in names:
        study.sections += [f"## {name}", describe(name, first[name].features()) + ".", means_table(scores, name)]
        if arguments.seeds > 1:
            study.sections.append(differences_table(single, name))
    if "age_moea" in OTHERS and "age_moea" not in searches:
        study.sections.append("age_moea is left out: it needs numba (`pip install 'moevoprune[age]'`).")
    figure = plot_search_ablation(runs, fronts, arguments.pop, arguments.budget)
    study.write("What the parts of the guided search buy", about(study), figure)


def about(study: Study) -> str:
    """What was run, measured and tested."""
    arguments = study.arguments
    trial = "**Quick form: two seeds of a short search, from which nothing can be concluded.**\n\n"
    return (
        f"{trial if study.quick else ''}`{study.command}`\n\n"
        f"{arguments.seeds} seeds, {arguments.budget} evaluations per search (fewer where a start population "
        "holds a mask twice), objectives "
        f"{arguments.objectives.replace(',', ', ')}; a population of {arguments.pop} in all searches (reference "
        "has two children per generation, as published). without-X is guided with nsga2's part in place of X; "
        "nsga2 itself is guided without any of them. nsga2, nsga3, sms_emoa, age_moea, spea2 and random start "
        "alike; reference is MO-EvoPruneDeepTL's search (arXiv 2302.10253). A search sees validation folds "
        f"only.\n\n{HOW_COMPARED} No difference shown does not mean that there is none: {arguments.seeds} seeds "
        "see large ones only."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument("--budget", type=int, default=300, help="evaluations per search (default: 300)")
    parser.add_argument("--pop", type=int, default=30, help="masks per generation (default: 30)")
    parser.add_argument(
        "--objectives",
        default="accuracy,active_neurons",
        help="objectives, with accuracy among them (default: accuracy,active_neurons)",
    )


if __name__ == "__main__":
    quick = {"seeds": 2, "budget": 60, "pop": 6}
    sys.exit(run_study("search_ablation", __doc__, carry_out, 5, quick, add_options))
