"""The steps of a filter pruning run for one network; what has its file is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from moevoprune.device import resolve_device
from moevoprune.errors import InputError
from moevoprune.files import atomic_path, write_text
from moevoprune.filters.baselines import METHODS
from moevoprune.filters.finishing import finish, weights_of
from moevoprune.filters.images import LabelledImages, Normalisation, to_tensor
from moevoprune.filters.networks import build_network, load_weights
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.filters.results import (
    CHOSEN,
    FilterFront,
    NetworkScore,
    PruningResult,
    SearchCost,
    read_scores,
    write_scores,
)
from moevoprune.filters.saving import export_network, save_network
from moevoprune.filters.settings import PruningSettings
from moevoprune.filters.training import TuningSettings, tune
from moevoprune.fronts.plots.style import make_folder
from moevoprune.search.loop import Generation, run_search

__all__ = ["NetworkPruning"]

_ORIGINAL = "original.safetensors"
_JOURNAL, _FRONT, _FRONT_CSV = "evaluations.journal", "front.npz", "front.csv"
_SEARCH, _SCORES = "search.json", "scores.json"


@dataclass(frozen=True, eq=False)
class NetworkPruning:
    """One network to be pruned with one seed.

    Parameters
    ----------
    name
        Name for tables.
    architecture
        Name for :func:`~moevoprune.filters.networks.build_network`.
    folder
        Where its files go; made where missing.
    settings
        Of the run.
    data, normalisation
        The images, and how they are normalised.
    seed
        Of start weights, training, split and search.
    jobs
        Threads that evaluate candidates on a CPU.
    say
        Told of what happens.
    """

    name: str
    architecture: str
    folder: Path
    settings: PruningSettings
    data: LabelledImages
    normalisation: Normalisation
    seed: int
    jobs: int
    say: Callable[[str], None]

    @property
    def label(self) -> str:
        """What progress lines begin with."""
        return self.name if self.settings.seeds == 1 else f"{self.name}, seed {self.seed}"

    def check(self) -> FilterPruningProblem:
        """Find out before hours of work whether all of it fits together.

        Where no weights are given this is done with random ones.

        Raises
        ------
        InputError
            Something does not; the message says what.
        """
        network, settings = self._built(), self.settings
        trained = settings.weights is None or settings.epochs > 0 or settings.search_epochs > 0
        if trained and not any(parameter.requires_grad for parameter in network.parameters()):
            raise InputError(
                f"{self.architecture} has no parameter that can be trained: let them require gradients"
            )
        if settings.weights is not None:
            load_weights(network, settings.weights)
        return self._problem(network, distil=False)

    def results(self) -> list[PruningResult]:
        """Do what is left to do, and read the rest: a result for each search.

        Raises
        ------
        KeyboardInterrupt
            A search was interrupted; its journal has what it has evaluated.
        InputError
            A file cannot be written, or training diverged.
        """
        make_folder(self.folder)
        return [self._result(algorithm) for algorithm in self.settings.algorithms]

    @cached_property
    def network(self) -> nn.Module:
        """The network before pruning: read, or made and written."""
        network, path = self._built(), self.folder / _ORIGINAL
        if path.exists():
            load_weights(network, path)
            return network
        if self.settings.weights is not None:
            load_weights(network, self.settings.weights)
        else:
            self._train(network)
        _save_weights(network, path)
        return network

    def _built(self) -> nn.Module:
        channels, height, width = self.data.shape
        return build_network(self.architecture, self.data.n_classes, channels, (height, width), self.seed)

    def _train(self, network: nn.Module) -> None:
        settings = TuningSettings.preset("scratch")
        self.say(f"{self.label}: training it from random weights, epochs: {settings.epochs}")
        device = resolve_device(self.settings.device)
        images = to_tensor(self.data.X_train, self.normalisation).to(device)
        labels = torch.tensor(self.data.y_train, device=device)
        diverged = tune([network.to(device)], images, labels, settings, self.seed)
        network.cpu()
        if diverged:
            raise InputError(f"{self.architecture}: training it from random weights diverged: give --weights")

    def _problem(self, network: nn.Module, distil: bool) -> FilterPruningProblem:
        settings = self.settings
        return FilterPruningProblem(
            network,
            self.data,
            settings.objectives,
            settings.search_tuning,
            settings.search_images or None,
            distil,
            self.normalisation,
            seed=self.seed,
            device=settings.device,
            jobs=self.jobs,
            keep=settings.keep,
        )

    def _result(self, algorithm: str) -> PruningResult:
        folder = self.folder / algorithm
        make_folder(folder)
        # made once for search and final training, and not at all where both are done
        problems: list[FilterPruningProblem] = []

        def problem() -> FilterPruningProblem:
            if not problems:
                problems.append(self._problem(self.network, self.settings.distil))
            return problems[0]

        front = self._front(folder) or self._search(folder, algorithm, problem())
        write_text(folder / _FRONT_CSV, front.to_csv())
        scores = self._scores(folder) or self._finish(folder, front, problem())
        cost = SearchCost.load(folder / _SEARCH)
        return PruningResult(self.name, algorithm, self.seed, front, cost, scores)

    def _front(self, folder: Path) -> FilterFront | None:
        path = folder / _FRONT
        if not path.exists():
            return None
        try:
            return FilterFront.load(path, self.settings.objectives, self.settings.cost_column)
        except InputError as error:
            self.say(f"{error}; the search is done again")
            return None

    def _search(self, folder: Path, algorithm: str, problem: FilterPruningProblem) -> FilterFront:
        before = SearchCost.load(folder / _SEARCH).seconds if (folder / _JOURNAL).exists() else 0.0
        started = time.monotonic()
        size = f"{problem.costs.flops / 1e6:,.3g} M FLOPs, {problem.costs.parameters:,} parameters"
        layers = len(problem.graph.layers)
        self.say(f"{self.label}: {problem.n_var:,} filters in {layers} layers, {size}; search: {algorithm}")

        def progress(generation: Generation) -> None:
            cost = SearchCost(generation.evaluations, before + time.monotonic() - started)
            cost.save(folder / _SEARCH)
            self.say(f"{self.label}: {generation}")

        result = run_search(
            problem,
            self.settings.pop,
            n_gen=self.settings.end["n_gen"],
            budget=self.settings.end["budget"],
            algorithm=algorithm,
            seed=self.seed,
            journal=folder / _JOURNAL,
            resume=True,
            progress=progress,
        )
        if result.interrupted:
            raise KeyboardInterrupt
        front = FilterFront.of(result, problem, self.settings.cost_column)
        front.save(folder / _FRONT)
        return front

    def _scores(self, folder: Path) -> tuple[NetworkScore, ...] | None:
        if not all(path.exists() for path in self._files(folder)):
            return None
        try:
            return read_scores(folder / _SCORES)
        except InputError:
            return None

    def _files(self, folder: Path) -> list[Path]:
        """The networks that are chosen, and exported where that is asked for."""
        endings = ("safetensors", *([] if self.settings.export is None else [self.settings.export]))
        return [folder / f"{role}.{ending}" for role in CHOSEN for ending in endings]

    def _finish(self, folder: Path, front: FilterFront, problem: FilterPruningProblem) -> tuple[NetworkScore, ...]:
        settings = self.settings
        self.say(f"{self.label}: final training, epochs: {settings.epochs}")
        finished = finish(
            problem,
            {role: front.masks[member] for role, member in zip(CHOSEN, front.choices, strict=True)},
            settings.final_tuning,
            tuple(METHODS) if settings.baselines else (),
            distil=settings.distil,
            seed=self.seed,
            jobs=self.jobs,
            # the knee of a small network can have fewer FLOPs than they get to
            unreached=lambda error: self.say(f"{self.label}: left out: {error}"),
        )
        for network in finished:
            if network.role in CHOSEN:
                save_network(folder / f"{network.role}.safetensors", network, problem, self.architecture)
                if settings.export is not None:
                    export_network(network, folder / f"{network.role}.{settings.export}", problem)
        scores = tuple(NetworkScore.of(network) for network in finished)
        # last, as it says that all of it is there
        write_scores(folder / _SCORES, scores)
        return scores


def _save_weights(network: nn.Module, path: Path) -> None:
    from safetensors.torch import save

    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights_of(network)))
