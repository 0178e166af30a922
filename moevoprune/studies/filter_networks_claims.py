"""Which of the claims about DeepPruningES's three networks (arXiv 1912.11527) hold, by what rule."""

from __future__ import annotations

from collections.abc import Sequence

from moevoprune.filters.finishing import ORIGINAL_TUNED
from moevoprune.filters.results import CHOSEN, PruningResult
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table
from moevoprune.studies.filter_networks import (
    BASELINES,
    OURS,
    PUBLISHED,
    SEARCHES,
    Groups,
    error_percentages,
    flops_percentages,
)
from moevoprune.studies.no_loss import loss_tests
from moevoprune.studies.saying import LEVEL, number, paired_table, shown_higher, shown_lower, verdict

__all__ = ["guided_ahead", "knee_ahead_of_magnitude", "little_loss", "three_networks"]

# fixed before any result was seen
_MOST_FLOPS, _MARGIN = 0.5, 0.02


def three_networks(groups: Groups) -> str:
    """Markdown: do three different networks come back, as published?"""
    parts = ["## Do three networks come back?", "Rule: in every run heavy, knee and light differ in FLOPs."]
    for search, words in SEARCHES.items():
        runs = [result for results in _of_search(groups, search).values() for result in results]
        different = [len({score.flops for role in CHOSEN if (score := run.score(role))}) == 3 for run in runs]
        parts.append(f"{words}: in {sum(different)} of {len(runs)} runs. **The claim {verdict(different)}.**")
    return "\n\n".join(parts)


def little_loss(groups: Groups) -> str:
    """Markdown: do FLOPs go, and little accuracy with them, as published?"""
    parts = [
        "## Do FLOPs go with little loss?",
        f"Rule, per network: the upper limit of the FLOPs left is at most {100 * _MOST_FLOPS:.0f} %, and a paired "
        f"one-sided test shows that less than {100 * _MARGIN:.0f} points of test accuracy are lost against the "
        "original after the same final training (p after Holm's correction over the networks at most "
        f"{number(LEVEL, 2)}). Both limits were fixed beforehand.",
    ]
    for search, words in SEARCHES.items():
        for role in ("knee", "heavy"):
            parts += _role_loss(_of_search(groups, search), role, f"{words}, {role}")
    parts.append(
        "For comparison, of the state of the art: SMOEA and CCEP report ResNet-56 on CIFAR-10 with 63 % of the "
        "FLOPs gone and no loss, after hundreds of epochs of training; other network, all 50,000 training "
        "images."
    )
    return "\n\n".join(parts)


def knee_ahead_of_magnitude(groups: Groups) -> str:
    """Markdown: is a search worth it? Its knee against magnitude pruning at equal FLOPs."""
    parts = [
        "## Is the knee ahead of magnitude pruning at equal FLOPs?",
        "Test errors in per cent, paired by seed; a negative difference is in the knee's favour. Rule, per "
        f"network: the knee errs less, p after Holm's correction over the networks at most {number(LEVEL, 2)}. "
        "Seeds in which magnitude pruning does not get to so few FLOPs are left out.",
    ]
    for search, words in SEARCHES.items():
        for baseline in BASELINES:
            pairs = {}
            for network, results in _of_search(groups, search).items():
                if both := [result for result in results if result.score(baseline) is not None]:
                    pairs[network] = error_percentages(both, "knee"), error_percentages(both, baseline)
            if pairs:
                ahead = shown_lower(pairs)
                parts += [
                    paired_table(pairs, f"knee, {words}", baseline, 2),
                    f"{words}'s knee is ahead of {baseline} on {sum(ahead.values())} of {len(ahead)} networks: "
                    f"**that it is ahead {verdict(ahead.values())}**.",
                ]
    return "\n\n".join(parts)


def guided_ahead(groups: Groups) -> str:
    """Markdown: is our search ahead of the published one at equal evaluations?"""
    networks = list(dict.fromkeys(network for network, _ in groups))
    table = [["network", "search", "evaluations", "hypervolume", "filters kept by the knee, %"]]
    for network in networks:
        for search, words in SEARCHES.items():
            results = groups[network, search]
            kept = [100 * float(result.front.masks[result.front.choices.knee].mean()) for result in results]
            evaluations = "/".join(dict.fromkeys(f"{result.cost.evaluations:,}" for result in results))
            volumes = interval(_hypervolumes(results)).text()
            table.append([network, words, evaluations, volumes, interval(kept).text(1)])
    pairs = {
        network: (_hypervolumes(groups[network, OURS]), _hypervolumes(groups[network, PUBLISHED]))
        for network in networks
    }
    ahead = shown_higher(pairs)
    return "\n\n".join(
        [
            "## Is the guided search ahead of DeepPruningES's at equal evaluations?",
            "Hypervolume: the area that validation error and share of FLOPs dominate up to the corner (1, 1). "
            "Rule, per network: it is larger, p of the paired test after Holm's correction at most "
            f"{number(LEVEL, 2)}.",
            "\n".join(markdown_table(table)),
            paired_table(pairs, SEARCHES[OURS], SEARCHES[PUBLISHED]),
            f"**That the guided search is ahead {verdict(ahead.values())}** ({sum(ahead.values())} of "
            f"{len(ahead)} networks).",
        ]
    )


def _role_loss(results: dict[str, Sequence[PruningResult]], role: str, words: str) -> list[str]:
    """Table and verdict on one of the three networks of a search."""
    # accuracy less 100: higher is better
    pairs = {
        network: (
            [-error for error in error_percentages(of, role)],
            [-error for error in error_percentages(of, ORIGINAL_TUNED)],
        )
        for network, of in results.items()
    }
    tests = loss_tests(pairs, dict.fromkeys(pairs, 100 * _MARGIN))
    table = [[words, "FLOPs left, %", "points gained", "at least", "p", "p, Holm", "holds"]]
    held = []
    for network, test in tests.items():
        left = interval(flops_percentages(results[network], role))
        held.append(test.shown and left.high <= 100 * _MOST_FLOPS)
        cells = [left.text(1), *test.difference_cells(2), *test.p_cells()]
        table.append([network, *cells, "yes" if held[-1] else "no"])
    return [
        "\n".join(markdown_table(table)),
        f"{words}: **the claim {verdict(held)}** ({sum(held)} of {len(held)} networks).",
    ]


def _of_search(groups: Groups, search: str) -> dict[str, Sequence[PruningResult]]:
    """The results of a search by network."""
    return {network: results for (network, algorithm), results in groups.items() if algorithm == search}


def _hypervolumes(results: Sequence[PruningResult]) -> list[float]:
    return [result.front.hypervolume for result in results]
