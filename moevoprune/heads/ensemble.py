"""Several trained heads that vote, stacked into one torch module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.heads.head import TrainedHead

__all__ = ["VOTINGS", "HeadEnsemble", "Voting", "combine", "head_is_sound", "normalised_weights"]

Floats = npt.NDArray[np.float32]
Voting = Literal["soft", "hard"]

VOTINGS: tuple[Voting, ...] = ("soft", "hard")

# shares of votes that differ by less are equal: sums of weights in float32 are off by about 1e-7
_TIE = 1e-6
# numbers of one layer's units over all members and rows at a time, 128 MB
_MOST_NUMBERS = 2**25


class HeadEnsemble(torch.nn.Module):
    """Trained heads on the same features that vote.

    The members are stacked: the features that any of them reads are gathered and standardised once, one matrix
    product computes the first layer of all members (with zeros where a member does not read a feature), and one
    batched product each later layer. That costs little more than a single head that reads as much.

    Parameters
    ----------
    members
        At least one; of one task, on the same number of features, with equally many layers and outputs. Their
        widths, inputs and standardisation may differ.
    weights
        Weight of each member, shape (members,), at least 0 and not all 0; they are divided by their sum. None for
        equal ones.
    voting
        ``"soft"``: the weighted mean of the members' class probabilities, in regression of their predictions.
        ``"hard"``: the weighted share of votes of each class; classification only.

    Attributes
    ----------
    task
        ``"classification"`` or ``"regression"``.
    voting
        As given.
    weights
        Normalised, shape (members,), float64.
    n_members
        Number of members.
    n_features
        Width of the rows that the ensemble is given.
    inputs
        Sorted indices of the features that at least one member reads, shape (union,).
    n_outputs
        Classes, or regression targets.
    n_classes
        Classes; 0 in regression.
    n_parameters
        Non-zero weights, and biases, of the members; a member given twice counts once.

    Raises
    ------
    InputError
        The members do not fit together, one has diverged, the weights cannot be used, or regression heads are to
        vote hard.

    Notes
    -----
    Votes that tie are decided by the mean probability (weighted as the votes are), then for the lowest class. So
    that the largest output is the prediction in every case, here as in an exported module, the winner's share of
    votes is raised by a millionth.

    A row so far from the training rows that a member's outputs overflow has no prediction: its probabilities or
    shares are NaN, its label is -1.
    """

    _read: Tensor
    _centre: Tensor
    _spread: Tensor
    _shares: Tensor
    _places: Tensor

    def __init__(
        self,
        members: Sequence[TrainedHead],
        weights: Sequence[float] | npt.NDArray[Any] | None = None,
        voting: Voting = "soft",
    ) -> None:
        super().__init__()
        heads = list(members)
        _check_members(heads)
        if voting not in VOTINGS:
            raise InputError(f"voting = {voting!r}: use one of {', '.join(VOTINGS)}")
        self.task = heads[0].task
        if voting == "hard" and self.task == "regression":
            raise InputError("voting = 'hard': regression heads predict numbers, not classes: use soft")
        self.voting: Voting = voting
        self.weights = normalised_weights(weights, len(heads))
        self.n_members = len(heads)
        self.n_features = heads[0].n_features
        self.n_outputs = heads[0].widths[-1]
        self.n_classes = 0 if self.task == "regression" else self.n_outputs
        self.inputs: npt.NDArray[np.int64] = np.unique(np.concatenate([head.inputs for head in heads]))
        self.n_parameters = sum(head.n_parameters for head in {id(head): head for head in heads}.values())
        # matrices without rows are trouble to exporters: where nothing is read, one feature is, with weight 0
        read = self.inputs if len(self.inputs) else np.zeros(1, np.int64)
        centre, spread = _shared_scaling(heads, read)
        self._buffer("_read", read)
        self._buffer("_centre", centre)
        self._buffer("_spread", spread)
        self._buffer("_shares", self.weights.astype(np.float32)[:, None, None])
        self._n_layers = len(heads[0].weights)
        weight, bias = _first_layer(heads, read, centre, spread)
        self._buffer("_weight0", weight)
        self._buffer("_bias0", bias)
        widths = [head.widths[1] for head in heads]
        self._widest = max(*widths, 1)
        # places of the units in a stack of equal widths; behind the last unit comes a zero
        self._even = all(width == self._widest for width in widths)
        self._buffer("_places", _places(widths, self._widest))
        for layer in range(1, self._n_layers):
            weight, bias = _later_layer(heads, layer)
            self._buffer(f"_weight{layer}", weight)
            self._buffer(f"_bias{layer}", bias)
        self.eval()

    def forward(self, features: Tensor) -> Tensor:
        """Compute what the ensemble predicts.

        Parameters
        ----------
        features
            Rows as the backbone gives them, all of its features, shape (rows, n_features).

        Returns
        -------
        Tensor, shape (rows, outputs)
            Class probabilities (soft) or shares of votes (hard); in regression predictions in the targets' units.
            Not finite in rows for which a member's outputs are not.
        """
        return combine(self.member_outputs(features), self._shares, self.voting, self.task)

    def member_outputs(self, features: Tensor) -> Tensor:
        """Compute every member's outputs in one pass.

        Parameters
        ----------
        features
            As in :meth:`forward`.

        Returns
        -------
        Tensor, shape (members, rows, outputs)
            Logits, or predictions in the targets' units.
        """
        values = (features.index_select(1, self._read) - self._centre) / self._spread
        values = values @ self.get_buffer("_weight0") + self.get_buffer("_bias0")
        if not self._even:
            values = torch.nn.functional.pad(values, (0, 1)).index_select(1, self._places)
        values = values.reshape(-1, self.n_members, self._widest).transpose(0, 1)
        for layer in range(1, self._n_layers):
            values = torch.bmm(values.relu(), self.get_buffer(f"_weight{layer}"))
            values = values + self.get_buffer(f"_bias{layer}")
        return values

    def predict(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.generic]:
        """Class labels, shape (rows,), or predicted targets, shape (rows, outputs).

        The label is -1 in rows for which a member's outputs are not finite, as in a front's predictions; targets
        are not finite there.

        Parameters
        ----------
        features
            Rows as the backbone gives them, shape (rows, n_features).

        Raises
        ------
        InputError
            The rows have another width.
        """
        outputs = self._in_pieces(self, features)
        if self.task == "regression":
            return outputs
        return np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1)

    def predict_proba(self, features: npt.NDArray[np.floating]) -> Floats:
        """Class probabilities, or with hard voting shares of votes; shape (rows, classes).

        NaN in rows for which a member's outputs are not finite.

        Raises
        ------
        InputError
            The heads predict numbers, not classes, or the rows have another width.
        """
        if self.task == "regression":
            raise InputError("regression heads have no class probabilities: use predict")
        return self._in_pieces(self, features)

    def predict_members(self, features: npt.NDArray[np.floating]) -> Floats:
        """Every member's logits, or predicted targets, shape (members, rows, outputs).

        Raises
        ------
        InputError
            The rows have another width.
        """
        return self._in_pieces(self.member_outputs, features)

    def score(self, features: npt.NDArray[np.floating], targets: npt.NDArray[Any]) -> float:
        """Accuracy, or R² averaged over the targets, as scikit-learn's ``score``.

        Rows for which a member's outputs are not finite are wrong; in regression one makes R² negative infinity.

        Parameters
        ----------
        features
            Rows as the backbone gives them, shape (rows, n_features).
        targets
            Class labels, shape (rows,), or targets, shape (rows, outputs).

        Raises
        ------
        InputError
            The rows have another width, or the targets do not fit them.
        """
        from sklearn.metrics import accuracy_score, r2_score

        predicted = self.predict(features)
        targets = np.asarray(targets)
        if self.task == "regression" and targets.ndim == 1:
            targets = targets[:, None]
        if targets.shape != predicted.shape or len(targets) == 0:
            raise InputError(f"targets have shape {targets.shape}, but the predictions {predicted.shape}")
        if self.task == "classification":
            return float(accuracy_score(targets, predicted))
        if not np.isfinite(predicted).all():
            return -math.inf
        # squares of float32 may be too large for float32
        return float(r2_score(targets.astype(np.float64), predicted.astype(np.float64)))

    def extra_repr(self) -> str:
        """What ``print`` says of the module."""
        return (
            f"{self.n_members} members, {self.voting} voting, {len(self.inputs)} of {self.n_features} features, "
            f"{self.n_parameters} parameters, {self.n_outputs} outputs"
        )

    def _in_pieces(self, compute: Callable[[Tensor], Tensor], features: npt.NDArray[np.floating]) -> Floats:
        """Apply something to rows, so many at a time that they fit in memory."""
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise InputError(
                f"features have shape {features.shape}, but this ensemble reads rows of {self.n_features} features"
            )
        widest = max(self._widest, *(self.get_buffer(f"_bias{i}").shape[-1] for i in range(1, self._n_layers)), 1)
        step = max(_MOST_NUMBERS // (self.n_members * widest), 1)
        # at least one piece, so that no rows give no predictions
        starts = range(0, max(len(features), 1), step)
        with reproducible(self._centre.device):
            pieces = [
                # a copy, since features are read-only
                compute(torch.from_numpy(features[start : start + step].astype(np.float32)).to(self._centre)).cpu()
                for start in starts
            ]
        outputs: Floats = torch.cat(pieces, dim=-2).numpy()
        return outputs

    def _buffer(self, name: str, array: npt.NDArray[Any]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))


def combine(
    outputs: Tensor, shares: Tensor, voting: Voting, task: Literal["classification", "regression"]
) -> Tensor:
    """Let outputs of several heads vote; see :class:`HeadEnsemble` for what ties do.

    Parameters
    ----------
    outputs
        Logits or predicted targets, shape (members, rows, outputs).
    shares
        Weights with a sum of 1, shape (members, 1, 1).
    voting
        ``"soft"`` or ``"hard"``; in regression soft.
    task
        ``"classification"`` or ``"regression"``.

    Returns
    -------
    Tensor, shape (rows, outputs)
        Class probabilities, shares of votes, or predicted targets. Where an output of a member is not finite, the
        row's probabilities or shares are NaN.
    """
    if task == "regression":
        return (outputs * shares).sum(dim=0)
    mean = (outputs.softmax(dim=-1) * shares).sum(dim=0)
    mean = torch.where(outputs.isfinite().all(dim=-1).all(dim=0)[:, None], mean, torch.nan)
    if voting == "soft":
        return mean
    n_classes = outputs.shape[-1]
    cast = torch.nn.functional.one_hot(outputs.argmax(dim=-1), n_classes).to(mean.dtype)
    votes = (cast * shares).sum(dim=0)
    tied = votes >= votes.amax(dim=-1, keepdim=True) - _TIE
    # probabilities are at least 0
    winner = torch.where(tied, mean, -1.0).argmax(dim=-1)
    votes = (votes + _TIE * torch.nn.functional.one_hot(winner, n_classes).to(mean.dtype)) / (1 + _TIE)
    return torch.where(mean.isnan(), mean, votes)


def head_is_sound(head: TrainedHead) -> bool:
    """Whether all weights and biases of a head are finite: those of a head that diverged are not."""
    arrays = [*head.weights, *(bias for bias in head.biases if bias is not None)]
    return all(bool(np.isfinite(array).all()) for array in arrays)


def normalised_weights(
    weights: Sequence[float] | npt.NDArray[Any] | None, n_members: int
) -> npt.NDArray[np.float64]:
    """Divide weights by their sum.

    Parameters
    ----------
    weights
        At least 0 and not all 0, shape (n_members,); None for equal ones.
    n_members
        How many there are to be.

    Raises
    ------
    InputError
        They cannot be used.
    """
    if weights is None:
        return np.full(n_members, 1 / n_members)
    try:
        given = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("the weights of an ensemble are no numbers: give one for each member") from None
    if given.shape != (n_members,):
        raise InputError(
            f"the weights of an ensemble have shape {given.shape}: give one for each of its {n_members} members"
        )
    if not (np.isfinite(given).all() and (given >= 0).all() and given.any()):
        raise InputError("the weights of an ensemble must be finite, at least 0 and not all 0")
    # by the largest first: the sum of large ones may overflow
    given = given / given.max()
    normalised: npt.NDArray[np.float64] = given / given.sum()
    return normalised


def _check_members(heads: list[TrainedHead]) -> None:
    if not heads:
        raise InputError("an ensemble needs at least one member")
    first = heads[0]
    for number, head in enumerate(heads):
        alike = (head.task, head.n_features, len(head.weights), head.widths[-1]) == (
            first.task,
            first.n_features,
            len(first.weights),
            first.widths[-1],
        )
        if not alike:
            raise InputError(
                f"member {number} of the ensemble has another task, other features, layers or outputs than the "
                "first: only heads of one problem can vote together"
            )
        if not head_is_sound(head):
            raise InputError(f"member {number} of the ensemble has diverged: leave it out")


def _shared_scaling(heads: list[TrainedHead], read: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean and scale of each feature, from the first member that reads it."""
    centre, spread = np.zeros(len(read), np.float32), np.ones(len(read), np.float32)
    for head in reversed(heads):
        places = np.searchsorted(read, head.inputs)
        centre[places], spread[places] = head.mean, head.scale
    return centre, spread


