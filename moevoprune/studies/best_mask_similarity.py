"""Is the best mask's head like the unpruned one? CKA between heads of a search, held against published levels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from moevoprune.cli.building import alone, build_problem
from moevoprune.cli.sweeping import SweepRun
from moevoprune.errors import InputError
from moevoprune.fronts.front import Bits
from moevoprune.fronts.run_folder import JOURNAL
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.heads.head import TrainedHead
from moevoprune.search.journal import EvaluationJournal
from moevoprune.studies.mean_tests import MeanTest, Row, by_data, mean_tests, per_seed
from moevoprune.studies.saying import number, verdict_counted
from moevoprune.studies.similarity import compare_heads

__all__ = ["COMPARISONS", "MEASURES", "PUBLISHED", "best_mask_similarity", "similarity_sections"]

# two heads, and what the comparison is called
COMPARISONS = {
    "best, nearest evaluated": "best and nearest evaluated",
    "best, dense": "best and unpruned",
    "best, random": "best and random of its size",
    "best, best restarted": "best and itself restarted",
    "best, dense restarted": "best and unpruned restarted",
    "dense, dense restarted": "unpruned and itself restarted",
}
# range of EvoPruneDeepTL's CKA of weights
PUBLISHED = {"best, nearest evaluated": (0.92, 0.99), "best, dense": (0.18, 0.38)}
MEASURES = {"linear": "test rows, linear", "rbf": "test rows, RBF", "weights": "weights, RBF"}

# added to the seed of the run
_OTHER_START = 1000
_MOST_NEAREST = 3
_ABOUT = """## A. Is the best mask's head like the unpruned one?

