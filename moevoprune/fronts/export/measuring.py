"""Latency of several models, measured in turn."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch

from moevoprune.device import reproducible
from moevoprune.fronts.export.formats import Predictor

__all__ = ["latencies"]

# Calls between two looks at the clock take about so long, in seconds: far less than the slices of time that a
# system gives its processes, so that on a busy machine most of them are not interrupted, nor is the median.
_BLOCK = 2e-4
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 1000
# the first calls allocate memory, and torch looks at a graph while it runs
_WARM_UP = 5


def latencies(
    predictors: Sequence[Predictor], inputs: Sequence[npt.NDArray[np.float32]], seconds: float = 1.0
) -> list[float]:
    """Median time of one call, in seconds, on one thread.

    The models take turns, with about equally long blocks of calls, so that what else the machine does meets all of
    them alike.

    Parameters
    ----------
    predictors
        The models.
    inputs
        What each of them is given.
    seconds
        About how long the measurement may take in all; slow models take longer, for five rounds.
    """
    pairs = list(zip(predictors, inputs, strict=True))
    times: list[list[float]] = [[] for _ in pairs]
    with reproducible(torch.device("cpu")):
        calls = []
        for predictor, rows in pairs:
            once = min(_time(predictor, rows, 1) for _ in range(_WARM_UP))
            calls.append(max(1, round(_BLOCK / max(once, 1e-7))))
        end = perf_counter() + seconds
        for number in range(_MOST_ROUNDS):
            if number >= _LEAST_ROUNDS and perf_counter() > end:
                break
            for measured, count, (predictor, rows) in zip(times, calls, pairs, strict=True):
                measured.append(_time(predictor, rows, count))
    return [statistics.median(measured) for measured in times]


def _time(predictor: Predictor, rows: npt.NDArray[np.float32], count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        predictor(rows)
    return (perf_counter() - start) / count
