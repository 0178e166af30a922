"""What is exported, as torch modules: plain tensors and standard operations, nothing of this package inside."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.heads.head import TrainedHead

if TYPE_CHECKING:
    from moevoprune.heads.ensemble import HeadEnsemble

__all__ = [
    "FusedModule",
    "HeadModule",
    "Inputs",
    "SelectedColumns",
    "compact_head",
    "module_of",
    "multiply_adds",
    "with_folded_norms",
]

Inputs = Literal["all", "active"]
Floats = npt.NDArray[np.float32]

# Rounding that folding the standardisation into the first layer may add to a hidden unit, at worst. Beyond it (a
# feature whose mean is thousands of its deviations) the standardisation stays a step of its own.
_FOLDING_ERROR = 1e-5


def compact_head(head: TrainedHead) -> TrainedHead:
    """Remove what no longer takes part in a head whose single connections were pruned; the outputs stay the same.

    A hidden unit that reads nothing is a constant and goes into the biases of the next layer; a unit that nothing
    reads goes, and so does an input. Every layer has at least one unit in the end, if need be one of zeros: not
    every runtime takes empty matrices.

    Parameters
    ----------
    head
        Any head; one without such units is returned with equal arrays.

    Returns
    -------
    TrainedHead
        With the same outputs, up to rounding, for all finite features.
    """
    head = _without_empty_layers(head)
    weights = [weight.astype(np.float64) for weight in head.weights]
    biases = [None if bias is None else bias.astype(np.float64) for bias in head.biases]
    for layer in range(len(weights) - 1):
        kept = _at_least_one(weights[layer], axis=0)
        bias, following = biases[layer], biases[layer + 1]
        if bias is not None:
            constants = np.maximum(bias[~kept], 0.0) @ weights[layer + 1][~kept]
            if constants.any():
                biases[layer + 1] = constants if following is None else following + constants
            biases[layer] = bias[kept]
        weights[layer], weights[layer + 1] = weights[layer][:, kept], weights[layer + 1][kept]
    for layer in range(len(weights) - 1, 0, -1):
        kept = _at_least_one(weights[layer], axis=1)
        if not weights[layer].any():
            # the one that stays is read by nobody either, so it need not read
            weights[layer - 1] = np.zeros_like(weights[layer - 1])
        weights[layer - 1], weights[layer] = weights[layer - 1][:, kept], weights[layer][kept]
        bias = biases[layer - 1]
        biases[layer - 1] = None if bias is None else bias[kept]
    kept = _at_least_one(weights[0], axis=1)
    return replace(
        head,
        inputs=head.inputs[kept],
        weights=tuple(weight.astype(np.float32) for weight in (weights[0][kept], *weights[1:])),
        biases=tuple(None if bias is None else bias.astype(np.float32) for bias in biases),
        mean=head.mean[kept],
        scale=head.scale[kept],
    )


def multiply_adds(head: TrainedHead | HeadEnsemble) -> int:
    """Count the multiplications with addition that a prediction for one row takes in the matrix products.

    Weights that are zero inside a dense matrix are counted too, as they are computed.

    Parameters
    ----------
    head
        A head, or an ensemble of heads.
    """
    if isinstance(head, TrainedHead):
        return sum(weight.size for weight in head.weights)
    return count_multiply_adds(head, torch.zeros(1, head.n_features))


def count_multiply_adds(module: nn.Module, example: Tensor) -> int:
    """Count the multiplications with addition in the matrix products and convolutions of one call.

    Parameters
    ----------
    module
        What is called.
    example
        Its input.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example)
    # a multiplication and an addition are two operations
    return int(counter.get_total_flops()) // 2


