"""Racing, as a prototype: heads that look dominated while they are trained are not trained to the end.

All new masks of a generation are trained as far as a first rung; those that are dominated there, by one another or
by masks of earlier generations at the same rung, stop, at most half of them; the others go on. A rung lies

* after the first folds: an F-race (Birattari, Stützle, Paquete and Varrentrapp, GECCO 2002) with dominance in
  place of the Friedman test, or
* after a part of the epochs: successive halving (Jamieson and Talwalkar, AISTATS 2016), on the schedule of the
  whole training, so that survivors go on where they stood.

Survivors have the fitness they have without a race: bit for bit if the rungs are epochs, but for rounding if they
are folds (folds that train side by side are padded to the longest batch, and products of other shapes round
differently). What a stopped mask is told (its values at the rung, made worse by the margin) depends on whom it was
trained with: it is not a fitness, and such a mask is in no front.

This works on the trainer's insides, as only a prototype may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import Bits
from torch import Tensor

from moevoprune import PruningProblem
from moevoprune.device import reproducible
from moevoprune.heads.encodings import HeadMask
from moevoprune.heads.layers import DualLayer, GatheredLayer
from moevoprune.heads.stack import HeadStack
from moevoprune.heads.trainer import PopulationTrainer
from moevoprune.heads.training import HeadsInTraining, StepLoss
from moevoprune.objectives import Objective
from moevoprune.search.archive import non_dominated
from moevoprune.search.fitness import pack
from moevoprune.search.problem import SIZE_OBJECTIVE

# of fewer new masks, all are trained to the end
FEWEST = 8

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Race:
    """Where masks are compared, and who drops out.

    Attributes
    ----------
    folds
        Numbers of folds after which there is a rung, e.g. ``(1, 2)``.
    epochs
        Shares of the epochs after which there is one, e.g. ``(0.25,)``. Give one of the two.
    margin
        By how much a mask must be worse in every objective but its size to count as dominated.
    dropped
        Share of the masks at a rung that drop out at most.
    by_quality
        Whether masks are compared by accuracy (or R²) and size alone, even where there are further objectives:
        more masks are dominated then, and a rung is cheaper. Otherwise by all objectives.
    """

    folds: tuple[int, ...] = ()
    epochs: tuple[float, ...] = ()
    margin: float = 0.0
    dropped: float = 0.5
    by_quality: bool = False


class RacingProblem(PruningProblem):
    """A pruning problem whose new masks race; on one CPU, with SGD, without early stopping.

    Attributes
    ----------
    n_dropped
        Masks that were not trained to the end.
    """

    def __init__(self, features: Any, race: Race, **settings: Any) -> None:
        super().__init__(features, device="cpu", **settings)
        if self.head.optimiser != "sgd" or self.head.early_stop != "none":
            raise ValueError("the prototype continues plain SGD only")
        self._race = race
        self._dropped: set[bytes] = set()
        # by rung: losses there of masks that were trained to the end, none of them dominated by another
        self._finished: list[Values] = [np.zeros((0, self.n_obj)) for _ in (*race.folds, *race.epochs)]
        names = [objective.name for objective in self.objectives]
        self._compared = [not race.by_quality or name in (self.quality, SIZE_OBJECTIVE) for name in names]
        noisy = [compared and name != SIZE_OBJECTIVE for name, compared in zip(names, self._compared, strict=True)]
        self._margins = race.margin * np.array(noisy, dtype=np.float64)

    @property
    def n_dropped(self) -> int:
        return len(self._dropped)

    def violations(self, masks: Bits) -> Values:
        """As ever; but masks that dropped out are infeasible, which keeps them out of archives and fronts."""
        violations = super().violations(masks)
        dropped = [key in self._dropped for key in pack(masks)]
        violations[dropped, 0] = np.maximum(violations[dropped, 0], 1.0)
        return violations

    def _evaluate(self, x: npt.ArrayLike, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._evaluate(x, out, *args, **kwargs)
        # to the algorithm they are masks like others, just bad ones
        out["G"] = super().violations(np.asarray(x, dtype=np.bool_))

    def _train(self, bits: Bits) -> None:
        if len(bits) < FEWEST:
            super()._train(bits)
            return
        keys = pack(bits)
        field_ = _Field(self, bits)
        n_folds, n_epochs = len(self.fitness.folds), self.head.epochs
        rungs = [(min(folds, n_folds), n_epochs) for folds in self._race.folds]
        rungs += [(n_folds, max(round(share * n_epochs), 1)) for share in self._race.epochs]
        running = np.arange(len(bits))
        at_rungs: list[Values] = []
        for rung, (folds, epochs) in enumerate(rungs):
            field_.train(running, folds, epochs)
            losses = np.full((len(bits), self.n_obj), np.nan)
            scores = [field_.score(mask, folds, self._compared)[0] for mask in running]
            losses[running] = self.losses(np.array(scores))
            at_rungs.append(losses)
            out = self._drop_outs(losses[running], self._finished[rung])
            for mask in running[out]:
                worst = _natural(self.objectives, losses[mask] + self._margins)
                self._known.put(bits[mask : mask + 1], worst[None])
                self._dropped.add(keys[mask])
                field_.forget(mask)
            running = running[~out]
        # as without a race, a mask is announced as soon as it is done
        for group in field_.groups(running, n_folds):
            field_.train(group, n_folds, n_epochs)
            for mask in group:
                values, diverged = field_.score(mask, n_folds, [True] * self.n_obj)
                field_.forget(mask)
                self._known.put(bits[mask : mask + 1], values[None])
                self.n_trained += 1
                self.n_diverged += diverged
                for listener in self._on_trained:
                    listener(bits[mask : mask + 1], values[None])
        for rung, losses in enumerate(at_rungs):
            together = np.concatenate([self._finished[rung], losses[running]])
            self._finished[rung] = together[non_dominated(together)]

    def _drop_outs(self, losses: Values, finished: Values) -> npt.NDArray[np.bool_]:
        """Who stops at a rung, shape (masks,): the clearly dominated, the worst first."""
        # differences[i, j]: by how much i is worse than j
        differences = losses[:, None] - np.concatenate([losses, finished])[None]
        dominated = (differences >= self._margins).all(axis=2) & (differences > 0).any(axis=2)
        worse = np.where(dominated, differences.sum(axis=2), 0.0).max(axis=1)
        out = np.zeros(len(losses), dtype=np.bool_)
        worst_first = np.argsort(-worse, kind="stable")[: int(self._race.dropped * len(losses))]
        out[worst_first] = worse[worst_first] > 0
        return out


@dataclass(eq=False)
class _Runner:
    """A mask in training: what all its heads share, and how far each is."""

    mask: HeadMask
    active: int
    starts: list[Tensor]
    gram: Tensor | None
    # by fold: epochs trained, training loss, layers' changing tensors while it is to go on, weights and biases
    epochs: dict[int, int] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    states: dict[int, tuple[list[Tensor], float]] = field(default_factory=dict)
    heads: dict[int, tuple[list[Tensor], list[Tensor | None]]] = field(default_factory=dict)


class _Field:
    """The new masks of a generation, trained bit by bit."""

    def __init__(self, problem: RacingProblem, bits: Bits) -> None:
        self._problem = problem
        self._fitness = problem.fitness
        self._trainer: PopulationTrainer = problem.fitness.trainer
        self._bits = bits
        self._row_sets = problem.fitness.folds.train
        self._masks = [problem.encoding.decode(row) for row in bits]
        self._runners: dict[int, _Runner] = {}

    def forget(self, number: int) -> None:
        del self._runners[number]

    def groups(self, numbers: Sequence[int] | npt.NDArray[np.int64], n_folds: int) -> list[list[int]]:
        """Masks that are trained side by side: as the trainer does it, for so many folds."""
        grouping = self._trainer.grouping
        alike: dict[tuple[object, ...], list[int]] = {}
        for number in numbers:
            alike.setdefault(grouping.size_of(self._masks[number], self._row_sets), []).append(int(number))
        groups = []
        for members in alike.values():
            together = max(grouping.heads_together(self._masks[members[0]], self._row_sets) // n_folds, 1)
            groups += [members[start : start + together] for start in range(0, len(members), together)]
        return sorted(groups)

    def train(self, numbers: Sequence[int] | npt.NDArray[np.int64], n_folds: int, epochs: int) -> None:
        """Train masks on the first folds, up to so many epochs."""
        if len(numbers) == 0:
            return
        # all of them have come equally far
        begun = self._runners.get(int(numbers[0]))
        folds = [fold for fold in range(n_folds) if begun is None or begun.epochs.get(fold, 0) < epochs]
        with reproducible(self._trainer.device):
            for group in self.groups(numbers, max(len(folds), 1)) if folds else []:
                self._train_group([self._runner(number) for number in group], folds, epochs)

    def score(self, number: int, n_folds: int, wanted: Sequence[bool]) -> tuple[Values, bool]:
        """Wanted objective values of a mask on its first folds, others at their worst; whether a head diverged."""
        fitness, runner = self._fitness, self._runners[number]
        layers = [runner.heads[fold] for fold in range(n_folds)]
        weights = tuple(torch.stack(parts) for parts in zip(*(weights for weights, _ in layers), strict=True))
        biases = tuple(
            None if parts[0] is None else torch.stack(parts)
            for parts in zip(*(biases for _, biases in layers), strict=True)
        )
        losses = np.array([runner.losses[fold] for fold in range(n_folds)])
        trained = np.array([runner.epochs[fold] for fold in range(n_folds)])
        stack = HeadStack(runner.mask, weights, biases, losses, trained)
        everything, noisy = fitness._validation, fitness._noisy
        fitness._validation = everything[:n_folds]
        if not all(wanted):
            # noise is for objectives that nobody asks for here
            fitness._noisy = None
        try:
            with reproducible(self._trainer.device):
                (candidate,) = fitness._candidates_of([(stack, runner.active)])
                values = np.array(
                    [
                        objective(candidate) if asked else objective.worst or 0.0
                        for objective, asked in zip(fitness.objectives, wanted, strict=True)
                    ]
                )
        finally:
            fitness._validation, fitness._noisy = everything, noisy
        return values, not candidate.finite

    def _runner(self, number: int) -> _Runner:
        if number not in self._runners:
            trainer, mask = self._trainer, self._masks[number]
            gram = None
            if trainer.grouping.form_of(mask, self._row_sets) == "dual":
                everything = len(mask.inputs) == trainer.shape.n_features
                inputs = torch.from_numpy(mask.inputs)
                gram = trainer._grams.whole if everything else trainer._grams.of(self._columns(mask), inputs)
                if trainer.settings.bias or not mask.hidden:
                    gram = gram + 1.0
            active = int(self._problem.encoding.count_active(self._bits[number]))
            self._runners[number] = _Runner(mask, active, trainer._starts(mask), gram)
        return self._runners[number]

    def _columns(self, mask: HeadMask) -> Tensor:
        features = self._trainer.features
        everything = len(mask.inputs) == features.shape[1]
        return features if everything else features.index_select(1, torch.from_numpy(mask.inputs))

    def _train_group(self, runners: list[_Runner], folds: list[int], epochs: int) -> None:
        trainer = self._trainer
        columns = [self._columns(runner.mask) for runner in runners]
        grams = [runner.gram for runner in runners if runner.gram is not None]
        gram = torch.cat(grams) if len(grams) > 1 else grams[0] if grams else None
        heads_together = trainer.grouping.heads_together(runners[0].mask, self._row_sets)
        row_sets = [self._row_sets[fold] for fold in folds]
        for group in trainer._fold_groups(row_sets, max(heads_together // len(runners), 1), len(runners)):
            heads = trainer._heads(
                [runner.mask for runner in runners],
                columns,
                gram,
                [runner.starts for runner in runners],
                len(group.folds),
            )
            places = [(runner, folds[fold]) for runner in runners for fold in group.folds]
            self._epochs_of(heads, group.plan, places, epochs)
            for individual, runner in enumerate(runners):
                weights, biases = heads.weights(individual)
                for place, fold in enumerate(group.folds):
                    runner.heads[folds[fold]] = (
                        [layer[place] for layer in weights],
                        [None if bias is None else bias[place] for bias in biases],
                    )

    def _epochs_of(
        self, heads: HeadsInTraining, plan: Any, places: list[tuple[_Runner, int]], epochs: int
    ) -> None:
        """Go on from where the heads stand, up to so many epochs; places say whose heads they are."""
        tensors = _changing(heads)
        runner, fold = places[0]
        begun = runner.epochs.get(fold, 0)
        if begun:
            for place, (runner, fold) in enumerate(places):
                saved, scale = runner.states.pop(fold)
                for tensor, value in zip(tensors, saved, strict=True):
                    tensor[place].copy_(value)
                if isinstance(heads.first, DualLayer):
                    heads.first._scale = scale
        rates = self._trainer._rates(plan.n_steps)
        losses: list[StepLoss] = []
        for epoch in range(begun, epochs):
            tracked = losses if epoch == epochs - 1 else None
            for number, step in enumerate(plan.epoch(epoch)):
                heads.step(step, rates[epoch * plan.n_steps + number], tracked)
        mean_losses = heads.mean_loss(losses).double().numpy()
        for place, (runner, fold) in enumerate(places):
            runner.epochs[fold] = epochs
            runner.losses[fold] = float(mean_losses[place])
            if epochs < self._trainer.settings.epochs:
                scale = heads.first._scale if isinstance(heads.first, DualLayer) else 1.0
                runner.states[fold] = [tensor[place].clone() for tensor in tensors], scale


def _changing(heads: HeadsInTraining) -> list[Tensor]:
    """Weights and momenta of all layers, one slice per head."""
    tensors = []
    for layer in (heads.first, *heads._upper):
        if isinstance(layer, DualLayer):
            tensors += [layer.state, layer._momentum]
        else:
            weights = layer.core._weights if isinstance(layer, GatheredLayer) else layer._weights  # type: ignore[union-attr]
            tensors += [weights.values, weights._momentum]
    return tensors


def _natural(objectives: Sequence[Objective], losses: Values) -> Values:
    """Objective values in their own direction, shape (objectives,)."""
    pairs = zip(objectives, losses, strict=True)
    return np.array([float(objective.from_loss(np.array([loss]))[0]) for objective, loss in pairs])
