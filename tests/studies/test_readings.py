"""Single heads read off fronts, and how they are judged beside others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel

from moevoprune import InputError, PruningProblem, evolve
from moevoprune.studies.readings import (
    DENSE,
    Readings,
    compare_readings,
    judge_pruning,
    read_fronts,
    smallest_at_least,
)


@pytest.fixture(scope="module")
def fronts(small_features, quick_head):
    found = []
    for seed in (1, 2):
        problem = PruningProblem(
            small_features, objectives=["accuracy", "active_neurons"], head=quick_head, cv=2, seed=seed
        )
        found.append(evolve(problem, pop_size=16, n_gen=3, seed=seed))
    return found


def heads(share, accuracies, n_rows=100):
    """Heads with accuracies in hundredths."""
    correct = np.arange(n_rows) < np.rint(np.array(accuracies) * n_rows)[:, None]
    return Readings(np.full(len(accuracies), share), correct)


def test_the_smallest_head_at_a_level(fronts):
    front = fronts[0]
    assert len(front) > 1
    accuracies = front.column("accuracy")
    for level in [*accuracies, accuracies.mean(), 0.0]:
        size, accuracy = min((a, -v) for a, v in zip(front.active, accuracies, strict=True) if v >= level)
        member = smallest_at_least(front, "accuracy", level)
        assert (front.active[member], accuracies[member]) == (size, -accuracy)
    assert smallest_at_least(front, "accuracy", accuracies.max() + 0.001) == front.best("accuracy")
    # a sum of the same numbers in another order
    assert smallest_at_least(front, "accuracy", accuracies.max() + 1e-15) == front.best("accuracy")
    with pytest.raises(InputError, match="minimised"):
        smallest_at_least(front, "active_neurons", 0.5)
    with pytest.raises(InputError, match="no objective"):
        smallest_at_least(front, "acuracy", 0.5)


def test_read_heads_have_the_fronts_own_test_scores(fronts):
    readings = read_fronts(fronts, [1, 0])
    assert readings.accuracy == pytest.approx([fronts[0].test[1], fronts[1].test[0]], abs=1e-12)
    assert readings.share == pytest.approx([fronts[0].masks[1].mean(), fronts[1].masks[0].mean()])
    dense = read_fronts(fronts, [DENSE, 0])
    assert dense.accuracy == pytest.approx([fronts[0].dense_test, fronts[1].test[0]], abs=1e-12)
    assert dense.share[0] == 1.0


def test_what_cannot_be_read(fronts):
    for those, members in (([], []), (fronts, [0])):
        with pytest.raises(InputError, match="one for each"):
            read_fronts(those, members)
    with pytest.raises(InputError, match="no validation predictions"):
        read_fronts([replace(fronts[0], predictions=None)], [0])
    others = replace(fronts[1].predictions, test_targets=fronts[1].predictions.test_targets[::-1])
    with pytest.raises(InputError, match="different test rows"):
        read_fronts([fronts[0], replace(fronts[1], predictions=others)], [0, 0])
    regression = replace(fronts[0].predictions, task="regression")
    with pytest.raises(InputError, match="regression"):
        read_fronts([replace(fronts[0], predictions=regression)], [0])
    with pytest.raises(InputError, match="cannot be paired"):
        compare_readings(heads(0.5, [0.9]), heads(1, [0.9, 0.9]), 0.01, np.random.default_rng(0))


def test_seeds_and_rows_are_two_samples():
    generator = np.random.default_rng(3)
    a = Readings(np.full(4, 0.5), generator.random((4, 900)) < np.array([0.90, 0.91, 0.92, 0.90])[:, None])
    b = Readings(np.ones(4), generator.random((4, 900)) < 0.9)
    over_seeds, over_rows = compare_readings(a, b, 0.02, generator, resamples=4000)
    test = ttest_rel(a.correct.mean(1) + 0.02, b.correct.mean(1), alternative="greater")
    assert over_seeds.p_value == pytest.approx(test.pvalue)
    gain = (a.correct.astype(float) - b.correct).mean(0)
    assert over_rows.mean == pytest.approx(gain.mean()) == pytest.approx(over_seeds.difference.mean)
    # of a mean over many rows, the bootstrap is the normal interval
    half = norm.ppf(0.975) * gain.std() / np.sqrt(900)
    assert (over_rows.low, over_rows.high) == pytest.approx(
        (gain.mean() - half, gain.mean() + half), abs=0.1 * half
    )


@pytest.mark.parametrize(
    ("share", "accuracies", "word"),
    [
        (0.4, [0.90, 0.91, 0.90, 0.91], "reached"),
        (0.6, [0.90, 0.91, 0.90, 0.91], "too large"),
        (0.4, [0.90, 0.80, 0.99, 0.90], "not shown"),
        (0.4, [0.80, 0.81, 0.80, 0.81], "less accurate"),
        (0.7, [0.80, 0.81, 0.80, 0.81], "less accurate"),
        # no spread, so no p-value
        (0.4, [0.90, 0.90, 0.90, 0.90], "reached"),
        (0.4, [0.88, 0.88, 0.88, 0.88], "less accurate"),
        (0.4, [0.90], "not shown"),
    ],
)
def test_verdicts(share, accuracies, word):
    dense = heads(1.0, [0.9] * len(accuracies))
    verdict = judge_pruning({"d": (heads(share, accuracies), dense)}, 0.01, 0.6)["d"]
    assert verdict.word == word
    assert verdict.share == pytest.approx(share)
    assert (verdict.p_value is None) == (len(set(accuracies)) == 1)


def test_verdicts_are_corrected_over_the_data_sets():
    dense = heads(1.0, [0.9] * 4)
    pruned = heads(0.4, [0.90, 0.91, 0.89, 0.91])
    alone = judge_pruning({"a": (pruned, dense)}, 0.01, 0.6)["a"]
    assert 0.025 < alone.p_value < 0.05
    assert alone.word == "reached"
    both = judge_pruning({"a": (pruned, dense), "b": (pruned, dense)}, 0.01, 0.6)
    assert both["a"].p_value == pytest.approx(2 * alone.p_value)
    assert [verdict.word for verdict in both.values()] == ["not shown"] * 2
