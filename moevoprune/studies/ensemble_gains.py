"""What ensembles of a front gain over single heads: paired tests, whether the claims hold, and the largest gains.

The claim is MO-EvoPruneDeepTL's (arXiv 2302.10253): members in a window of validation accuracy are together better
than the best one of the window, chosen by the test rows. Nobody could have picked that one; the member that one
would have picked stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from moevoprune.fronts.ensemble_tables import BEST_MEMBER, DENSE, EnsembleStudy
from moevoprune.fronts.front import Values
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.ensemble_means import ACCURACY, AUROC
from moevoprune.studies.saying import number, paired_table, shown_higher, shown_lower, verdict

__all__ = ["HOW_JUDGED", "PUBLISHED_GAINS", "Studies", "claim_sections", "largest_gains_table"]

# by data set, in the order of the seeds
Studies = Mapping[str, Sequence[EnsembleStudy]]

HOW_JUDGED = """\
Rule: per seed, a difference is averaged over the eight windows. A claim holds on a data set where the
mean over the seeds is above 0 with p at most .05 in a paired t-test, corrected over the data sets (Holm), and
in part where that is so on some of them. Where it does not hold, "behind" says that the opposite is shown by
the same rule."""
PUBLISHED_GAINS = """\
The paper reports gains over the best member of a window of up to +.033 (CATARACT), +.051 (RPS)
and +.014 (PAINTING): other data sets and another backbone (ResNet-50), and a search whose fitness was test
accuracy. Here the largest gains, of the means over the seeds in the eight windows, are (the largest of eight
flatters, there as here):"""

# attributes of a window that are compared, and what that says
_WINDOW_CLAIMS = {
    ("hard", "best_by_validation"): "Accuracy: majority vote against the member one would have picked",
    ("soft", "best_by_validation"): "Accuracy: soft vote against the member one would have picked",
    ("ood_auroc", "ood_best_by_selection"): "AUROC: mean score against the member one would have picked",
    ("hard", "best_member"): "Accuracy: majority vote against the member best on test",
    ("soft", "best_member"): "Accuracy: soft vote against the member best on test",
    ("ood_auroc", "ood_best_member"): "AUROC: mean score against the member best on test",
}
# the same of ensembles and single heads
_WAY_CLAIMS = {
    ("default", DENSE): "The default ensemble against the dense head",
    ("default", BEST_MEMBER): "The default ensemble against the best member by validation",
    ("greedy", DENSE): "The greedy ensemble, of few members, against the dense head",
}

_Pairs = dict[str, tuple[list[float], list[float]]]


def claim_sections(studies: Studies, conclusive: bool = True) -> list[str]:
    """Markdown sections: for each claim a table of paired tests, and whether it holds by :data:`HOW_JUDGED`.

    Parameters
    ----------
    studies
        Of every data set, as many seeds of each.
    conclusive
        False for a trial, of which it is said that it shows nothing.
    """
    claims = {said: _window_pairs(studies, *columns) for columns, said in _WINDOW_CLAIMS.items()}
    claims |= {said: _way_pairs(studies, *names) for names, said in _WAY_CLAIMS.items()}
    return [section for said, pairs in claims.items() for section in _claim(said, pairs, conclusive)]


def largest_gains_table(studies: Studies) -> str:
    """Markdown: by data set, the largest of the windows' mean gains over a member, as the paper reports them.

    Parameters
    ----------
    studies
        Of every data set.
    """
    # the paper's ensembles vote by majority
    compared = [columns for columns in _WINDOW_CLAIMS if columns[0] != "soft"]
    names = {**ACCURACY, **AUROC}
    table = [["", *(f"{names[first]} over {names[second]}" for first, second in compared)]]
    for data, seeds in studies.items():
        gains = [_of_windows(seeds, first) - _of_windows(seeds, second) for first, second in compared]
        table.append([data, *(number(float(gain.mean(axis=0).max()), sign=True) for gain in gains)])
    return "\n".join(markdown_table(table))


def _claim(said: str, pairs: _Pairs, conclusive: bool) -> Iterator[str]:
    """Tests and verdict of a claim that the first column is above the second."""
    higher, lower = shown_higher(pairs), shown_lower(pairs)
    found = verdict(higher.values()) if conclusive else "nothing can be concluded"
    where = ", ".join(
        f"{'ahead' if higher[data] else 'behind' if lower[data] else 'no difference shown'} on {data}"
        for data in pairs
    )
    yield paired_table(pairs, "ensemble", "member")
    yield f"{said}: **{found}** ({where})."


def _window_pairs(studies: Studies, first: str, second: str) -> _Pairs:
    """Means over the windows of two columns, by data set and seed."""
    return {
        data: (_of_windows(seeds, first).mean(axis=1).tolist(), _of_windows(seeds, second).mean(axis=1).tolist())
        for data, seeds in studies.items()
    }


def _way_pairs(studies: Studies, first: str, second: str) -> _Pairs:
    """Test accuracies of a soft vote and of a single head, by data set and seed."""
    return {
        data: ([study.row(first).test for study in seeds], [study.row(second).test for study in seeds])
        for data, seeds in studies.items()
    }


def _of_windows(seeds: Sequence[EnsembleStudy], column: str) -> Values:
    """A column of the windows, shape (seeds, windows)."""
    return np.array([[getattr(window, column) for window in study.windows] for study in seeds])
