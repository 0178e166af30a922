"""Claims about pruned filters are answered by their rules, from results made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moevoprune.filters.results import FilterFront, NetworkScore, PruningResult, SearchCost
from moevoprune.studies.filter_networks import group_results, network_rows, networks_table
from moevoprune.studies.filter_networks_claims import (
    guided_ahead,
    knee_ahead_of_magnitude,
    little_loss,
    three_networks,
)

ERRORS = (0.010, 0.012, 0.011, 0.013)
FLOPS = {"original": 1000, "original, tuned": 1000, "heavy": 450, "knee": 300, "light": 100}


def result(search, seed, added=None, **flops):
    """Test errors are those of the original and what is added to a role's; flops replace those of a role."""
    added = {"uniform L1": 0.0, **(added or {})}
    sizes = {**FLOPS, "uniform L1": 300, **flops}
    scores = tuple(
        NetworkScore(role, sizes[role], sizes[role], 1, 0.1, 0.1, ERRORS[seed] + added.get(role, 0.0), 0.5)
        for role in sizes
        if added.get(role, 0.0) is not None
    )
    # one point: its area is (1 - error) * (1 - share)
    error, share = 0.2 - 0.001 * seed, 0.5 if search == "guided" else 0.6
    front = FilterFront(
        ("error", "flops"),
        np.array([[True, False, False, True]]),
        np.array([[error, 1000 * share]]),
        np.array([[error, 1000 * share]]),
        np.array([[1000 * share, 10.0]]),
        np.array([1000.0, 20.0, 0.1]),
        1,
    )
    return PruningResult("net", search, seed, front, SearchCost(12, 1.0), scores)


def groups(published=None, guided=None, **flops):
    made = {"deep_pruning_es": published, "guided": guided}
    return group_results(
        result(search, seed, added, **flops) for search, added in made.items() for seed in range(4)
    )


def test_three_networks_must_differ_in_every_run():
    runs = [result("deep_pruning_es", 0, knee=450), *(result("deep_pruning_es", seed) for seed in (1, 2))]
    text = three_networks(group_results([*runs, result("guided", 0)]))
    assert "DeepPruningES: in 2 of 3 runs. **The claim holds in part.**" in text
    assert "Guided: in 1 of 1 runs. **The claim holds.**" in text


@pytest.mark.parametrize(
    ("added", "flops", "answer"),
    [
        (0.019, 499, "**the claim holds** (1 of 1 networks)"),
        (0.021, 499, "**the claim does not hold** (0 of 1 networks)"),
        (0.019, 501, "**the claim does not hold** (0 of 1 networks)"),
    ],
)
def test_loss_and_flops_have_their_limits(added, flops, answer):
    text = little_loss(groups({"knee": added}, {"knee": added}, knee=flops))
    assert f"DeepPruningES, knee: {answer}" in text
    assert f"Guided, knee: {answer}" in text
    # as good as the original, with 45 % of its FLOPs
    assert "Guided, heavy: **the claim holds** (1 of 1 networks)." in text


def test_the_knee_must_err_less_than_magnitude_pruning():
    better, unreached = {"uniform L1": 0.01}, {"uniform L1": None}
    # all pairs differ by the same: without a spread no test
    text = knee_ahead_of_magnitude(groups(better))
    assert "DeepPruningES's knee is ahead of uniform L1 on 0 of 1 networks" in text
    spread = [
        result(search, seed, {"uniform L1": sign * (0.005 + 0.001 * seed)})
        for search, sign in (("deep_pruning_es", 1), ("guided", -1))
        for seed in range(4)
    ]
    text = knee_ahead_of_magnitude(group_results(spread))
    assert "DeepPruningES's knee is ahead of uniform L1 on 1 of 1 networks: **that it is ahead holds**." in text
    assert "Guided's knee is ahead of uniform L1 on 0 of 1 networks: **that it is ahead does not hold**." in text
    assert "global magnitude" not in text
    assert "Guided" not in knee_ahead_of_magnitude(groups(better, unreached))


def test_searches_are_compared_by_area():
    text = guided_ahead(groups())
    areas = {share: np.mean([(0.8 + 0.001 * seed) * (1 - share) for seed in range(4)]) for share in (0.5, 0.6)}
    ours, published = (f"{areas[share]:.3f}".removeprefix("0") for share in (0.5, 0.6))
    assert f"| net | {ours} | {published} |" in text
    assert "| net | Guided | 12 |" in text
    assert "| 50.0 [50.0, 50.0] |" in text
    assert "**That the guided search is ahead holds** (1 of 1 networks)." in text


def test_rows_and_table_are_shares_of_the_original():
    made = groups({"knee": 0.01})
    rows = network_rows(made["net", "deep_pruning_es"][1])
    assert [row["which"] for row in rows] == [*FLOPS, "uniform L1"]
    assert (rows[3]["test_error"], rows[3]["flops_left"]) == (pytest.approx(0.022), pytest.approx(0.3))
    lines = networks_table(made).splitlines()[2:]
    # both searches share their originals
    assert len(lines) == 2 + 2 * 4
    assert lines[0].startswith("| net |  | original | 4 | 1.15 [")
    assert lines[0].endswith("| 100 | 100 |")
    assert lines[3].startswith("| net | DeepPruningES | knee | 4 | 2.15 [")
    assert lines[3].endswith("| 30.0 [30.0, 30.0] | 30.0 [30.0, 30.0] |")


def test_a_table_does_not_break_at_a_name():
    odd = [
        replace(result(search, seed), network="net, a|b")
        for search in ("deep_pruning_es", "guided")
        for seed in (0, 1)
    ]
    lines = [line for line in networks_table(group_results(odd)).splitlines() if "net" in line][1:]
    assert lines
    assert all(line.startswith("| net, a\\|b |") for line in lines)
