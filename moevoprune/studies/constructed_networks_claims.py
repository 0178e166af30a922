"""Which of ODF2NNA's claims (arXiv 2312.10560) hold, by what rule."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moevoprune.construction.records import BEST_SCORING
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.constructed_networks import UNITS, score_pairs
from moevoprune.studies.constructed_networks_runs import Records
from moevoprune.studies.no_loss import loss_tests
from moevoprune.studies.saying import LEVEL, number, paired_table, shown_higher, shown_lower, verdict

__all__ = ["MARGINS", "beats_original", "beats_scratch", "no_loss"]

# fixed before any result was seen
MARGINS = {"accuracy": 0.01, "r2": 0.02}
"""By metric: the loss that would matter, ours."""

_GONE = 0.7

Pairs = Mapping[str, tuple[list[float], list[float]]]


def no_loss(records: Records) -> str:
    """Markdown: are more than 70 % of the parameters gone with no loss, as published?"""
    pairs = _titled_pairs(records, "refined", "large")
    titled = dict(zip(pairs, records.values(), strict=True))
    tests = loss_tests(pairs, {name: MARGINS[seeds[0].metric] for name, seeds in titled.items()})
    table = [["", "parameters gone, %", "refined less large", "at least", "margin", "p", "p, Holm", "holds"]]
    held = []
    for name, test in tests.items():
        gone = interval([100 * record.gone("refined") for record in titled[name]])
        held.append(gone.low > 100 * _GONE and test.shown)
        cells = [*test.difference_cells(4), number(test.test.margin, 2), *test.p_cells()]
        table.append([name, gone.text(1), *cells, "yes" if held[-1] else "no"])
    return "\n\n".join(
        [
            "## More than 70 % of the parameters gone with no loss?",
            f"Rule, per data set: the lower limit of the share gone is above {100 * _GONE:.0f} %, and a paired "
            f"one-sided test shows that the refined network is less than {number(MARGINS['accuracy'], 2)} of "
            f"accuracy or {number(MARGINS['r2'], 2)} of R² worse than the large one (p after Holm's correction "
            f"over the data sets at most {number(LEVEL, 2)}). The margins were fixed beforehand.",
            "\n".join(markdown_table(table)),
            f"**The claim {verdict(held)}** ({sum(held)} of {len(held)} data sets).",
        ]
    )


def beats_original(records: Records) -> str:
    """Markdown: do most refined networks beat the original, if the threshold is chosen carefully, as published?"""
    best_scoring = _titled_pairs(records, BEST_SCORING, "large")
    smallest = _titled_pairs(records, "refined", "large")
    return "\n\n".join(
        [
            "## With the threshold chosen carefully, do most refined networks beat the original?",
            "Rule: the claim holds where more than half of all networks (data sets × seeds) score higher on the "
            "test rows than the large network of the same seed, and the paired test, p after Holm's correction "
            f"over the data sets at most {number(LEVEL, 2)}, shows a gain on one data set at least and a loss on "
            "none; in part where more than half score at least as high, and a gain is shown on one data set at "
            "least; otherwise it does not hold. Chosen carefully is read as: the threshold that scores best in "
            "cross-validation. The smallest network within the tolerance is shown beside it.",
            paired_table(best_scoring, "best-scoring threshold", "large", 4),
            f"Best-scoring threshold: {_beaten(best_scoring, 'the claim')}",
            paired_table(smallest, "smallest within the tolerance", "large", 4),
            f"Smallest within the tolerance: {_beaten(smallest, 'read so, the claim')}",
        ]
    )


def beats_scratch(records: Records) -> str:
    """Markdown: does the refined network beat one of its shape that is trained from scratch, as published?"""
    pairs = _titled_pairs(records, "refined", "scratch")
    held = list(shown_higher(pairs).values())
    return "\n\n".join(
        [
            "## Does it beat the same shape trained from scratch?",
            "The network from scratch is trained as long as the large network's training and the retraining "
            "together. Rule, per data set: the paired test shows a higher score, p after Holm's correction at "
            f"most {number(LEVEL, 2)}.",
            paired_table(pairs, "refined", "from scratch", 4),
            f"**The claim {verdict(held)}** ({sum(held)} of {len(held)} data sets).",
        ]
    )


def _beaten(pairs: Pairs, claim: str) -> str:
    """How many of the first column's networks beat the second's, and what comes of it."""
    differences = np.concatenate([np.subtract(*pair) for pair in pairs.values()])
    total, higher, same = len(differences), int((differences > 0).sum()), int((differences == 0).sum())
    gains, losses = (sum(shown(pairs).values()) for shown in (shown_higher, shown_lower))
    if gains and not losses and higher > total / 2:
        answer = "holds"
    elif gains and higher + same > total / 2:
        answer = "holds in part"
    else:
        answer = "does not hold"
    return (
        f"of {total} networks, score higher than the large one: {higher}, the same: {same}, lower: "
        f"{total - higher - same}; of {len(pairs)} data sets, gain shown: {gains}, loss shown: {losses}. "
        f"**{claim[0].upper()}{claim[1:]} {answer}.**"
    )


def _titled_pairs(records: Records, first: str, second: str) -> Pairs:
    """Test scores of two methods, by the data set with its metric."""
    pairs = score_pairs(records, first, second)
    return {f"{name} ({UNITS[seeds[0].metric]})": pairs[name] for name, seeds in records.items()}