class HeadModule(nn.Module):
    """A head: feature rows in, class probabilities (or predicted targets in their own units) out.

    Parameters
    ----------
    head
        What to build; physically small.
    inputs
        ``"all"``: rows are as the backbone gives them, shape (rows, n_features), and the active columns are
        selected here. ``"active"``: rows hold the active columns alone, shape (rows, inputs).
    """

    inputs: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, head: TrainedHead, inputs: Inputs = "all") -> None:
        super().__init__()
        self.selects = inputs == "all" and len(head.inputs) < head.n_features
        self.folded = _folds_well(head)
        self.classifies = head.task == "classification"
        self.register_buffer("inputs", torch.from_numpy(head.inputs.astype(np.int64)), persistent=self.selects)
        self.register_buffer("mean", torch.from_numpy(head.mean.copy()), persistent=not self.folded)
        self.register_buffer("scale", torch.from_numpy(head.scale.copy()), persistent=not self.folded)
        self.layers = head.to_module(prepared=not self.folded).requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities, shape (rows, classes), or predicted targets, shape (rows, outputs)."""
        values: Tensor = features.index_select(1, self.inputs) if self.selects else features
        if not self.folded:
            values = (values - self.mean) / self.scale
        values = self.layers(values)
        return values.softmax(dim=1) if self.classifies else values


class SelectedColumns(nn.Module):
    """A module that reads whole feature rows, given their active columns alone.

    Parameters
    ----------
    module
        Reads rows of shape (rows, n_features), of which only the active columns matter.
    inputs
        The active columns, rising.
    n_features
        Length of a whole row.
    """

    places: Tensor

    def __init__(self, module: nn.Module, inputs: npt.NDArray[np.int64], n_features: int) -> None:
        super().__init__()
        self.module = module
        # place 0 is a column of zeros, for the features that nobody reads
        places = torch.zeros(n_features, dtype=torch.int64)
        places[torch.as_tensor(inputs)] = torch.arange(1, len(inputs) + 1)
        self.register_buffer("places", places)

    def forward(self, columns: Tensor) -> Tensor:
        """Output of the module for the active columns, shape (rows, inputs)."""
        output: Tensor = self.module(nn.functional.pad(columns, (1, 0)).index_select(1, self.places))
        return output


class Normalising(Protocol):
    """Anything with one mean and one deviation for each channel, in units of the full range (0..1)."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """What the result is divided by."""
        ...


class FusedModule(nn.Module):
    """Images in, the head's output out: normalisation, backbone and head in one.

    Parameters
    ----------
    network
        Prepared images to feature rows.
    preprocessing
        Whose mean and deviation the network wants.
    head
        Feature rows to output.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Normalising, head: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Output for images of the right size with values in [0, 1]; shape (images, channels, height, width)."""
        output: Tensor = self.head(self.network((images - self.mean) / self.std))
        return output


def with_folded_norms(network: nn.Module) -> nn.Module:
    """Copy a network with its batch normalisations folded into the convolutions before them.

    ONNX exporters and runtimes do that too, but in float32: it costs MobileNetV2 as many digits as all its other
    rounding. Here it is done in float64.

    Parameters
    ----------
    network
        In evaluation mode; a chain of graphs, as ``Backbone.to_module`` gives it.
    """
    from torch.fx.experimental.optimization import fuse

    parts = []
    for part in network.children():
        exact = copy.deepcopy(part).double()
        # what cannot be traced down to its convolutions stays as it is
        with suppress(Exception):
            exact = fuse(exact)
        parts.append(exact.float())
    return nn.Sequential(*parts).eval().requires_grad_(False)


def module_of(head: TrainedHead | HeadEnsemble, inputs: Inputs) -> nn.Module:
    """Build the module of a compact head, or of an ensemble, for one kind of input."""
    if isinstance(head, TrainedHead):
        return HeadModule(head, inputs).eval()
    if inputs == "active":
        return SelectedColumns(head, head.inputs, head.n_features).eval()
    return head.eval()


def _without_empty_layers(head: TrainedHead) -> TrainedHead:
    """Give layers without units, and heads without inputs, one unit of zeros."""
    weights, biases = list(head.weights), list(head.biases)
    if len(head.inputs) == 0:
        zero = np.zeros(1, np.float32)
        head = replace(head, inputs=np.zeros(1, np.int64), mean=zero, scale=zero + 1)
    for layer, weight in enumerate(weights):
        if weight.shape[0] == 0:
            weights[layer] = np.zeros((1, weight.shape[1]), np.float32)
            if layer > 0:
                weights[layer - 1] = np.zeros((len(weights[layer - 1]), 1), np.float32)
                biases[layer - 1] = None if biases[layer - 1] is None else np.zeros(1, np.float32)
    return replace(head, weights=tuple(weights), biases=tuple(biases))


def _at_least_one(weight: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.bool_]:
    """Which columns (axis 0) or rows (axis 1) are not all zero; the first where all are."""
    kept: npt.NDArray[np.bool_] = np.any(weight != 0, axis=axis)
    kept[0] |= not kept.any()
    return kept


def _folds_well(head: TrainedHead) -> bool:
    """Whether the first layer can take the standardisation in: no overflow, no loss of digits that matters."""
    weights, scale = np.abs(head.weights[0].astype(np.float64)), head.scale[:, None]
    sizes = (np.abs(head.mean.astype(np.float64)) / head.scale) @ weights
    exact = (sizes * np.finfo(np.float32).eps <= _FOLDING_ERROR).all()
    return bool(exact and (weights / scale <= np.finfo(np.float32).max).all())
