"""How results are said: numbers by hand, tests held to SciPy, verdicts by their rule."""

from __future__ import annotations

import math

import pytest
from scipy.stats import ttest_rel

from moevoprune.studies.saying import (
    describe,
    number,
    p_cell,
    paired_table,
    shown_higher,
    shown_lower,
    verdict,
    verdict_counted,
    verdict_where,
)

PAIRS = {
    "up": ([0.9, 0.8, 0.95, 0.85], [0.7, 0.62, 0.71, 0.66]),
    "down": ([0.3, 0.42, 0.35, 0.4], [0.5, 0.6, 0.57, 0.58]),
    "same": ([0.5, 0.6, 0.4, 0.5], [0.55, 0.5, 0.45, 0.52]),
}
P_VALUES = {name: ttest_rel(*pair).pvalue for name, pair in PAIRS.items()}


def test_numbers_lose_the_zero_before_the_point():
    written = [number(0.5), number(-0.5), number(0.25, 2, sign=True), number(12.34, 1), number(math.nan)]
    assert written == [".500", "-.500", "+.25", "12.3", ""]


def test_p_values():
    assert [p_cell(value) for value in (0.04, 0.001, 0.0009, 1.0)] == [".040", ".001", "< .001", "1.000"]
    assert p_cell(None) == p_cell(math.nan) == ""


def test_a_data_set_in_a_line(small_features):
    line = describe("mine", small_features)
    assert line.startswith(
        f"mine: {len(small_features.y_train)} training and {len(small_features.y_test)} test rows"
    )
    assert line.endswith(
        f", {small_features.X_train.shape[1]} features, {len(set(small_features.y_train))} classes"
    )


def test_tests_are_paired_and_corrected():
    # Holm by hand: the smallest of three times 3 and so on, never falling
    corrected, largest = {}, 0.0
    for factor, name in zip((3, 2, 1), sorted(P_VALUES, key=P_VALUES.get), strict=True):
        corrected[name] = largest = max(largest, factor * P_VALUES[name])
    head, _, *lines = paired_table(PAIRS, "one", "other").splitlines()
    assert [cell.strip() for cell in head.split("|")[2:5]] == ["one", "other", "difference [95 % interval]"]
    for line, (name, pair) in zip(lines, PAIRS.items(), strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        interval = ttest_rel(*pair).confidence_interval(0.95)
        means = [sum(values) / len(values) for values in pair]
        assert cells[0] == name
        assert [float(cell) for cell in cells[1:3]] == pytest.approx(means, abs=5e-4)
        found = [float(part.strip("[],")) for part in cells[3].split()]
        assert found == pytest.approx([means[0] - means[1], interval.low, interval.high], abs=6e-4)
        for cell, p_value in zip(cells[4:], (P_VALUES[name], corrected[name]), strict=True):
            assert cell == "< .001" if p_value < 0.001 else float(cell) == pytest.approx(p_value, abs=5e-4)


def test_higher_and_lower_need_a_corrected_p_value():
    assert shown_higher(PAIRS) == {"up": True, "down": False, "same": False}
    assert shown_lower(PAIRS) == {"up": False, "down": True, "same": False}
    # between alone and three times itself only the correction decides
    between = 2 * P_VALUES["up"]
    assert shown_higher({"up": PAIRS["up"]}, between) == {"up": True}
    assert shown_higher(dict.fromkeys("abc", PAIRS["up"]), between) == dict.fromkeys("abc", False)
    # one seed shows nothing
    assert shown_higher({"up": ([0.9], [0.1])}) == shown_lower({"up": ([0.1], [0.9])}) == {"up": False}


@pytest.mark.parametrize(
    ("held", "said", "where", "counted"),
    [
        ({"a": True, "b": True}, "holds", "Holds", "**holds** (2 of 2 data sets)"),
        ({"a": False, "b": False}, "does not hold", "Does not hold", "**does not hold** (0 of 2 data sets)"),
        (
            {"a": True, "b": False, "c": True},
            "holds in part",
            "Holds in part (a, c)",
            "**holds in part** (2 of 3 data sets)",
        ),
        ({"a": True}, "holds", "Holds", "**holds** (1 of 1 data sets)"),
    ],
)
def test_verdicts(held, said, where, counted):
    assert verdict(held.values()) == said
    assert verdict_where(held) == where
    assert verdict_counted(list(held.values())) == counted
