"""What is said of the relevant classes, by planted tests."""

from __future__ import annotations

import pytest

from moevoprune.fronts.statistics import Interval
from moevoprune.studies.relevant_classes import Change, LeftOut, claims


def change(mean, adjusted):
    return Change(Interval(mean, mean - 0.1, mean + 0.1, 5), adjusted, adjusted)


def left_out(overlap, accuracy, lead):
    return LeftOut(Interval(0.5, 0.4, 0.6, 5), change(*overlap), change(*accuracy), change(*lead))


@pytest.mark.parametrize(
    ("mean", "adjusted", "sign"),
    [(0.2, 0.01, 1), (-0.2, 0.049, -1), (-0.2, 0.05, 0), (0.2, None, 0), (0.0, 0.0, 0)],
)
def test_only_what_is_significant_has_a_sign(mean, adjusted, sign):
    assert change(mean, adjusted).sign == sign


@pytest.mark.parametrize(
    ("second", "said"), [((-0.1, 0.04), "holds: in 2 of 2"), ((-0.1, 0.06), "holds in part: in 1 of 2")]
)
def test_the_claim_is_of_all_cases(second, said):
    some = left_out((-0.2, 0.001), (0.1, 0.01), (-0.1, 0.02))
    other = left_out(second, (0.1, 0.02), (0.3, 0.3))
    text = claims({"one": {0: some}, "two": {0: other}})
    assert said in text
    assert "best member in 2 of 2 cases and lowers it in 0" in text
    assert "grows in 0 and shrinks in 1." in text


def test_more_overlap_does_not_count():
    text = claims({"one": {0: left_out((0.2, 0.001), (0.0, 1.0), (0.0, 1.0))}})
    assert "is not shown: in 0 of 1" in text