Best is the mask with the highest validation accuracy that the search evaluated, of equals the smaller one;
nearest the evaluated mask at the smallest Hamming distance from it. All heads are trained on the whole training
part. *Test rows*: debiased CKA between the heads' hidden representations of the same test rows; *weights*:
biased CKA with an RBF kernel between the first layers' weights, which is what EvoPruneDeepTL reports (kernel
width .8 median distances, ours). All heads have the same start weights, but for those *restarted* from another
seed, which show what two heads of one mask differ by. Means over seeds with 95 % intervals; *± over rows*: half
the 95 % interval of a grouped jackknife over the test rows, of the linear CKA, the mean over seeds. Published
(other backbone and search; fitness was test accuracy): weights .92 to .99 on most sets with the nearest
evaluated mask, .18 to .38 with the unpruned net. A published level holds where our mean lies in that range; an
order, where the difference is above 0 (paired t-test, p at most .05 after Holm's correction over the data sets,
marked by a star)."""


def best_mask_similarity(run: SweepRun) -> list[dict[str, Any]]:
    """Compare the head of a search's best mask with others, on the test rows and by their weights.

    The heads are those of :data:`COMPARISONS`; of nearest masks that are equally far the first three are compared.
    EvoPruneDeepTL (arXiv 2202.03844) has the nearest evaluated and the unpruned one; the controls are ours.

    Parameters
    ----------
    run
        A finished one, with validation accuracy as the first objective.

    Returns
    -------
    list of dict
        A row for every pair of heads: the ``comparison``, ``active`` bits of the best mask, its ``hamming``
        distance to the nearest one, and the CKA by :data:`MEASURES`, those on rows with limits over the rows.

    Raises
    ------
    InputError
        Only one mask was evaluated, or there are too few test rows.
    """
    generator = np.random.default_rng([run.seed, 0xC4A])
    masks, hamming = _masks_to_compare(run, generator)
    heads = _train(run, masks)
    test_rows = run.features().X_test
    active = int(masks["best"].sum())
    rows = []
    for comparison in COMPARISONS:
        one, other = comparison.split(", ")
        for head in heads[other]:
            found = compare_heads(heads[one][0], head, test_rows, generator)
            row: dict[str, Any] = {
                "comparison": comparison,
                "active": active,
                "hamming": hamming,
            }
            for name, cka in (("linear", found.linear), ("rbf", found.rbf)):
                row |= {name: cka.mean, f"{name} low": cka.low, f"{name} high": cka.high}
            rows.append({**row, "weights": found.weights})
    return rows


def _masks_to_compare(run: SweepRun, generator: np.random.Generator) -> tuple[dict[str, Bits], int]:
    """Masks by what they are, shape (masks, n_bits) each, and the distance of the nearest from the best."""
    _, masks, values = EvaluationJournal.read(run.out / JOURNAL)
    best = masks[np.lexsort((masks.sum(axis=1), -values[:, 0]))[0]]
    distance = (masks != best).sum(axis=1)
    if not distance.any():
        raise InputError(f"{run.out}: only one mask was evaluated, none is near it; use a larger budget")
    closest = int(distance[distance > 0].min())
    return {
        "best": best[None],
        "nearest evaluated": masks[distance == closest][:_MOST_NEAREST],
        "random": generator.permutation(best)[None],
        "dense": np.ones_like(best)[None],
    }, closest


def _train(run: SweepRun, masks: Mapping[str, Bits]) -> dict[str, list[TrainedHead]]:
    """Heads on the whole training part; those of the best and the dense mask also from another start."""
    features, config = run.features(), alone(run.config)
    other_start = config.model_copy(update={"seed": run.seed + _OTHER_START})
    with build_problem(config, features)[1] as problem:
        heads = {name: list(problem.fitness.train_final(of)) for name, of in masks.items()}
    with build_problem(other_start, features)[1] as problem:
        for name in ("best", "dense"):
            heads[f"{name} restarted"] = list(problem.fitness.train_final(masks[name]))
    return heads


def similarity_sections(rows: Sequence[Row]) -> list[str]:
    """Markdown: how alike the heads are, and what that says of the published levels and orders.

    Parameters
    ----------
    rows
        Those of :func:`best_mask_similarity`, with ``data``, ``seed`` and ``encoding``: all comparisons of every
        data set, seed and encoding.
    """
    sections = [_ABOUT]
    for encoding in dict.fromkeys(row["encoding"] for row in rows):
        of = {comparison: by_data(rows, encoding=encoding, comparison=comparison) for comparison in COMPARISONS}
        sections += [f"### Masks of {encoding}", _table(of), _sizes(of["best, dense"]), "\n".join(_claims(of))]
    return sections


# comparison and data set
_Compared = Mapping[str, Mapping[str, Sequence[Row]]]


def _table(of: _Compared) -> str:
    table = [["", *MEASURES.values(), "± over rows"]]
    for name, (comparison, text) in itertools.product(of["best, dense"], COMPARISONS.items()):
        found = of[comparison][name]
        means = [interval(per_seed(found, key)).text() for key in MEASURES]
        spread = np.mean([row["linear high"] - row["linear low"] for row in found]) / 2
        table.append([f"{name}: {text}", *means, number(float(spread))])
    return "\n".join(markdown_table(table))


def _sizes(best: Mapping[str, Sequence[Row]]) -> str:
    texts = (
        f"{name} {np.mean(per_seed(found, 'active')):.0f} bits, "
        f"{np.mean(per_seed(found, 'hamming')):.0f} from the nearest"
        for name, found in best.items()
    )
    return f"Best masks, means over seeds: {'; '.join(texts)}."


def _claims(of: _Compared) -> Iterator[str]:
    """One line per claim, by the rules that the text states."""
    for comparison, (low, high) in PUBLISHED.items():
        means = [interval(per_seed(found, "weights")).mean for found in of[comparison].values()]
        held = verdict_counted([low <= mean <= high for mean in means])
        level = f"{number(low, 2)} to {number(high, 2)}"
        yield f"- Published level of weight CKA, {COMPARISONS[comparison]}, {level}: {held}."
    for key, label in MEASURES.items():
        nearer = _differences(of, key, "best, nearest evaluated", "best, dense")
        yield (
            f"- Published order ({label}), the nearest evaluated mask is more like the best one than the unpruned "
            f"head is: {verdict_counted([test.above_zero for test in nearer.values()])}; difference "
            f"{_listed(nearer)}."
        )
    for key in ("linear", "weights"):
        unlike = _differences(of, key, "best, dense", "dense, dense restarted")
        yield f"- {MEASURES[key]}: best and unpruned less unpruned and itself restarted: {_listed(unlike)}."


def _differences(of: _Compared, key: str, first: str, second: str) -> dict[str, MeanTest]:
    """One comparison's CKA less that of another, paired by seed."""
    return mean_tests(
        {
            name: np.subtract(per_seed(found, key), per_seed(of[second][name], key)).tolist()
            for name, found in of[first].items()
        }
    )


def _listed(tests: Mapping[str, MeanTest]) -> str:
    return ", ".join(f"{name} {test.text(3)}" for name, test in tests.items())
