"""How many neurons are active in nearly all members of merged fronts, against what chance would give.

MO-EvoPruneDeepTL (arXiv 2302.10253) counts how often each neuron (here: feature of the backbone) is active over
the merged front of its runs. The comparison with chance and the agreement between runs are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.fronts.explanation import Explanation, explain_front
from moevoprune.fronts.front import Values
from moevoprune.fronts.statistics import Interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.chance_frequency import chance_frequencies, frequency_agreement, merged_masks_by_run
from moevoprune.studies.saying import number, verdict_where
from moevoprune.studies.two_searches import Runs

__all__ = ["TOP", "Key", "Neurons", "core_claims", "frequency_table", "ten_table"]

# as many as the paper shows
TOP = 10
LEVELS = (1.0, 0.9, 0.5)
# claim: so many neurons are active in so large a share of the members
CORE, NEARLY_ALL = 10, 0.9
# of the draws of chance, which an observed count has to exceed
CHANCE = 0.975

# data set and search
Key = tuple[str, str]


@dataclass(frozen=True)
class Neurons:
    """How often neurons are active over a merged front, and by chance.

    Attributes
    ----------
    runs
        The runs of one search on one data set.
    explanation
        Of their merged front.
    independent, shuffled
        Sorted frequencies in [0, 1], shape (draws, neurons): of independent masks of the same sizes, and of the
        runs' masks where neurons are exchanged run by run.
    agreement
        Spearman's correlation of the frequencies in two runs' fronts, mean over pairs of runs.
    """

    runs: Runs
    explanation: Explanation
    independent: Values
    shuffled: Values
    agreement: Interval

    @classmethod
    def of(cls, runs: Runs) -> Neurons:
        """Count, and draw what chance gives.

        Parameters
        ----------
        runs
            With at least one front.
        """
        by_run = merged_masks_by_run(runs.fronts)
        generator = np.random.default_rng(0)
        return cls(
            runs,
            explain_front(runs.merged),
            chance_frequencies([mask[None] for masks in by_run for mask in masks], generator),
            chance_frequencies(by_run, generator),
            frequency_agreement(runs.fronts),
        )

    def reaching(self, level: float) -> int:
        """Count the neurons that are active in at least this share of the members."""
        return int(_at_least(self.explanation.frequency, level).sum())


def frequency_table(found: Mapping[Key, Neurons]) -> str:
    """Markdown: neurons that reach each level, against chance, and how far the runs agree.

    Parameters
    ----------
    found
        By data set and search.
    """
    levels = ["in all members", *(f"in {100 * level:.0f} %" for level in LEVELS[1:])]
    table = [["", "search", "members", "active, %", *levels, "Spearman between runs"]]
    for (data, variant), neurons in found.items():
        merged = neurons.runs.merged
        cells = []
        for level in LEVELS:
            chance = [_at_least(of, level).sum(axis=1).mean() for of in (neurons.independent, neurons.shuffled)]
            cells.append(f"{neurons.reaching(level)} ({chance[0]:.1f}; {chance[1]:.1f})")
        active = f"{100 * merged.masks.mean():.1f}"
        table.append([data, variant, str(len(merged)), active, *cells, neurons.agreement.text(2)])
    return "\n".join(markdown_table(table))


def ten_table(neurons: Neurons) -> str:
    """Markdown: the ten most frequent neurons.

    Parameters
    ----------
    neurons
        Of one search on one data set.
    """
    table = [["neuron", "members, %", "relative weight", "mean accuracy of these members"]]
    for row in neurons.explanation.to_rows()[:TOP]:
        accuracy = row[f"mean_{neurons.explanation.quality}"]
        cells = [f"{100 * row['frequency']:.0f}", f"{row['relative_weight']:.2f}"]
        table.append([str(row["feature"]), *cells, "" if accuracy is None else number(accuracy)])
    return "\n".join(markdown_table(table))


def core_claims(found: Mapping[Key, Neurons], variant: str) -> list[str]:
    """Markdown: whether a small set of neurons is in nearly all members, and whether runs choose the same.

    Parameters
    ----------
    found
        By data set and search.
    variant
        The search that the sentences are about.
    """
    own = {data: neurons for (data, search), neurons in found.items() if search == variant}
    core, agree = {}, {}
    for data, neurons in own.items():
        core[data] = neurons.reaching(NEARLY_ALL) >= max(CORE, _by_chance(neurons.independent, NEARLY_ALL) + 1)
        more_in_half = neurons.reaching(0.5) > _by_chance(neurons.shuffled, 0.5)
        agree[data] = neurons.agreement.low > 0 and more_in_half
    return [
        f"* A small set of neurons is active in nearly all members: at least {CORE} in "
        f"{100 * NEARLY_ALL:.0f} %, and more than in {100 * CHANCE} % of the draws of independent masks; search: "
        f"{variant}. **{verdict_where(core)}**",
        "* Runs choose the same neurons: Spearman's correlation above 0 (95 % interval), and more neurons in "
        f"half of the members than in {100 * CHANCE} % of the draws with neurons exchanged run by run; search: "
        f"{variant}. **{verdict_where(agree)}**",
    ]


def _by_chance(draws: Values, level: float) -> float:
    """Count of neurons reaching a level that few of the draws exceed."""
    return float(np.quantile(_at_least(draws, level).sum(axis=1), CHANCE))


def _at_least(frequencies: Values, level: float) -> npt.NDArray[np.bool_]:
    """Where a share of members reaches a level, to within rounding."""
    return frequencies >= level - 1e-9
