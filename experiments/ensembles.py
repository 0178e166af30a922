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

from moevoprune import FeatureSet
from moevoprune.fronts.ensemble_study import study_ensembles
from moevoprune.fronts.ensemble_tables import EnsembleStudy
from moevoprune.studies.ensemble_gains import HOW_JUDGED, PUBLISHED_GAINS, claim_sections, largest_gains_table
from moevoprune.studies.ensemble_means import ACCURACY, AUROC, ensemble_rows, ways_table, windows_table
from moevoprune.studies.ensemble_windows_figure import plot_ensemble_windows
from moevoprune.studies.saying import describe
from moevoprune.studies.study import Study, run_study
from moevoprune.studies.two_searches import BUDGET, OURS, SEEDS, variants

DATA = "`moevoprune run`'s features .npz and problem .toml; each has the others as its OoD rows (default: digits)"
ABOUT = """`{command}`

Seeds 1 to {seeds}, {budget} evaluations of the guided search for accuracy, active neurons and OoD AUROC; tables
give means over the seeds, with 95 % intervals (Student) in brackets. Each data set has the others as
out-of-distribution (OoD) rows, balanced, one part for the search and another for the test; of a data set that
is alone the last class serves. Members are chosen by validation rows; test rows only score.{trial}

An ensemble's OoD score of a row is the mean of its members' scores (largest softmax probability at temperature
1000), however they vote: what the paper took for it is not known, so this is our choice. Against a member "best
on test" the paper compares; nobody could have picked it. The member that one would have picked is, of accuracy,
the best on validation rows; of AUROC, the best in the search, on other OoD rows."""


def carry_out(study: Study) -> None:
    """Run the searches, or take them up, and score the ensembles of what they found."""
    searches = {OURS: variants(study.arguments.budget)[OURS]}
    features: dict[str, FeatureSet] = {}
    studies: dict[str, list[EnsembleStudy]] = {}
    for run in study.sweep(searches, study.with_others_as_ood()):
        if run.name not in features:
            features[run.name] = run.features()
        epsilon = run.config.problem.odin_epsilon
        found = study_ensembles(run.front(), features[run.name], odin_epsilon=epsilon)
        studies.setdefault(run.name, []).append(found)
        study.rows += ensemble_rows(run.name, run.seed, found)
    for name, seeds in studies.items():
        study.sections += [
            f"## {describe(name, features[name])}",
            ways_table(seeds),
            "Windows, test accuracy:",
            windows_table(seeds, ACCURACY),
            "Windows, OoD AUROC on test rows:",
            windows_table(seeds, AUROC),
        ]
    study.sections += ["## Does the claim hold?", HOW_JUDGED, *claim_sections(studies, not study.quick)]
    study.sections += [PUBLISHED_GAINS, largest_gains_table(studies)]
    study.write("Ensembles of a front's members", about(study), plot_ensemble_windows(studies))


def about(study: Study) -> str:
    """What was run."""
    trial = " **Quick form: nothing can be concluded.**" if study.quick else ""
    seeds, budget = study.arguments.seeds, study.arguments.budget
    return ABOUT.format(command=study.command, seeds=seeds, budget=budget, trial=trial)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this experiment has to choose."""
    parser.add_argument(
        "--budget", type=int, default=BUDGET, help=f"evaluations of each search (default: {BUDGET})"
    )


if __name__ == "__main__":
    trial = {"seeds": 2, "budget": 60}
    sys.exit(run_study("ensembles", __doc__, carry_out, SEEDS, trial, add_options, data_help=DATA))
