"""Networks that searches over filters and magnitude pruning leave, over the seeds: errors, sizes, a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moevoprune.filters.baselines import METHODS
from moevoprune.filters.finishing import ORIGINAL, ORIGINAL_TUNED
from moevoprune.filters.results import CHOSEN, NetworkScore, PruningResult
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table, markdown_text

__all__ = [
    "BASELINES",
    "OURS",
    "PUBLISHED",
    "SEARCHES",
    "Groups",
    "error_percentages",
    "flops_percentages",
    "group_results",
    "network_rows",
    "networks_table",
]

PUBLISHED, OURS = "deep_pruning_es", "guided"
SEARCHES = {PUBLISHED: "DeepPruningES", OURS: "Guided"}
"""Names of the two searches: what they are called."""

BASELINES = tuple(method.role for method in METHODS.values())
"""Roles of the networks that magnitude pruning leaves."""

Groups = Mapping[tuple[str, str], Sequence[PruningResult]]
"""By network, as Markdown has it, and search: the results in the order of the seeds."""


def group_results(results: Iterable[PruningResult]) -> Groups:
    """Sort results by their network and search, both in the order they come in."""
    groups: dict[tuple[str, str], list[PruningResult]] = {}
    for result in results:
        groups.setdefault((markdown_text(result.network), result.algorithm), []).append(result)
    return groups


def network_rows(result: PruningResult) -> list[dict[str, Any]]:
    """One row for each network of a result, errors and shares in [0, 1]."""
    original = result.score(ORIGINAL)
    return [
        {
            "network": result.network,
            "search": result.algorithm,
            "seed": result.seed,
            "which": score.role,
            "test_error": score.test_error,
            "test_error_before_tuning": score.test_error_before,
            "validation_error": score.validation_error,
            "flops": score.flops,
            "flops_left": score.flops / original.flops if original else None,
            "parameters": score.parameters,
            "hypervolume": result.front.hypervolume,
            "evaluations": result.cost.evaluations,
        }
        for score in result.scores
    ]


def error_percentages(results: Sequence[PruningResult], role: str) -> list[float]:
    """Test errors of a role in per cent, by seed; none for seeds without such a network."""
    return [100 * score.test_error for score, _ in _found(results, role)]


def flops_percentages(results: Sequence[PruningResult], role: str) -> list[float]:
    """FLOPs of a role in per cent of the original's, by seed; none for seeds without such a network."""
    return [100 * score.flops / original.flops for score, original in _found(results, role)]


def networks_table(groups: Groups) -> str:
    """Markdown: one row per network, search and role, with 95 % intervals over the seeds."""
    table = [["network", "search", "which", "seeds", "test error, %", "FLOPs left, %", "parameters left, %"]]
    begun: set[str] = set()
    for (network, search), results in groups.items():
        # the originals do not depend on the search
        originals = () if network in begun else (ORIGINAL, ORIGINAL_TUNED)
        begun.add(network)
        for role in (*originals, *CHOSEN, *BASELINES):
            if networks := _found(results, role):
                parameters = [100 * score.parameters / original.parameters for score, original in networks]
                name = "" if role in originals else SEARCHES[search]
                error = interval(error_percentages(results, role)).text(2)
                shares = [_share_text(values) for values in (flops_percentages(results, role), parameters)]
                table.append([network, name, role, str(len(networks)), error, *shares])
    return "\n".join(markdown_table(table))


def _found(results: Sequence[PruningResult], role: str) -> list[tuple[NetworkScore, NetworkScore]]:
    """The networks of a role, each with the original of its seed; none for seeds that have no such network."""
    pairs = ((result.score(role), result.score(ORIGINAL)) for result in results)
    return [(score, original) for score, original in pairs if score is not None and original is not None]


def _share_text(values: Sequence[float]) -> str:
    """Write a percentage with its interval; the whole as it is."""
    return "100" if set(values) == {100.0} else interval(values).text(1)
