"""Does CKA between clean and noisy rows predict robustness? Rank correlations over all masks of searches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from moevoprune.cli.building import alone, build_problem
from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.robustness import feature_dropout, feature_noise
from moevoprune.fronts.run_folder import JOURNAL
from moevoprune.fronts.statistics import p_text
from moevoprune.fronts.tables import markdown_table
from moevoprune.search.journal import EvaluationJournal
from moevoprune.studies.matched_pairs import equal_pairs, gain_of_picking
from moevoprune.studies.mean_tests import Row, by_data, column_tests, mean_tests, per_seed
from moevoprune.studies.rank_correlation import rank_correlation
from moevoprune.studies.saying import verdict_counted

__all__ = ["OBJECTIVE", "OTHER_OBJECTIVE", "disturbed_accuracies", "prediction_sections", "relations"]

OBJECTIVE, OTHER_OBJECTIVE = "cka:noise", "cka:dense"

_NOISES, _SHARES, _DRAWS = (0.5, 1.0, 2.0), (0.25, 0.5, 0.75), 5
_DISTURBANCES = [
    "clean",
    *(f"noise {noise:g}" for noise in _NOISES),
    *(f"dropout {share:g}" for share in _SHARES),
]
# what verdicts are about: the middle strength of the objective's own disturbance, and of another one
_MAIN = {"noise 1": "noise of 1 standard deviation", "dropout 0.5": "loss of half of the features"}
# added to the seed of the run, from which the objective's own noise comes
_OTHER_NOISE = 1000
_ABOUT = f"""## B. Does {OBJECTIVE} predict robustness?

