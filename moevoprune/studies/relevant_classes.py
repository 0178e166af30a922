"""How fronts change with the classes there are: features read, accuracy and size, with tests for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moevoprune.fronts.explanation import feature_frequency
from moevoprune.fronts.front import Front
from moevoprune.fronts.statistics import Interval, PairedTest, holm, interval, paired_test
from moevoprune.fronts.tables import markdown_table, markdown_text
from moevoprune.studies.class_variants import WHOLE, ClassVariants, without
from moevoprune.studies.overlap import OverlapComparison, compare_overlap, seed_overlap
from moevoprune.studies.saying import LEVEL, p_cell

__all__ = [
    "HOW_COMPARED",
    "Change",
    "ClassFronts",
    "LeftOut",
    "claims",
    "compare_classes",
    "front_values",
    "left_out_tables",
    "steps_table",
]

Values = npt.NDArray[np.float64]
_Tests = tuple[OverlapComparison, PairedTest, PairedTest]

HOW_COMPARED = (
    "Overlap: how often each feature is read over a front, sum of the minima over sum of the maxima of two "
    "fronts (weighted Jaccard index). It is of fronts of different seeds throughout, as two seeds on the same "
    "data differ too: only what is below their overlap is due to the class. Its intervals and tests are "
    "Student's over jackknife pseudo-values of the seeds.\n\n"
    "Without a class there are fewer to tell apart, and test rows of it are left out too: accuracies with and "
    "without are of different tasks. The lead over the dense head, which has the same task, is what pruning "
    "gains. The class added in steps is the one with most training rows (of equals the first), one draw of "
    "its rows for all seeds; all its test rows stay, except at 0 %.\n\n"
    "The rule: a class matters where p < .05, corrected by Holm's method over all classes of all data sets, "
    "each of the three questions (overlap, accuracy, lead over the dense head) apart."
)


@dataclass(frozen=True, eq=False)
class ClassFronts:
    """What was found on a data set.

    Attributes
    ----------
    data
        The data set.
    fronts
        Fronts in the order of the seeds, by variant.
    """

    data: ClassVariants
    fronts: Mapping[str, Sequence[Front]]

    def values(self, variant: str, column: str) -> Values:
        """One of :func:`front_values` for each seed, shape (seeds,)."""
        return np.array([front_values(front)[column] for front in self.fronts[variant]])

    def lead(self, variant: str) -> Values:
        """Test accuracy of the best member less that of the dense head, shape (seeds,)."""
        return self.values(variant, "best_accuracy") - self.values(variant, "dense_accuracy")

    def overlap(self, variant: str) -> OverlapComparison:
        """Overlap of the features read with those read with all classes."""
        return compare_overlap(self._frequencies(WHOLE), self._frequencies(variant))

    def seed_overlap(self, variant: str) -> Interval:
        """Overlap of the features read between the seeds of a variant."""
        return seed_overlap(self._frequencies(variant))

    def _frequencies(self, variant: str) -> list[Values]:
        return [feature_frequency(front) for front in self.fronts[variant]]


@dataclass(frozen=True)
class Change:
    """What leaving a class out does to one value.

    Attributes
    ----------
    difference
        Without the class less with it.
    p_value, adjusted
        Of a test over the seeds, as it is and corrected for all classes of all data sets; None where there is no
        test.
    """

    difference: Interval
    p_value: float | None
    adjusted: float | None

    @property
    def sign(self) -> int:
        """1 where a rise is shown, -1 where a fall is, else 0."""
        if self.adjusted is None or self.adjusted >= LEVEL:
            return 0
        return int(np.sign(self.difference.mean))


@dataclass(frozen=True)
class LeftOut:
    """What changes when a class is left out.

    Attributes
    ----------
    across
        Overlap of the features read with and without the class.
    overlap
        The same, less the overlap between seeds with all classes.
    accuracy
        Test accuracy of the member that is best by validation.
    lead
        That member's lead over the dense head.
    """

    across: Interval
    overlap: Change
    accuracy: Change
    lead: Change


def front_values(front: Front) -> dict[str, float]:
    """What is read off a front.

    Returns
    -------
    dict
        ``best_accuracy``, ``knee_accuracy`` and ``dense_accuracy``, on the test rows, of the member that is best
        by validation, the knee and the dense head; ``best_share``, ``knee_share`` and ``dense_share``, their
        active bits among all.

    Raises
    ------
    InputError
        The front has no members.
    """
    members = {"best": front.best("accuracy"), "knee": front.knee()}
    found = {f"{name}_accuracy": float(front.test[member]) for name, member in members.items()}
    found |= {f"{name}_share": float(front.active[member] / front.n_bits) for name, member in members.items()}
    return found | {"dense_accuracy": float(front.dense_test), "dense_share": 1.0}


def compare_classes(results: Sequence[ClassFronts]) -> dict[str, dict[int, LeftOut]]:
    """Test every class of every data set; returned by name of the data set and label of the class.

    Holm's correction is over all of them, for each of the three questions apart.

    Raises
    ------
    InputError
        There are fewer than two seeds, or not as many of all variants.
    """
    raw = {
        (result.data.name, label): _tests(result, label)
        for result in results
        for label in range(result.data.features.n_classes)
    }
    by_question = zip(*raw.values(), strict=True)
    adjusted = zip(*(holm([test.p_value for test in tests]) for tests in by_question), strict=True)
    found: dict[str, dict[int, LeftOut]] = {}
    for ((name, label), tests), p_values in zip(raw.items(), adjusted, strict=True):
        each: Sequence[OverlapComparison | PairedTest] = tests
        changes = (Change(test.difference, test.p_value, p) for test, p in zip(each, p_values, strict=True))
        found.setdefault(name, {})[label] = LeftOut(tests[0].across, *changes)
    return found


def _tests(result: ClassFronts, label: int) -> _Tests:
    after = without(label)
    return (
        result.overlap(after),
        paired_test(result.values(after, "best_accuracy"), result.values(WHOLE, "best_accuracy")),
        paired_test(result.lead(after), result.lead(WHOLE)),
    )


def claims(tests: Mapping[str, Mapping[int, LeftOut]]) -> str:
    """Markdown: what the tests of :func:`compare_classes` say, by the rule of :data:`HOW_COMPARED`."""
    every = [test for of in tests.values() for test in of.values()]
    overlap, accuracy, lead = (
        [getattr(test, question).sign for test in every] for question in ("overlap", "accuracy", "lead")
    )
    fewer = overlap.count(-1)
    holds = "holds" if fewer == len(every) else "holds in part" if fewer else "is not shown"
    return (
        f"- That the chosen neurons follow the classes {holds}: in {fewer} of {len(every)} cases fronts with and "
        "without a class agree less than two seeds with all classes do.\n"
        f"- Leaving a class out raises the accuracy of the best member in {accuracy.count(1)} of {len(every)} "
        f"cases and lowers it in {accuracy.count(-1)}; its lead over the dense head grows in {lead.count(1)} and "
        f"shrinks in {lead.count(-1)}."
    )


def left_out_tables(result: ClassFronts, tests: Mapping[int, LeftOut]) -> list[str]:
    """Markdown sections: features, accuracy and size of a data set with and without each class.

    Parameters
    ----------
    result
        Its fronts.
    tests
        Of the data set, by label.
    """
    names = {label: markdown_text(name) for label, name in enumerate(result.data.features.class_names)}
    tables = (
        _features_table(result, names, tests),
        _heads_table(result, {WHOLE: "none", **{without(label): name for label, name in names.items()}}),
        _changes_table(names, tests),
    )
    return [
        f"Overlap between two seeds with all classes: {result.seed_overlap(WHOLE).text()}.",
        *("\n".join(markdown_table(table)) for table in tables),
    ]


def _features_table(
    result: ClassFronts, names: Mapping[int, str], tests: Mapping[int, LeftOut]
) -> list[list[str]]:
    table = [["without", "overlap", "between seeds without", "less between seeds with all", "p", "p, Holm"]]
    for label, name in names.items():
        test = tests[label]
        within = result.seed_overlap(without(label))
        difference = test.overlap.difference.text(sign=True)
        p_values = p_cell(test.overlap.p_value), p_cell(test.overlap.adjusted)
        table.append([name, test.across.text(), within.text(), difference, *p_values])
    return table


def _heads_table(result: ClassFronts, names: Mapping[str, str]) -> list[list[str]]:
    table = [["without", "best member", "its share", "knee", "its share", "dense head"]]
    columns = ("best_accuracy", "best_share", "knee_accuracy", "knee_share", "dense_accuracy")
    for variant, name in names.items():
        table.append([name, *(interval(result.values(variant, column)).text() for column in columns)])
    return table


def _changes_table(names: Mapping[int, str], tests: Mapping[int, LeftOut]) -> list[list[str]]:
    table = [["without", "accuracy", "p, Holm", "lead over dense", "p, Holm"]]
    for label, name in names.items():
        changes = tests[label].accuracy, tests[label].lead
        cells = ((change.difference.text(sign=True), p_cell(change.adjusted)) for change in changes)
        table.append([name, *(cell for pair in cells for cell in pair)])
    return table


def steps_table(result: ClassFronts) -> str:
    """Markdown: features, accuracy and size of a data set as one class is added in steps."""
    table = [
        ["share of its training rows", "overlap with all of it", "best member", "its share", "knee", "dense head"]
    ]
    columns = ("best_accuracy", "best_share", "knee_accuracy", "dense_accuracy")
    for share in result.data.shares:
        variant = result.data.at(share)
        cells = (interval(result.values(variant, column)).text() for column in columns)
        table.append([f"{share:.0%}", result.overlap(variant).across.text(), *cells])
    return "\n".join(markdown_table(table))
