"""Other searches, and guided without one of its parts, against guided: hypervolumes, tests, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.comparison import MethodResult, score
from moevoprune.fronts.front import Front
from moevoprune.fronts.statistics import holm, interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.pooling import PooledTest, pooled_test
from moevoprune.studies.saying import LEVEL, p_cell

__all__ = [
    "GUIDED",
    "HOW_COMPARED",
    "MEAN",
    "PREFIX",
    "Scores",
    "Tests",
    "claims",
    "differences_table",
    "differences_to_guided",
    "front_row",
    "means_table",
    "scores_of",
]

GUIDED = "guided"
# of the searches that are guided without a part
PREFIX = "without-"
MEAN = "mean over the data sets"

# a measure by its name, search and data set, one value per seed
Scores = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
# search, measure and data set (or MEAN): the test, with its corrected p-value
Tests = Mapping[tuple[str, str, str], tuple[PooledTest, float | None]]

# measured on this part, with the active bits on this scale
_MEASURES = {
    "validation": ("validation", "test_hypervolume"),
    "validation, log": ("validation", "test_hypervolume_log"),
    "test": ("test", "test_hypervolume"),
    "test, log": ("test", "test_hypervolume_log"),
}
HOW_COMPARED = (
    "Hypervolume: of (error, share of active bits) up to (1, 1), on the validation values by which the search "
    "went, and on the test rows with the members' heads retrained on all training rows; log has the bits on a "
    "log scale, log(active) / log(bits). Means with 95 % intervals over the seeds. All seeds of a data set "
    "share one test split: intervals and tests are about other seeds, not about other data.\n\n"
    "The rule: a search differs from guided where a two-sided t-test of the paired differences has p < .05, "
    "corrected by Holm's method over the searches and both scales; on single data sets, over these and the "
    "data sets. In the mean over the data sets each has a spread of its own (Welch). Test rows decide; what "
    "shows on validation rows alone is said to."
)


def front_row(run: SweepRun, front: Front) -> dict[str, Any]:
    """Sum a run up in a row: what it was, its hypervolumes, and its best member by validation.

    Parameters
    ----------
    run
        Its variant is the search.
    front
        What it found.

    Raises
    ------
    InputError
        The front has no members, or accuracy is not among its objectives.
    """
    best = front.best("accuracy")
    return {
        "data": run.name,
        "search": run.variant,
        "seed": run.seed,
        "evaluations": int(front.history["evaluations"][-1]),
        "members": len(front),
        **{_column(name): value for name, value in _hypervolumes(front).items()},
        "best_active_share": float(front.active[best] / front.n_bits),
        "best_test_accuracy": float(front.test[best]),
    }


def _column(measure: str) -> str:
    return f"hypervolume_{measure.replace(', ', '_')}"


def _hypervolumes(front: Front) -> dict[str, float]:
    """Of (error, share of active bits) up to (1, 1), of the front's members on both parts."""
    accuracies = {"validation": front.column("accuracy"), "test": front.test}
    # the comparison's score is of whatever stands as the test
    scores = {
        part: score(MethodResult("", "", 0, front.n_bits, front.active, values, values, 0, 0.0))
        for part, values in accuracies.items()
    }
    return {name: float(scores[part][column]) for name, (part, column) in _MEASURES.items()}


def scores_of(rows: Iterable[Mapping[str, Any]]) -> Scores:
    """Sort the hypervolumes of :func:`front_row`, whose seeds come in the same order for all searches."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in _MEASURES}
    for row in rows:
        for name, scores in found.items():
            scores.setdefault(row["search"], {}).setdefault(row["data"], []).append(row[_column(name)])
    return found


def means_table(scores: Scores, data: str) -> str:
    """Markdown: every search on a data set, means over the seeds with intervals."""
    table = [["search", *scores]]
    for search in scores["test"]:
        table.append([search, *(interval(of[search][data]).text() for of in scores.values())])
    return "\n".join(markdown_table(table))


def differences_to_guided(scores: Scores, groups: Mapping[str, Sequence[str]]) -> Tests:
    """Test every search less guided, in the mean over each group of data sets.

    Corrected by Holm's method over the searches, scales and groups, for validation and test rows apart.

    Parameters
    ----------
    scores
        Of all searches, guided among them.
    groups
        Names of data sets, by what the group is called.

    Raises
    ------
    InputError
        A search has other seeds than guided, or a group is empty.
    """
    tests: dict[tuple[str, str, str], tuple[PooledTest, float | None]] = {}
    for part in dict.fromkeys(part for part, _ in _MEASURES.values()):
        raw = {
            (search, name, group): pooled_test(
                [np.subtract(of[data], scores[name][GUIDED][data]) for data in members]
            )
            for group, members in groups.items()
            for name in scores
            if _MEASURES[name][0] == part
            for search, of in scores[name].items()
            if search != GUIDED
        }
        adjusted = holm([test.p_value for test in raw.values()])
        tests |= dict(zip(raw, zip(raw.values(), adjusted, strict=True), strict=True))
    return tests


def differences_table(tests: Tests, group: str) -> str:
    """Markdown: every search less guided in a group of data sets, with corrected p-values."""
    table = [["less guided", *(cell for name in _MEASURES for cell in (name, "p, Holm"))]]
    for search in _searches(tests):
        cells = [tests[search, name, group] for name in _MEASURES]
        table.append([search, *(t for test, p in cells for t in (test.difference.text(sign=True), p_cell(p)))])
    return "\n".join(markdown_table(table))


def claims(tests: Tests) -> str:
    """Markdown: which parts buy something, and how each search stands, by the rule of :data:`HOW_COMPARED`."""
    verdicts = {search: _verdict(tests, search) for search in _searches(tests)}
    parts = {search.removeprefix(PREFIX): v for search, v in verdicts.items() if search.startswith(PREFIX)}
    groups: dict[str, Callable[[str], bool]] = {
        "buy something on test rows": lambda v: v.startswith("guided is better ("),
        "buy something on validation rows alone, which may be fitted folds": lambda v: "better on validation" in v,
        "cost something, or help here and cost there": lambda v: "worse" in v.split(" (")[0],
        "buy nothing that these runs show": lambda v: v == "no difference shown",
    }
    lines = [
        f"- Parts that {what}: {', '.join(part for part, v in parts.items() if holds(v)) or 'none'}."
        for what, holds in groups.items()
    ]
    table = [["", "by the rule above"], *([search, text] for search, text in verdicts.items())]
    return "\n".join([*lines, "", *markdown_table(table)])


def _searches(tests: Tests) -> list[str]:
    return list(dict.fromkeys(search for search, _, _ in tests))


def _verdict(tests: Tests, search: str) -> str:
    """What is significant of a search against guided."""
    found = {
        (name, group): test.difference.mean < 0
        for (other, name, group), (test, p) in tests.items()
        if other == search and p is not None and p < LEVEL
    }
    on_test = {key: ahead for key, ahead in found.items() if _MEASURES[key[0]][0] == "test"}
    if not found:
        return "no difference shown"
    where = "; ".join(f"{name}: {group}" for name, group in on_test or found)
    signs = set((on_test or found).values())
    word = "better and worse" if len(signs) > 1 else "better" if signs == {True} else "worse"
    return f"guided is {word}{'' if on_test else ' on validation rows alone'} ({where})"