def _first_layer(
    heads: list[TrainedHead], read: npt.NDArray[np.int64], centre: Floats, spread: Floats
) -> tuple[Floats, Floats]:
    """Weights (read features, units of all members) and biases on the shared standardisation.

    A member with its own standardisation has the difference folded in; for the others the weights stay as they
    are, so that features with a mean far from 0 lose no digits.
    """
    total = sum(head.widths[1] for head in heads)
    weights, biases = np.zeros((len(read), total), np.float32), np.zeros(total, np.float32)
    start = 0
    for head in heads:
        places = np.searchsorted(read, head.inputs)
        weight, bias = _output_scaled(head, 0)
        scale = head.scale.astype(np.float64)
        shift = (centre[places].astype(np.float64) - head.mean) / scale
        units = slice(start, start + weight.shape[1])
        start = units.stop
        biases[units] = bias + shift @ weight
        weights[places, units] = weight * (spread[places] / scale)[:, None]
    return weights, biases


def _later_layer(heads: list[TrainedHead], layer: int) -> tuple[Floats, Floats]:
    """Weights (members, inputs, units) and biases (members, 1, units), padded with zeros."""
    layers = [_output_scaled(head, layer) for head in heads]
    n_in, n_out = (max(*(weight.shape[axis] for weight, _ in layers), 1) for axis in (0, 1))
    weights = np.zeros((len(heads), n_in, n_out), np.float32)
    biases = np.zeros((len(heads), 1, n_out), np.float32)
    for member, (weight, bias) in enumerate(layers):
        weights[member, : weight.shape[0], : weight.shape[1]] = weight
        biases[member, 0, : len(bias)] = bias
    return weights, biases


def _output_scaled(head: TrainedHead, layer: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """One layer in float64; the last one of regression gives the targets in their own units."""
    weight = head.weights[layer].astype(np.float64)
    given = head.biases[layer]
    bias = np.zeros(weight.shape[1]) if given is None else given.astype(np.float64)
    if layer == len(head.weights) - 1 and head.target_scale is not None and head.target_mean is not None:
        weight, bias = weight * head.target_scale, bias * head.target_scale + head.target_mean
    return weight, bias


def _places(widths: list[int], widest: int) -> npt.NDArray[np.int64]:
    """Where each unit of the padded stack stands among the units of all members; past them for padding."""
    places = np.full((len(widths), widest), sum(widths), dtype=np.int64)
    start = 0
    for member, width in enumerate(widths):
        places[member, :width] = np.arange(start, start + width)
        start += width
    return places.reshape(-1)
