"""The population trainer: trains every masked head of a batch of individuals, on every fold, at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible, resolve_device
from moevoprune.heads.batches import BatchPlan, Step, n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.layers import DenseLayer, DualLayer, FirstLayer, GatheredLayer
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.start import StartWeights
from moevoprune.heads.stopping import EarlyStop, monitor_split

__all__ = ["TRAINER_VERSION", "Form", "HeadStack", "PopulationTrainer"]

# part of a fitness's identity: raise it with any change that alters trained weights
TRAINER_VERSION = 1

Form = Literal["auto", "dual", "gathered"]
Rows = npt.NDArray[np.int64]

# constants of the cost model, in the time of one multiply-add of a matrix product: one element read,
# changed and written in a plain pass over an array costs about as much as this many
_PASS_COST = 9.0
# the Gram matrix must fit comfortably on every device, and the choice must not depend on free memory
_LARGEST_GRAM_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class HeadStack:
    """Trained heads of one individual, one per row set, physically small.

    Attributes
    ----------
    mask
        What the heads keep.
    weights
        For each layer, shape (heads, kept inputs, kept units).
    biases
        For each layer, shape (heads, kept units), or None.
    train_loss
        Mean training loss over the last epoch trained, shape (heads,).
    epochs
        Epochs trained, shape (heads,).
    """

    mask: HeadMask
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    train_loss: npt.NDArray[np.float64]
    epochs: npt.NDArray[np.int64]

    @property
    def diverged(self) -> npt.NDArray[np.bool_]:
        """Whether a head's training loss or weights are not finite, shape (heads,)."""
        finite = np.isfinite(self.train_loss)
        for tensor in (*self.weights, *(b for b in self.biases if b is not None)):
            finite &= tensor.flatten(1).isfinite().all(1).cpu().numpy()
        diverged: npt.NDArray[np.bool_] = ~finite
        return diverged

    def to(self, dtype: torch.dtype) -> HeadStack:
        """Return the same heads in another number format, e.g. to compute more exactly with them."""
        return replace(
            self,
            weights=tuple(weight.to(dtype) for weight in self.weights),
            biases=tuple(None if bias is None else bias.to(dtype) for bias in self.biases),
        )

    def forward(self, inputs: Tensor, head: int) -> tuple[Tensor, Tensor]:
        """Outputs and last hidden representation of one head.

        Parameters
        ----------
        inputs
            Prepared features restricted to ``mask.inputs``, shape (rows, kept inputs).
        head
            Which head.

        Returns
        -------
        outputs, hidden
            Shapes (rows, outputs) and (rows, kept units); a head without hidden layers returns its outputs
            twice.
        """
        values = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = values
            values = values @ weight[head]
            if bias is not None:
                values = values + bias[head]
            if layer < len(self.weights) - 1:
                values = values.clamp_min(0.0)
        return values, hidden if len(self.weights) > 1 else values

    def outputs_of_all(self, inputs: Tensor) -> Tensor:
        """Outputs of every head on the same rows.

        Parameters
        ----------
        inputs
            Prepared features restricted to ``mask.inputs``, shape (rows, kept inputs).

        Returns
        -------
        Tensor, shape (heads, rows, outputs)
        """
        n_heads, n_inputs, units = self.weights[0].shape
        # the first layers side by side are one product, which is faster than one for each
        side_by_side = self.weights[0].transpose(0, 1).reshape(n_inputs, n_heads * units)
        values = (inputs @ side_by_side).view(len(inputs), n_heads, units).transpose(0, 1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                values = values.clamp_min(0.0) @ weight
            if bias is not None:
                values = values + bias[:, None]
        return values


class PopulationTrainer:
    """Trains masked heads of many individuals on fixed features.

    Every individual's heads are what :func:`moevoprune.heads.reference.train_reference_head` computes alone:
    same start, same batches, same stopping. They do not depend on the other individuals of the batch.

    Parameters
    ----------
    features
        Prepared (standardised where asked for) features of the training part, shape (rows, features).
    targets
        Class labels, shape (rows,), integers; or prepared regression targets, shape (rows, outputs), floats.
    shape
        Widths of the dense head.
    settings
        How heads are trained.
    seed
        Seed of start weights and row order.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    dtype
        ``torch.float32`` or ``torch.float64``.
    form
        ``"auto"`` chooses per individual, by cost, between the exact ``"dual"`` form of the first layer and the
        ``"gathered"`` one (ordinary weights of the active columns). Weight decay, Adam and single-connection
        masks have no dual form here and are always gathered.
    """

    def __init__(
        self,
        features: npt.NDArray[np.floating],
        targets: npt.NDArray[np.generic],
        shape: HeadShape,
        settings: HeadSettings,
        seed: int,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        form: Form = "auto",
    ) -> None:
        self.shape = shape
        self.settings = settings
        self.device = resolve_device(device)
        self.dtype = dtype
        self.form = form
        self._seed = seed
        self._start = StartWeights(shape, settings, seed)
        self.features = torch.tensor(features, dtype=dtype, device=self.device)
        self.is_classification = np.issubdtype(targets.dtype, np.integer)
        if self.is_classification:
            labels = torch.tensor(targets, dtype=torch.int64, device=self.device)
            self._labels: npt.NDArray[np.generic] | None = targets
            self._targets = torch.nn.functional.one_hot(labels, shape.n_outputs).to(dtype)
        else:
            self._labels = None
            self._targets = torch.tensor(targets, dtype=dtype, device=self.device)
        self._plans: dict[tuple[bytes, ...], BatchPlan] = {}
        self._known_rates: dict[int, list[float]] = {}
        self._whole_gram: Tensor | None = None

    def fit(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]) -> Iterator[HeadStack]:
        """Train one head per mask and row set.

        Parameters
        ----------
        masks
            One per individual.
        row_sets
            Row numbers that a head trains on: one set per fold, at least one row each.

        Yields
        ------
        HeadStack
            Per mask, in order, as soon as it is trained; its heads follow ``row_sets``.
        """
        groups = self._fold_groups(row_sets)
        # One individual at a time keeps all its folds' weights in the cache of a CPU core, and makes
        # independence from the rest of the batch true by construction.
        for mask in masks:
            with reproducible(self.device):
                stack = self._fit_individual(mask, row_sets, groups)
            yield stack

    def chosen_form(self, mask: HeadMask, n_heads: int, rows_per_head: int) -> Literal["dual", "gathered"]:
        """Cheaper exact form for a mask; a function of the mask and the settings alone."""
        settings = self.settings
        if settings.optimiser != "sgd" or settings.weight_decay or mask.connections is not None:
            return "gathered"
        if self.form != "auto":
            return self.form
        n_rows, n_active = self.features.shape[0], len(mask.inputs)
        if n_rows**2 * 8 > _LARGEST_GRAM_BYTES:
            return "gathered"
        units = len(mask.hidden[0]) if mask.hidden else self.shape.n_outputs
        batch = min(settings.batch_size, rows_per_head)
        steps = n_heads * settings.epochs * n_steps(rows_per_head, batch)
        gathered = steps * n_active * units * (2 * batch + 2 * _PASS_COST)
        dual = steps * n_rows * units * (batch + _PASS_COST) + (n_heads + 1) * n_active * n_rows * units
        if n_active < self.shape.n_features:
            dual += n_rows**2 * n_active
        return "dual" if dual < gathered else "gathered"

    def _fold_groups(self, row_sets: Sequence[Rows]) -> list[_FoldGroup]:
        """Folds that take the same number of steps per epoch can share every step."""
        split = [self._training_rows(rows) for rows in row_sets]
        by_steps: dict[int, list[int]] = {}
        for fold, (rows, _) in enumerate(split):
            by_steps.setdefault(n_steps(len(rows), self.settings.batch_size), []).append(fold)
        return [
            _FoldGroup(folds, self._plan([split[fold][0] for fold in folds]), [split[fold][1] for fold in folds])
            for folds in by_steps.values()
        ]

    def _training_rows(self, rows: Rows) -> tuple[Rows, Rows]:
        if self.settings.early_stop == "validation":
            return monitor_split(rows, self._labels, self._seed)
        return rows, rows[:0]

    def _plan(self, row_sets: list[Rows]) -> BatchPlan:
        key = tuple(rows.tobytes() for rows in row_sets)
        if key not in self._plans:
            self._plans[key] = BatchPlan(row_sets, self._targets, self.settings.batch_size, self._seed)
        return self._plans[key]

    def _fit_individual(self, mask: HeadMask, row_sets: Sequence[Rows], groups: list[_FoldGroup]) -> HeadStack:
        rows_per_head = max(len(rows) for rows in row_sets)
        form = self.chosen_form(mask, len(row_sets), rows_per_head)
        inputs = torch.from_numpy(mask.inputs).to(self.device)
        everything = len(mask.inputs) == self.shape.n_features
        columns = self.features if everything else self.features.index_select(1, inputs)
        gram = None
        if form == "dual":
            gram = self._gram_of_everything() if everything else columns @ columns.T
        start = [
            torch.tensor(weights, dtype=self.dtype, device=self.device) for weights in self._start.weights(mask)
        ]
        parts = []
        for group in groups:
            heads = _Heads(self, mask, columns, gram, start, len(group.folds))
            parts.append(heads.train(group.plan, group.monitor_rows))
        order = np.argsort(np.concatenate([np.array(group.folds) for group in groups]))
        return _merge(mask, parts, order)

    def _rates(self, n_steps: int) -> list[float]:
        if n_steps not in self._known_rates:
            self._known_rates[n_steps] = self.settings.learning_rates(n_steps)
        return self._known_rates[n_steps]

    def _gram_of_everything(self) -> Tensor:
        if self._whole_gram is None:
            self._whole_gram = self.features @ self.features.T
        return self._whole_gram