Every mask that a random and a guided search evaluated is retrained and scored on disturbed test rows, {_DRAWS}
draws each: with Gaussian noise of .5, 1 and 2 training standard deviations (the objective adds 1 to validation
rows), and with a quarter, a half and three quarters of the features lost, set to their training means, which it
has not seen. *Accuracy* is that on the disturbed rows; *fall* is that on clean test rows less it. Rank
correlations are Spearman's over the masks of a seed; *partial* ones given the number of active features and the
clean validation accuracy. Means over seeds with 95 % intervals; a star: differs from 0 (t-test, p at most .05
after Holm's correction over the data sets). By rule the objective *predicts* where the partial rank correlation
with accuracy is above 0 so tested, *predicts only through size and validation accuracy* where the plain one
alone is, and else *does not predict*. A partial rank correlation removes what goes linearly with the ranks;
masks of equal size, further below, need no such model. Above the figure's lower panels: the partial rank
correlation with the fall."""


def disturbed_accuracies(run: SweepRun) -> list[dict[str, Any]]:
    """Retrain every mask that a search evaluated, and score it on disturbed test rows.

    Parameters
    ----------
    run
        A finished one; its variant is the search.

    Returns
    -------
    list of dict
        A row per mask: the ``search``, ``active`` bits, the values of the objectives by their names, and test
        accuracy by disturbance: ``clean``, under Gaussian noise of so many training standard deviations
        (``noise 0.5``, ``noise 1``, ``noise 2``), and with a share of the features lost (``dropout 0.25``,
        ``dropout 0.5``, ``dropout 0.75``), each the mean of five draws.
    """
    header, masks, values = EvaluationJournal.read(run.out / JOURNAL)
    features = run.features()
    with build_problem(alone(run.config), features)[1] as problem:
        heads = {str(place): head for place, head in enumerate(problem.fitness.train_final(masks))}
    seed = run.seed + _OTHER_NOISE
    curves = [
        *feature_noise(heads, features, (0.0, *_NOISES), seed, _DRAWS),
        *feature_dropout(heads, features, _SHARES, seed, _DRAWS),
    ]
    rows: list[dict[str, Any]] = [
        {"search": run.variant, "active": int(mask.sum()), **dict(zip(header["objectives"], scores, strict=True))}
        for mask, scores in zip(masks, values.tolist(), strict=True)
    ]
    for curve in curves:
        kind = curve.kind.removeprefix("feature_")
        for strength, accuracy in zip(curve.severities, curve.accuracy, strict=True):
            rows[int(curve.name)][f"{kind} {strength:g}" if strength else "clean"] = accuracy
    return rows


def relations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Relate CKA to accuracy on disturbed rows, over the masks of each data set and seed.

    Parameters
    ----------
    rows
        Those of :func:`disturbed_accuracies` with ``data`` and ``seed``; :data:`OBJECTIVE` and
        :data:`OTHER_OBJECTIVE` are among the objectives.

    Returns
    -------
    list of dict
        A row for every ``data`` set, ``seed``, ``sample`` (all masks, or those of one search), ``objective`` and
        ``disturbance``: rank correlations of the objective with the ``size`` and with accuracy and its fall, these
        also given size and validation accuracy, in [-1, 1]; and how many ``pairs`` of masks of equal size there
        are, with the gain in accuracy, and in its fall, of picking one of them by the objective or by validation
        accuracy. NaN where there is none.
    """
    return [
        {"data": name, "seed": seed, **row}
        for name, of in by_data(rows).items()
        for seed in sorted({row["seed"] for row in of})
        for row in _relations_of_seed([row for row in of if row["seed"] == seed])
    ]


def _relations_of_seed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    searches = dict.fromkeys(row["search"] for row in rows)
    samples = {"all": rows, **{search: [row for row in rows if row["search"] == search] for search in searches}}
    for (sample, masks), objective, kind in itertools.product(
        samples.items(), (OBJECTIVE, OTHER_OBJECTIVE), _DISTURBANCES
    ):
        yield {"sample": sample, "objective": objective, "disturbance": kind, **_relation(masks, objective, kind)}


def _relation(masks: Sequence[Row], objective: str, kind: str) -> dict[str, Any]:
    cka, size, validation, clean, under = (
        np.array([row[key] for row in masks]) for key in (objective, "active", "accuracy", "clean", kind)
    )
    fall, known = clean - under, (size, validation)
    pairs = equal_pairs(size, kinds=[row["search"] for row in masks])
    return {
        "size": rank_correlation(cka, size),
        "accuracy": rank_correlation(cka, under),
        "accuracy, partial": rank_correlation(cka, under, known),
        "fall": rank_correlation(cka, fall),
        "fall, partial": rank_correlation(cka, fall, known),
        "pairs": len(pairs),
        "picked by CKA": gain_of_picking(cka, under, pairs),
        "fall, picked by CKA": gain_of_picking(cka, fall, pairs),
        "picked by accuracy": gain_of_picking(validation, under, pairs),
    }


def prediction_sections(rows: Sequence[Row]) -> list[str]:
    """Markdown: whether the objective predicts robustness, and the tables that this rests on.

    Parameters
    ----------
    rows
        See :func:`relations`.
    """
    return [_ABOUT, "\n".join(_claims(rows)), *_correlations(rows), *_picking(rows)]


def _correlations(rows: Sequence[Row]) -> Iterator[str]:
    for objective, kinds in ((OBJECTIVE, _DISTURBANCES), (OTHER_OBJECTIVE, list(_MAIN))):
        wanted = {"sample": "all", "objective": objective}
        keys = ("size", "accuracy", "accuracy, partial", "fall", "fall, partial")
        yield f"### Rank correlation with {objective}"
        yield _outcome_table(rows, kinds, {key: (wanted, key) for key in keys})
    yield "### Partial rank correlation with accuracy, by search"
    yield "That over all masks also holds what tells the masks of one search from those of the other."
    samples = {
        f"{sample} masks": {"sample": sample, "objective": OBJECTIVE}
        for sample in dict.fromkeys(row["sample"] for row in rows)
    }
    columns = {key: (wanted, "accuracy, partial") for key, wanted in samples.items()}
    yield _outcome_table(rows, list(_MAIN), columns)


def _picking(rows: Sequence[Row]) -> Iterator[str]:
    yield "### Picking one of two masks of equal size"
    n_pairs = np.mean([row["pairs"] for row in rows if row["sample"] == "all"])
    yield (
        f"Pairs of masks of one search, at most 5 % apart in size, {n_pairs:.0f} a seed: accuracy on disturbed "
        "test rows of the one with more CKA less that of the other; the same of its fall, below 0 where it loses "
        "less; and accuracy of the one with more validation accuracy less that of the other."
    )
    wanted = {"sample": "all", "objective": OBJECTIVE}
    columns = {
        f"accuracy, by {OBJECTIVE}": (wanted, "picked by CKA"),
        f"fall, by {OBJECTIVE}": (wanted, "fall, picked by CKA"),
        "accuracy, by validation accuracy": (wanted, "picked by accuracy"),
    }
    yield _outcome_table(rows, _DISTURBANCES, columns, digits=3)


def _outcome_table(
    rows: Sequence[Row], kinds: Sequence[str], columns: Mapping[str, tuple[dict[str, Any], str]], digits: int = 2
) -> str:
    """Markdown: a line for every disturbance and data set; columns say which rows, and what of them."""
    table = [["", *columns]]
    for kind in kinds:
        results = [
            column_tests(by_data(rows, disturbance=kind, **wanted), key) for wanted, key in columns.values()
        ]
        table += [[f"{name}, {kind}", *(tests[name].text(digits) for tests in results)] for name in results[0]]
    return "\n".join(markdown_table(table))


def _claims(rows: Sequence[Row]) -> Iterator[str]:
    """Whether the objective predicts robustness, by the rule that the text states."""
    for kind, words in _MAIN.items():
        of = by_data(rows, sample="all", objective=OBJECTIVE, disturbance=kind)
        plain, partial = column_tests(of, "accuracy"), column_tests(of, "accuracy, partial")
        for name in of:
            says = (
                "predicts"
                if partial[name].above_zero
                else "predicts only through size and validation accuracy"
                if plain[name].above_zero
                else "does not predict"
            )
            yield (
                f"- {name}: {OBJECTIVE} **{says}** accuracy under {words}: rank correlation {plain[name].text()}, "
                f"partial {partial[name].text()}, {p_text(partial[name].p_value)}."
            )
        picked = column_tests(of, "picked by CKA")
        spared = mean_tests(
            {name: [-fall for fall in per_seed(found, "fall, picked by CKA")] for name, found in of.items()}
        )
        yield (
            f"- Of two masks of equal size, the one with more {OBJECTIVE} is more accurate under {words}: "
            f"{verdict_counted([test.above_zero for test in picked.values()])}; it loses less accuracy than the "
            f"other: {verdict_counted([test.above_zero for test in spared.values()])}."
        )
        everywhere = verdict_counted([test.above_zero for test in partial.values()])
        yield f"- {OBJECTIVE} predicts beyond size and validation accuracy, under {words}: {everywhere}."
