"""Does ODF2NNA's small network lose nothing, and does it beat the same shape trained from scratch?

ODF2NNA (arXiv 2312.10560) keeps the units of a large network whose output varies enough over the rows, and
retrains the small network that they make. Per data set and seed that network is set beside the large one, the same
shape from scratch, magnitude pruning, an evolutionary search and scikit-learn, as `moevoprune construct` does it.
Threshold and weight decay are chosen by cross-validation; the test rows score what was chosen. Finished seeds are
kept in --work.

    python experiments/feedforward_construction.py --quick
    python experiments/feedforward_construction.py
    python experiments/feedforward_construction.py wine features.npz --seeds 5
"""

from __future__ import annotations

import argparse
import sys

from moevoprune.construction.settings import ConstructionSettings
from moevoprune.construction.tables import BUNDLED
from moevoprune.errors import whole_number
from moevoprune.studies.constructed_networks import comparison_rows, methods_table
from moevoprune.studies.constructed_networks_claims import beats_original, beats_scratch, no_loss
from moevoprune.studies.constructed_networks_figure import plot_constructed_networks
from moevoprune.studies.constructed_networks_runs import describe_task, run_comparisons, wanted_comparisons
from moevoprune.studies.saying import number
from moevoprune.studies.study import MOST_EVALUATIONS, Study, run_study

QUICK_SETS = ("wine", "diabetes")
QUICK = ConstructionSettings(
    hidden=(64, 64), epochs=20, epsilons=(0.5, 1.0, 1.5), weight_decay=0.03, cv=3, repeats=1
)


def carry_out(study: Study) -> None:
    """Construct the networks and their rivals, and say what came out."""
    arguments = study.arguments
    budget = whole_number("--budget", arguments.budget, 0, MOST_EVALUATIONS)
    sources = arguments.data or (QUICK_SETS if study.quick else BUNDLED)
    tasks = wanted_comparisons(sources, study.seeds, settings_of(study), budget, arguments.work)
    records = run_comparisons(tasks, arguments.jobs, study.say)
    study.rows += comparison_rows(records, study.seeds)
    study.sections += [
        "\n".join(f"* {describe_task(task)}" for task in tasks if task.seed == study.seeds[0]),
        methods_table(records),
        no_loss(records),
        beats_original(records),
        beats_scratch(records),
    ]
    if study.quick:
        study.sections.append(
            "Quick form: the sentences above show what the full form says; nothing can be concluded."
        )
    title = "Feed-forward networks constructed of the units that vary (ODF2NNA)"
    study.write(title, about(study), plot_constructed_networks(records))


def settings_of(study: Study) -> ConstructionSettings:
    """How networks are constructed."""
    return QUICK if study.quick else ConstructionSettings()


def about(study: Study) -> str:
    """What was run, and how to read it."""
    settings = settings_of(study)
    trial = "A trial: from the quick form nothing can be concluded.\n\n"
    return (
        f"`{study.command}`\n\n{trial if study.quick else ''}"
        f"Large network: {'-'.join(map(str, settings.hidden))} units. Split (where there is none), folds, start "
        f"weights and order of the rows change with the seed, 1 to {len(study.seeds)}. Threshold and weight decay "
        "are chosen by cross-validation inside the training part: the threshold of the smallest network that "
        f"scores at most {number(settings.tolerance)} below the best; the best-scoring threshold disregards "
        "sizes. Test rows only score. Means with 95 % intervals (Student's) over the seeds; seeds of one data set "
        "share its rows, so that the intervals speak of these data only.\n\n"
        "The paper's formula of variability, its thresholds and its tables are not known to us: what is tested "
        "here are its three claims."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    parser.add_argument(
        "--budget",
        type=int,
        default=60,
        help="evaluations of the evolutionary search; 0 leaves it out (default: 60)",
    )


if __name__ == "__main__":
    quick = {"seeds": 2, "budget": 20}
    data_help = (
        "sets bundled with scikit-learn, or .npz files of features (default: breast_cancer, wine, digits, "
        "diabetes, linnerud; with --quick wine and diabetes)"
    )
    sys.exit(run_study("feedforward_construction", __doc__, carry_out, 10, quick, add_options, (), data_help))