@dataclass(frozen=True, eq=False)
class _FoldGroup:
    """Folds that share their steps: their numbers, their batches, and the rows that stop each."""

    folds: list[int]
    plan: BatchPlan
    monitor_rows: list[Rows]


@dataclass(frozen=True, eq=False)
class _Trained:
    weights: list[Tensor]
    biases: list[Tensor | None]
    train_loss: npt.NDArray[np.float64]
    epochs: npt.NDArray[np.int64]


class _Heads:
    """Heads of one individual on folds that share their steps, while they train.

    With a Gram matrix of the columns the first layer is in the dual form, without one in the gathered form.
    """

    def __init__(
        self,
        trainer: PopulationTrainer,
        mask: HeadMask,
        columns: Tensor,
        gram: Tensor | None,
        start: list[Tensor],
        n_heads: int,
    ) -> None:
        settings = trainer.settings
        self._settings = settings
        self._classification = trainer.is_classification
        self._targets = trainer._targets
        self._rates = trainer._rates
        self._n_heads = n_heads
        connections: list[Tensor | None] = [None] * len(start)
        for layer, kept in enumerate(mask.connections or ()):
            connections[layer] = torch.tensor(kept, dtype=trainer.dtype, device=trainer.device)
        has_bias = [settings.bias] * (len(start) - 1) + [True]
        self._first: FirstLayer
        if gram is not None:
            self._first = DualLayer(columns, gram, start[0], n_heads, has_bias[0], settings)
        else:
            self._first = GatheredLayer(columns, start[0], n_heads, has_bias[0], settings, connections[0])
        self._upper = [
            DenseLayer(weights, n_heads, bias, settings, kept)
            for weights, bias, kept in zip(start[1:], has_bias[1:], connections[1:], strict=True)
        ]

    def train(self, plan: BatchPlan, monitor_rows: list[Rows]) -> _Trained:
        """Run the epochs and return the weights that early stopping says to keep."""
        settings = self._settings
        rates = self._rates(plan.n_steps)
        layers: list[FirstLayer | DenseLayer] = [self._first, *self._upper]
        stop = EarlyStop(settings, self._n_heads, [layer.state for layer in layers])
        for epoch in range(settings.epochs):
            # the running loss is wanted by early stopping, and as a figure of the last epoch
            track = settings.early_stop != "none" or epoch == settings.epochs - 1
            losses = self._train_epoch(plan, epoch, rates, track)
            if track:
                monitored = losses
                if settings.early_stop == "validation":
                    monitored = self._monitor(monitor_rows)
                if stop.update(epoch, losses, monitored):
                    break
        stop.restore()
        pairs = [layer.weights() for layer in layers]
        return _Trained([w for w, _ in pairs], [b for _, b in pairs], stop.train_loss, stop.epochs)

    def _train_epoch(self, plan: BatchPlan, epoch: int, rates: list[float], track: bool) -> Tensor:
        """Train one epoch and return each head's mean loss over it, if that is to be tracked."""
        losses = []
        for number, step in enumerate(plan.epoch(epoch)):
            rate = rates[epoch * plan.n_steps + number]
            activations, outputs = self._forward(step)
            if self._classification:
                value = outputs.log_softmax(2)
                gradient = value.exp().sub_(step.targets).mul_(step.weight)
            else:
                value = outputs.sub_(step.targets)
                gradient = value * (step.weight * (2.0 / outputs.shape[2]))
            if track:
                # summed once per epoch: per step it would cost as much as the small products
                losses.append((value, step))
            for layer, hidden in zip(reversed(self._upper), reversed(activations), strict=True):
                below = layer.backward(gradient, hidden)
                layer.descend(hidden, gradient, rate)
                gradient = below
            self._first.descend(step, gradient, rate)
        return self._mean_loss(losses) if track else self._targets.new_full((self._n_heads,), float("nan"))

    def _mean_loss(self, pairs: list[tuple[Tensor, Step]]) -> Tensor:
        """Mean loss of each head over steps, from log-probabilities or differences to the targets."""
        values = torch.cat([value for value, _ in pairs], dim=1)
        real = torch.cat([step.real for _, step in pairs], dim=1)
        if self._classification:
            targets = torch.cat([step.targets for _, step in pairs], dim=1)
            losses = -(values * targets).sum(2)
        else:
            losses = values.square().mean(2)
        return (losses * real).sum(1) / real.sum(1)

    def _forward(self, step: Step) -> tuple[list[Tensor], Tensor]:
        """Hidden activations, each with its column of ones where the next layer has a bias, and outputs."""
        values = self._first.forward(step)
        activations = []
        for layer in self._upper:
            hidden = layer.activate(values)
            activations.append(hidden)
            values = layer.forward(hidden)
        return activations, values

    def _monitor(self, monitor_rows: list[Rows]) -> Tensor:
        """Mean loss on each head's monitor rows."""
        step = Step.side_by_side(monitor_rows, self._targets)
        _, outputs = self._forward(step)
        return self._mean_loss(
            [(outputs.log_softmax(2) if self._classification else outputs - step.targets, step)]
        )


def _merge(mask: HeadMask, parts: list[_Trained], order: npt.NDArray[np.int64]) -> HeadStack:
    """Put heads of several fold groups back into the order of the folds."""
    index = torch.from_numpy(order).to(parts[0].weights[0].device)

    def join(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors).index_select(0, index)

    weights = tuple(join(list(layer)) for layer in zip(*(part.weights for part in parts), strict=True))
    biases = tuple(
        None if layer[0] is None else join(cast("list[Tensor]", list(layer)))
        for layer in zip(*(part.biases for part in parts), strict=True)
    )
    return HeadStack(
        mask,
        weights,
        biases,
        np.concatenate([part.train_loss for part in parts])[order],
        np.concatenate([part.epochs for part in parts])[order],
    )
