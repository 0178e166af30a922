"""Heads that read ten neurons alone: do those that are active most often make better ones than others do?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from moevoprune.baselines import make_baseline
from moevoprune.cli.building import alone, build_problem
from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.evolve import score_on_test
from moevoprune.fronts.explanation import explain_front
from moevoprune.fronts.front import Values
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.frequent_neurons import TOP, Key, Neurons
from moevoprune.studies.saying import number, paired_table, shown_higher, verdict_where
from moevoprune.studies.two_searches import OURS, PUBLISHED

__all__ = ["Heads", "rival_claims", "rival_tables", "small_heads", "small_heads_table"]

_RIVALS = {"random": "at random", "ANOVA": "by ANOVA's F"}

# by data set, then by choice of ten neurons: validation and test accuracy, shape (runs, 2)
Heads = Mapping[str, Mapping[str, Values]]


def small_heads(swept: Sequence[SweepRun], found: Mapping[Key, Neurons]) -> Heads:
    """Train heads of ten neurons alone, seed by seed.

    The ten are those most often active in each search's front of the seed, those of its merged front, the ten best
    by ANOVA's F on the training rows, and ten at random.

    Parameters
    ----------
    swept
        Runs of both searches, with the same seeds.
    found
        Their merged fronts' neurons, by data set and search.

    Returns
    -------
    mapping of mapping of ndarray, shape (runs, 2)
        By data set and choice, accuracy on validation rows and on test rows, in [0, 1].
    """
    collected: dict[str, dict[str, list[tuple[float, float]]]] = {}
    fronts = {(run.name, run.variant, run.seed): run.front() for run in swept}
    for run in swept:
        if run.variant != OURS:
            continue
        wanted = {}
        for variant in (PUBLISHED, OURS):
            wanted[_of_run(variant)] = explain_front(fronts[run.name, variant, run.seed]).top(TOP)
            wanted[f"{variant}, merged"] = found[run.name, variant].explanation.top(TOP)
        for choice, scores in _heads_of_ten(run, wanted).items():
            collected.setdefault(run.name, {}).setdefault(choice, []).append(scores)
    return {name: {choice: np.array(scores) for choice, scores in of.items()} for name, of in collected.items()}


def small_heads_table(heads: Heads) -> str:
    """Markdown: accuracy of heads of ten neurons, validation / test, means over the seeds.

    Parameters
    ----------
    heads
        Of at least one data set, see :func:`small_heads`.
    """
    choices = list(next(iter(heads.values())))
    table = [["", *choices]]
    for data, of in heads.items():
        table.append(
            [data, *(" / ".join(number(value) for value in of[choice].mean(axis=0)) for choice in choices)]
        )
    return "\n".join(markdown_table(table))


def rival_tables(heads: Heads) -> str:
    """Markdown: test accuracy with the ten neurons of each run, against other tens, paired by seed.

    Parameters
    ----------
    heads
        See :func:`small_heads`.
    """
    return "\n\n".join(
        f"{variant}, against {rival}:\n\n{paired_table(_against(heads, variant, rival), variant, rival)}"
        for variant in (PUBLISHED, OURS)
        for rival in _RIVALS
    )


def rival_claims(heads: Heads, variant: str) -> list[str]:
    """Markdown: whether the ten most frequent neurons of a run make a more accurate head than other tens.

    Parameters
    ----------
    heads
        See :func:`small_heads`.
    variant
        The search that the sentences are about.
    """
    return [
        f"* The ten most frequent neurons of a run make a more accurate head than ten {words} (test rows, p < .05 "
        f"after Holm's correction); search: {variant}. "
        f"**{verdict_where(shown_higher(_against(heads, variant, rival)))}**"
        for rival, words in _RIVALS.items()
    ]


def _against(heads: Heads, variant: str, rival: str) -> dict[str, tuple[list[float], list[float]]]:
    """Test accuracies of a search's tens and of another choice, by data set and in the order of the seeds."""
    return {data: (of[_of_run(variant)][:, 1].tolist(), of[rival][:, 1].tolist()) for data, of in heads.items()}


def _of_run(variant: str) -> str:
    """What the ten of a seed's own run are called."""
    return f"{variant}, run"


def _heads_of_ten(run: SweepRun, wanted: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, tuple[float, float]]:
    """Validation and test accuracy of heads of ten neurons alone: those wanted, ten by ANOVA, ten at random."""
    _, problem = build_problem(alone(run.config), run.features())
    with problem:
        sets = {
            **wanted,
            "ANOVA": np.flatnonzero(make_baseline("anova").masks(problem.ranking_data(), [TOP])[0]),
            "random": np.random.default_rng([run.seed, TOP]).choice(problem.n_var, TOP, replace=False),
        }
        masks = np.zeros((len(sets), problem.n_var), dtype=np.bool_)
        for mask, neurons in zip(masks, sets.values(), strict=True):
            mask[neurons] = True
        accuracy = [objective.name for objective in problem.objectives].index("accuracy")
        validation = [float(values[accuracy]) for values, _ in problem.fitness.evaluate(masks)]
        test = score_on_test(problem, masks).tolist()
    return dict(zip(sets, zip(validation, test, strict=True), strict=True))
