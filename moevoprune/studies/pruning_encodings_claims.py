"""What evolved heads are tested for in several encodings, and which of the published claims hold, by what rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moevoprune.fronts.statistics import PairedTest, holm, paired_test
from moevoprune.studies.pruning_encodings import BASELINES, Cell, Cells, Values
from moevoprune.studies.readings import PruningVerdict, judge_pruning
from moevoprune.studies.saying import LEVEL, number, p_cell

__all__ = [
    "HOW_JUDGED",
    "LARGEST_SHARE",
    "MARGIN",
    "READINGS",
    "Comparisons",
    "Tested",
    "Tests",
    "claims",
    "compare_cells",
]

READINGS = {
    "evolved": "the GA's winner",
    "best": "the front's best head on validation rows",
    "as dense": "the front's smallest head that is no worse than the dense one on validation rows",
}
"""Heads that are set beside the dense one: what they are."""

# the rule for them, ours: fixed before there were results
MARGIN, LARGEST_SHARE = 0.01, 0.6

_AT_MOST = f"p at most {number(LEVEL, 2)} after Holm"
HOW_JUDGED = (
    "**The published pattern**: a head no less accurate than the dense one, with under "
    f"{100 * LARGEST_SHARE:.0f} % of the bits. The rule, fixed beforehand: an encoding reaches it on a data set "
    "if a one-sided paired t-test over the seeds shows its test accuracy to be less than "
    f"{number(MARGIN, 2)} below the dense head's ({_AT_MOST}), and the mean share of active bits is below "
    f"{100 * LARGEST_SHARE:.0f} %. It is less accurate if the two-sided interval over the seeds lies below 0. The "
    "claim holds on a data set if all encodings of neurons and features reach it, and in part if some do; it is "
    "not shown if none does and some could, and does not hold if all are less accurate or too large. Seeds share "
    "their test rows: the interval over test rows (bootstrap of the seeds' mean) is what other test rows could "
    "give.\n\n"
    f"**Of the other claims**, one holds if the difference is significant ({_AT_MOST}) in more than half of all "
    "pairs of encoding and data set, and the reverse in none; in part if it is in some; it does not hold if only "
    "the reverse is, and is not shown if neither is. Over both layers, the magnitude baselines rank the units of "
    "two layers by one scale and may empty a layer; the claims about them leave this encoding out."
)

_OF_CONNECTIONS, _OF_BOTH_LAYERS = "connections", "both layers"


@dataclass(frozen=True)
class Tested:
    """A paired test on one data set, and its p-value corrected over the data sets."""

    test: PairedTest
    p_value: float | None

    @property
    def sign(self) -> int:
        """Sign of a significant difference, otherwise 0."""
        return 0 if self.p_value is None or self.p_value > LEVEL else int(np.sign(self.test.difference.mean))

    def __str__(self) -> str:
        p_value = f", p {p_cell(self.p_value)}" if self.p_value is not None else ""
        return f"{self.test.difference.text(sign=True)}{p_value}"


Tests = Mapping[str, Mapping[str, Tested]]
"""By encoding and data set."""


@dataclass(frozen=True)
class Comparisons:
    """Paired tests and verdicts on all encodings and data sets.

    Attributes
    ----------
    shares, accuracies
        The front's head of the same validation accuracy less the GA's winner: active bits, and test accuracy.
    baselines
        Test accuracy of the GA's winner less a baseline's, by the baseline's title.
    verdicts
        Each of :data:`READINGS` beside the dense head, by encoding and data set.
    """

    shares: Tests
    accuracies: Tests
    baselines: Mapping[str, Tests]
    verdicts: Mapping[str, Mapping[str, Mapping[str, PruningVerdict]]]


def compare_cells(cells: Cells) -> Comparisons:
    """Test fronts, the GA's winners, baselines and dense heads against one another; see :class:`Comparisons`.

    p-values are corrected by Holm's method over the data sets.

    Parameters
    ----------
    cells
        Of :func:`moevoprune.studies.pruning_encodings.read_cells`, at least one data set.
    """
    return Comparisons(
        _paired(cells, lambda cell: (cell.heads["same"].share, cell.heads["evolved"].share)),
        _paired(cells, lambda cell: (cell.heads["same"].accuracy, cell.heads["evolved"].accuracy)),
        {title: _winner_and_baseline(cells, title) for title in BASELINES.values()},
        {what: _judged(cells, what) for what in READINGS},
    )


def _winner_and_baseline(cells: Cells, title: str) -> Tests:
    return _paired(cells, lambda cell: (cell.heads["evolved"].accuracy, cell.baselines[title][2]))


def _paired(cells: Cells, both: Callable[[Cell], tuple[Values, Values]]) -> Tests:
    """Test two values per seed against each other, for every encoding over the data sets."""
    found = {}
    for encoding, of in _by_encoding(cells).items():
        tests = [paired_test(*both(cell)) for cell in of.values()]
        corrected = holm([test.p_value for test in tests])
        found[encoding] = dict(zip(of, map(Tested, tests, corrected), strict=True))
    return found


def _judged(cells: Cells, what: str) -> dict[str, dict[str, PruningVerdict]]:
    """Set a reading beside the dense head, for every encoding over the data sets."""
    found = {}
    for encoding, of in _by_encoding(cells).items():
        pairs = {name: (cell.heads[what], cell.heads["dense"]) for name, cell in of.items()}
        found[encoding] = judge_pruning(pairs, MARGIN, LARGEST_SHARE, LEVEL)
    return found


def _by_encoding(cells: Cells) -> dict[str, dict[str, Cell]]:
    found: dict[str, dict[str, Cell]] = {}
    for name, of in cells.items():
        for encoding, cell in of.items():
            found.setdefault(encoding, {})[name] = cell
    return found


def claims(compared: Comparisons) -> str:
    """Markdown: a line for each claim, whether it holds by the rule of :data:`HOW_JUDGED`.

    Parameters
    ----------
    compared
        In the encodings of :data:`moevoprune.studies.published_leaves.PUBLISHED`, or some of them.
    """
    names = next(iter(compared.shares.values()))
    lines = [_pattern_claim(name, what, compared) for name in names for what in READINGS]
    for title, tests in compared.baselines.items():
        # see HOW_JUDGED
        fair = {one: of for one, of in tests.items() if one != _OF_BOTH_LAYERS or title == BASELINES["best_fixed"]}
        lines.append(_counted_claim(f"the GA's winner is more accurate than {title}", fair))
    same = "the front's head of the same validation accuracy is"
    lines.append(_counted_claim(f"{same} smaller", compared.shares, wanted=-1))
    lines.append(_counted_claim(f"{same} more accurate on the test rows", compared.accuracies))
    return "\n".join(lines)


def _pattern_claim(name: str, what: str, compared: Comparisons) -> str:
    """Say whether the published pattern holds on a data set."""
    by_word: dict[str, list[str]] = {}
    for encoding, verdicts in compared.verdicts[what].items():
        if encoding != _OF_CONNECTIONS:
            by_word.setdefault(verdicts[name].word, []).append(encoding)
    if "reached" in by_word:
        says = "holds" if len(by_word) == 1 else "holds in part"
    else:
        says = "is not shown" if "not shown" in by_word else "does not hold"
    listed = "; ".join(f"{word}: {', '.join(encodings)}" for word, encodings in by_word.items())
    return f"* {name}, {READINGS[what]}: the published pattern **{says}** ({listed})."


def _counted_claim(claim: str, tests: Tests, wanted: int = 1) -> str:
    """Say whether a difference has the claimed sign in most pairs of encoding and data set."""
    signs = [tested.sign * wanted for of in tests.values() for tested in of.values()]
    for_it, against = signs.count(1), signs.count(-1)
    if for_it:
        says = "holds" if 2 * for_it > len(signs) and not against else "holds in part"
    else:
        says = "does not hold" if against else "is not shown"
    return f"* {claim}: **{says}** (significant in {for_it} of {len(signs)} pairs, the reverse in {against})."
