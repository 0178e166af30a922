"""Tables of filter pruning: networks before and after, searches beside one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from moevoprune.filters.results import NetworkScore, PruningResult
from moevoprune.fronts.tables import csv_text, markdown_code, markdown_table
from moevoprune.fronts.wording import bare, file_size, short_number

__all__ = ["network_table", "report", "scores_csv", "search_table"]

_ORIGINAL = "original"
# the same whichever search is looked at
_SHARED = (_ORIGINAL, "original, tuned")
_BASELINES = ("uniform L1", "global magnitude")

Group = Sequence[PruningResult]


def network_table(results: Sequence[PruningResult]) -> list[list[str]]:
    """One row per network and role: means over the seeds, of the test error with its standard error.

    Parameters
    ----------
    results
        All networks, searches and seeds of a run.

    Returns
    -------
    list of list of str
        For :func:`moevoprune.fronts.tables.aligned`; the first row is the header. A column names the search where
        there are several.
    """
    several = len({result.algorithm for result in results}) > 1
    table = [
        [
            "network",
            *(["search"] if several else []),
            "which",
            "test error, %",
            "FLOPs",
            "share, %",
            "parameters",
            "share, %",
            "file",
            "latency, ms",
            "share, %",
        ]
    ]
    shown: set[tuple[str, str]] = set()
    for group in _groups(results):
        network, algorithm = group[0].network, group[0].algorithm
        for role in dict.fromkeys(score.role for result in group for score in result.scores):
            if role in _SHARED and (network, role) in shown:
                continue
            shown.add((network, role))
            search = [] if not several else ["" if role in _SHARED else algorithm]
            table.append([network, *search, role, *_cells(group, role)])
    return table


def search_table(results: Sequence[PruningResult]) -> list[list[str]]:
    """One row per network and search: what it took, its hypervolume, and its knee against the baselines.

    The hypervolume is the area that validation error and share of FLOPs dominate up to (1, 1). Differences of test
    errors are in points; positive where the baseline, at the knee's FLOPs, errs more; n/a where it does not get to
    so few.
    """
    table = [
        ["network", "search", "evaluations", "seconds", "hypervolume", "knee: FLOPs, %", "knee: test error, %"]
    ]
    against = [role for role in _BASELINES if any(result.score(role) is not None for result in results)]
    table[0] += [f"{role}: points more" for role in against]
    for group in _groups(results):
        row = [
            group[0].network,
            group[0].algorithm,
            f"{np.mean([result.cost.evaluations for result in group]):,.0f}",
            f"{np.mean([result.cost.seconds for result in group]):,.0f}",
            short_number(float(np.mean([result.front.hypervolume for result in group]))),
            f"{100 * _share(group, 'knee', lambda score: score.flops):.1f}",
            _with_error([100 * score.test_error for score in _scores(group, "knee")]),
        ]
        table.append([*row, *(_points_more(group, role) for role in against)])
    return table


def scores_csv(results: Sequence[PruningResult]) -> str:
    """All networks of all searches and seeds; shares are of the original network of the same seed."""
    header = (
        "network",
        "search",
        "seed",
        "which",
        "test_error",
        "test_error_before_tuning",
        "validation_error",
        "flops",
        "flops_share",
        "parameters",
        "parameters_share",
        "bytes",
        "latency_ms",
        "latency_share",
        "latency_batch_ms",
    )
    rows = []
    for result in results:
        original = result.scores[0]
        for score in result.scores:
            rows.append(
                (
                    result.network,
                    result.algorithm,
                    result.seed,
                    score.role,
                    score.test_error,
                    score.test_error_before,
                    score.validation_error,
                    score.flops,
                    score.flops / original.flops,
                    score.parameters,
                    score.parameters / original.parameters,
                    score.bytes,
                    1e3 * score.latency,
                    score.latency / original.latency,
                    1e3 * score.latency_batch,
                )
            )
    return csv_text(header, rows)


def report(results: Sequence[PruningResult], command: str, about: Sequence[str]) -> str:
    """All tables as Markdown, with what they mean.

    Parameters
    ----------
    results
        All networks, searches and seeds of a run.
    command
        What was typed.
    about
        Further lines on data and settings, each a paragraph.
    """
    seeds = sorted({result.seed for result in results})
    many = f"Means over seeds {seeds[0]} to {seeds[-1]}, ± the standard error over the seeds. "
    paragraphs = [
        "# Pruned networks",
        markdown_code(command),
        *about,
        f"{many if len(seeds) > 1 else f'Seed {seeds[0]}. '}The test part was scored once, at the end. FLOPs are "
        "multiply-accumulates for one image, counted by torch-pruning; files hold the weights alone; latency is "
        "the median time of one image on one thread, all networks of a search measured in turns; shares are of "
        "the original.",
        "\n".join(markdown_table(network_table(results))),
        "The original stands as it was given (or trained) and after the same final training that all others got. "
        "Uniform L1 and global magnitude are torch-pruning's own, at the FLOPs of the knee.",
        "\n".join(markdown_table(search_table(results))),
        "Hypervolume: the area that validation error and share of FLOPs dominate up to (1, 1). The last columns: "
        "by how many points of test error the baselines, at the knee's FLOPs, are worse than it.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _groups(results: Sequence[PruningResult]) -> list[Group]:
    """Results of the same network and search, seeds together."""
    keys = list(dict.fromkeys((result.network, result.algorithm) for result in results))
    return [[result for result in results if (result.network, result.algorithm) == key] for key in keys]


def _cells(group: Group, role: str) -> list[str]:
    scores = _scores(group, role)
    return [
        _with_error([100 * score.test_error for score in scores]),
        f"{_mean(scores, lambda score: score.flops) / 1e6:,.3f} M",
        f"{100 * _share(group, role, lambda score: score.flops):.1f}",
        f"{_mean(scores, lambda score: score.parameters):,.0f}",
        f"{100 * _share(group, role, lambda score: score.parameters):.1f}",
        file_size(_mean(scores, lambda score: score.bytes)),
        f"{1e3 * _mean(scores, lambda score: score.latency):.3g}",
        f"{100 * _share(group, role, lambda score: score.latency):.0f}",
    ]


def _points_more(group: Group, role: str) -> str:
    """By how many points of test error a baseline is worse than the knee, over the seeds that have it."""
    pairs = [(result.score(role), result.score("knee")) for result in group]
    differences = [100 * (one.test_error - knee.test_error) for one, knee in pairs if one and knee]
    return bare(f"{np.mean(differences):+.2f}") if differences else "n/a"


def _scores(group: Group, role: str) -> list[NetworkScore]:
    return [score for result in group if (score := result.score(role)) is not None]


def _mean(scores: Sequence[NetworkScore], number: Callable[[NetworkScore], float]) -> float:
    return float(np.mean([number(score) for score in scores]))


def _share(group: Group, role: str, number: Callable[[NetworkScore], float]) -> float:
    """Mean over the seeds of what a network has of its original's."""
    shares = [number(score) / number(result.scores[0]) for result in group if (score := result.score(role))]
    return float(np.mean(shares))


def _with_error(values: Sequence[float]) -> str:
    mean = bare(f"{np.mean(values):.2f}")
    if len(values) < 2:
        return mean
    return f"{mean} ±{bare(f'{np.std(values, ddof=1) / np.sqrt(len(values)):.2f}')}"
