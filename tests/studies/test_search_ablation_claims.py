"""Tests and verdicts of the search ablation, from planted hypervolumes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from moevoprune.fronts.statistics import holm
from moevoprune.studies.search_ablation import MEAN, claims, differences_table, differences_to_guided, scores_of

SEEDS = 8
# what leaving the part out does to the hypervolume on the validation and the test rows
EFFECTS = {
    "guided": (0.0, 0.0),
    "without-lost": (-0.2, -0.2),
    "without-fitted": (-0.2, 0.0),
    "without-idle": (0.0, 0.0),
    "random": (0.2, 0.2),
}


@pytest.fixture(scope="module")
def scores():
    generator = np.random.default_rng(3)
    rows = []
    for data in ("one", "two"):
        for search, (validation, test) in EFFECTS.items():
            for seed in range(SEEDS):
                # the same for all searches: noise that pairs remove
                level = 0.6 + 0.1 * np.sin(seed)
                row = {"data": data, "search": search, "seed": seed}
                for part, effect in {"validation": validation, "test": test}.items():
                    for scale in ("", "_log"):
                        noise = 0.01 * generator.normal()
                        row[f"hypervolume_{part}{scale}"] = level + effect + noise
                rows.append(row)
    return scores_of(rows)


def test_of_one_data_set_they_are_paired_tests_corrected_for_each_part_apart(scores):
    tests = differences_to_guided(scores, {"one": ["one"]})
    for measures in (("validation", "validation, log"), ("test", "test, log")):
        keys = [(search, name, "one") for name in measures for search in EFFECTS if search != "guided"]
        oracle = [
            ttest_rel(scores[name][search]["one"], scores[name]["guided"]["one"]).pvalue
            for search, name, _ in keys
        ]
        assert [tests[key][0].p_value for key in keys] == pytest.approx(oracle, rel=1e-9)
        assert [tests[key][1] for key in keys] == pytest.approx(holm(oracle), rel=1e-9)
    assert len(tests) == 16
    assert "| random | +." in differences_table(tests, "one")


def test_the_test_rows_decide(scores):
    text = claims(differences_to_guided(scores, {MEAN: ["one", "two"]}))
    assert "Parts that buy something on test rows: lost." in text
    assert "which may be fitted folds: fitted." in text
    assert "Parts that cost something, or help here and cost there: none." in text
    assert "Parts that buy nothing that these runs show: idle." in text
    assert f"| random | guided is worse (test: {MEAN}; test, log: {MEAN}) |" in text


def test_opposite_signs_are_both_said(scores):
    mixed = {
        name: {
            search: {
                data: [v - 0.4 * (search == "random" and data == "two") for v in of] for data, of in by.items()
            }
            for search, by in by_search.items()
        }
        for name, by_search in scores.items()
    }
    text = claims(differences_to_guided(mixed, {"one": ["one"], "two": ["two"]}))
    assert "| random | guided is better and worse (test: one; test, log: one; test: two; test, log: two) |" in text
