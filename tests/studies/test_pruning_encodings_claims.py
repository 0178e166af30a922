"""Tests and verdicts on evolved heads, from planted accuracies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from moevoprune.fronts.statistics import holm
from moevoprune.studies.pruning_encodings import BASELINES, Cell, cell_rows
from moevoprune.studies.pruning_encodings_claims import claims, compare_cells
from moevoprune.studies.pruning_encodings_tables import data_sections, verdicts_table
from moevoprune.studies.readings import Readings

SEEDS, ROWS = 6, 1000
ENCODINGS = ("1 layer", "FC1", "both layers", "FS", "connections")


def cell(generator, evolved, share=0.3, baseline=0.8, same_share=0.1):
    """A cell whose dense heads have an accuracy of about .9; the front's heads are like the GA's, but smaller."""

    def readings(share, accuracy):
        right = generator.permuted(np.tile(np.arange(ROWS) < accuracy * ROWS, (SEEDS, 1)), axis=1)
        # of every seed a few rows more
        right |= generator.random((SEEDS, ROWS)) < 0.02
        return Readings(share + 0.01 * generator.random(SEEDS), right)

    heads = {
        "dense": readings(1.0, 0.9),
        "evolved": readings(share, evolved),
        "same": readings(same_share, evolved),
        "best": readings(share, evolved),
        "as dense": readings(share, evolved),
    }
    validation = {what: [0.9] * SEEDS for what in heads} | {"best": [0.95, *[0.85] * (SEEDS - 1)]}
    scores = baseline + 0.01 * generator.random((len(BASELINES), SEEDS))
    columns = {
        title: np.stack([heads["evolved"].share, test, test])
        for title, test in zip(BASELINES.values(), scores, strict=True)
    }
    return Cell(tuple(range(1, SEEDS + 1)), heads, validation, columns)


@pytest.fixture(scope="module")
def cells():
    generator = np.random.default_rng(5)
    # connections do not count for the published pattern
    lost = {one: cell(generator, 0.95 if one == "connections" else 0.7, baseline=0.9) for one in ENCODINGS}
    kept = {one: cell(generator, 0.5 if one == "connections" else 0.95) for one in ENCODINGS}
    return {"lost": lost, "kept leaves": kept}


def test_p_values_are_those_of_paired_tests_corrected_over_the_data_sets(cells):
    found = compare_cells(cells).baselines["neuron pruning"]["FS"]
    oracle = [
        ttest_rel(of["FS"].heads["evolved"].accuracy, of["FS"].baselines["neuron pruning"][2]).pvalue
        for of in cells.values()
    ]
    assert [found[name].p_value for name in cells] == pytest.approx(holm(oracle), rel=1e-9)
    assert [found[name].sign for name in cells] == [-1, 1]


def test_claims_follow_their_rules(cells):
    text = claims(compare_cells(cells))
    assert "* kept leaves, the GA's winner: the published pattern **holds** (reached: 1 layer, FC1, both" in text
    assert "* lost, the GA's winner: the published pattern **does not hold** (less accurate: 1 layer, FC1" in text
    # both layers are left out; of the four others, connections are the other way round
    magnitude = "**holds in part** (significant in 4 of 8 pairs, the reverse in 4)"
    assert f"* the GA's winner is more accurate than weight pruning: {magnitude}." in text
    assert (
        "more accurate than best fixed: **holds in part** (significant in 5 of 10 pairs, the reverse in 5)" in text
    )
    assert "validation accuracy is smaller: **holds** (significant in 10 of 10 pairs, the reverse in 0)" in text


def test_a_pattern_holds_in_part_where_some_heads_are_too_large():
    generator = np.random.default_rng(6)
    of = {one: cell(generator, 0.95, 0.7 if one == "FC1" else 0.3, same_share=0.8) for one in ENCODINGS}
    text = claims(compare_cells({"one": of}))
    assert "the published pattern **holds in part** (reached: 1 layer, both layers, FS; too large: FC1)" in text
    assert "validation accuracy is smaller: **does not hold**" in text
    # no spread, no difference: nothing can be shown
    same = {
        one: Cell(c.seeds, {**c.heads, "same": c.heads["evolved"]}, c.validation, c.baselines)
        for one, c in of.items()
    }
    assert "smaller: **is not shown** (significant in 0 of 5 pairs" in claims(compare_cells({"one": same}))


def test_tables_show_the_cells(cells):
    compared = compare_cells(cells)
    for name, of in cells.items():
        text = "\n".join(data_sections(name, of, compared))
        assert ("Published for LEAVES" in text) == (name == "kept leaves")
        assert text.count("| 1 of 6 |") == len(ENCODINGS)
    lines = verdicts_table(cells, "best", compared).splitlines()
    assert len(lines) == 2 + len(cells) * len(ENCODINGS)
    assert "reached" in next(line for line in lines if "kept leaves, FS" in line)

    rows = cell_rows(cells)
    assert len(rows) == 2 * len(ENCODINGS) * 9 * SEEDS
    (row,) = (r for r in rows if (r["data"], r["encoding"], r["seed"], r["head"]) == ("lost", "FC1", 3, "same"))
    head = cells["lost"]["FC1"].heads["same"]
    assert row["test_accuracy"] == pytest.approx(np.mean(head.correct[2]))
    assert (row["active_share"], row["validation_accuracy"]) == pytest.approx((head.share[2], 0.9))
