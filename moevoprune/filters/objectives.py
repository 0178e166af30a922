"""What can be measured of a network without some filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moevoprune.device import single_threaded
from moevoprune.errors import InputError, nearest
from moevoprune.objectives import Candidate, Objective, resolve_objectives

__all__ = [
    "DEFAULT_FILTER_OBJECTIVES",
    "FILTER_OBJECTIVES",
    "FilterCandidate",
    "latencies",
    "resolve_filter_objectives",
]

# of the others in moevoprune.objectives, those that make sense for networks on images
_SHARED = ("accuracy", "cka:dense")
_REPEATS = 15


@dataclass(frozen=True, eq=False)
class FilterCandidate(Candidate):
    """A network without some filters as the objectives see it.

    Attributes
    ----------
    flops, parameters
        Shares of the whole network's, in [0, 1].
    network
        Makes the network, physically cut, in evaluation mode; takes a moment.
    dense
        The whole network.
    images
        Some of its inputs, shape (n, channels, height, width).
    """

    flops: float = 1.0
    parameters: float = 1.0
    network: Callable[[], nn.Module] | None = None
    dense: nn.Module | None = None
    images: Tensor | None = None


def _error(candidate: Candidate) -> float:
    outputs = torch.cat([fold.outputs for fold in candidate.folds])
    targets = torch.cat([fold.targets for fold in candidate.folds])
    return float((outputs.argmax(dim=1) != targets).double().mean())


def _share(name: str) -> Callable[[Candidate], float]:
    def share(candidate: Candidate) -> float:
        if not isinstance(candidate, FilterCandidate):
            raise InputError(f"objective {name!r} is about the filters of networks, not about heads")
        return float(getattr(candidate, name))

    return share


def _latency(candidate: Candidate) -> float:
    if not isinstance(candidate, FilterCandidate) or candidate.network is None:
        raise InputError("objective 'latency' is about the filters of networks, not about heads")
    if candidate.dense is None or candidate.images is None:
        raise InputError("objective 'latency' needs the whole network and some images")
    smaller, whole = latencies([candidate.network(), candidate.dense], candidate.images)
    return smaller / whole


def latencies(networks: Sequence[nn.Module], images: Tensor, repeats: int = _REPEATS) -> list[float]:
    """Median seconds that networks take for a batch, measured in turns.

    Parameters
    ----------
    networks
        On the device of the images.
    images
        The batch, shape (n, channels, height, width).
    repeats
        Turns, at least 1; one more is not counted.
    """
    times: list[list[float]] = [[] for _ in networks]
    modes = [network.training for network in networks]
    with torch.no_grad(), single_threaded():
        for _ in range(repeats + 1):
            for network, taken in zip(networks, times, strict=True):
                network.eval()
                started = time.perf_counter()
                network(images)
                if images.device.type == "cuda":
                    torch.cuda.synchronize(images.device)
                taken.append(time.perf_counter() - started)
    for network, mode in zip(networks, modes, strict=True):
        network.train(mode)
    return [sorted(taken[1:])[repeats // 2] for taken in times]


FILTER_OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("error", _error, maximise=False, best=0.0, worst=1.0),
        Objective("flops", _share("flops"), maximise=False, best=0.0, worst=1.0),
        Objective("parameters", _share("parameters"), maximise=False, best=0.0, worst=1.0),
        Objective("latency", _latency, maximise=False, best=0.0, worst=1.0, diverged_value=1.0),
    )
}
"""By name: validation error; FLOPs, parameters and measured latency as shares of the whole network's."""

DEFAULT_FILTER_OBJECTIVES = ("error", "flops")


def resolve_filter_objectives(
    specs: Sequence[str | Objective | Callable[[Candidate], float]],
) -> tuple[Objective, ...]:
    """Turn names, objectives and plain functions of a :class:`FilterCandidate` into objectives.

    Parameters
    ----------
    specs
        Keys of :data:`FILTER_OBJECTIVES`, ``accuracy``, ``cka:dense``, instances or functions, as in
        :func:`moevoprune.objectives.resolve_objectives`.

    Raises
    ------
    InputError
        One is unknown, repeated, or about something that whole networks do not have.
    """
    known = (*FILTER_OBJECTIVES, *_SHARED)
    if isinstance(specs, str):
        raise InputError(f"objectives: got the string {specs!r}; give a list, for example [{specs!r}]")
    found: list[str | Objective | Callable[[Candidate], float]] = []
    for spec in specs:
        if isinstance(spec, str) and spec not in known:
            raise InputError(
                f"objectives: unknown name {spec!r}{nearest(spec, known) or ';'} choose among {', '.join(known)}"
            )
        found.append(FILTER_OBJECTIVES.get(spec, spec) if isinstance(spec, str) else spec)
    objectives = resolve_objectives(found, "classification")
    for objective in objectives:
        lacking = ", ".join(sorted(objective.needs - {"dense"}))
        if lacking:
            raise InputError(
                f"objective {objective.name!r} needs {lacking}, which filter pruning does not have: choose among "
                f"{', '.join(known)}"
            )
    return objectives
