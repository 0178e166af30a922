"""Trained heads of one individual: one for each set of rows it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.heads.encodings import HeadMask

__all__ = ["HeadStack", "StackArrays"]

StackArrays = tuple[
    list[npt.NDArray[np.floating]],
    list["npt.NDArray[np.floating] | None"],
    npt.NDArray[np.float64],
    npt.NDArray[np.int64],
]


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

    def on(self, device: torch.device) -> HeadStack:
        """Return the same heads on another device."""
        return replace(
            self,
            weights=tuple(weight.to(device) for weight in self.weights),
            biases=tuple(None if bias is None else bias.to(device) for bias in self.biases),
        )

    def to_arrays(self) -> StackArrays:
        """Everything but the mask as arrays, which travel between processes faster than tensors do."""
        return (
            [weight.cpu().numpy() for weight in self.weights],
            [None if bias is None else bias.cpu().numpy() for bias in self.biases],
            self.train_loss,
            self.epochs,
        )

    @classmethod
    def from_arrays(cls, mask: HeadMask, arrays: StackArrays) -> HeadStack:
        """Put together what :meth:`to_arrays` gave, on the CPU."""
        weights, biases, train_loss, epochs = arrays
        return cls(
            mask,
            # copies: a product's last digits may depend on how memory is aligned, which NumPy's is less
            tuple(torch.tensor(weight) for weight in weights),
            tuple(None if bias is None else torch.tensor(bias) for bias in biases),
            train_loss,
            epochs,
        )

    @classmethod
    def merged(cls, parts: Sequence[HeadStack], places: Sequence[int]) -> HeadStack:
        """Put heads of one individual together that were trained apart.

        Parameters
        ----------
        parts
            Heads of the same mask, on the same device; at least one part.
        places
            For each head of the first part, then of the second and so on, its place among all heads.
        """
        order = np.argsort(places)
        index = torch.from_numpy(order).to(parts[0].weights[0].device)

        def join(tensors: list[Tensor]) -> Tensor:
            return torch.cat(tensors).index_select(0, index)

        return cls(
            parts[0].mask,
            tuple(join(list(layer)) for layer in zip(*(part.weights for part in parts), strict=True)),
            tuple(
                None if layer[0] is None else join(cast("list[Tensor]", list(layer)))
                for layer in zip(*(part.biases for part in parts), strict=True)
            ),
            np.concatenate([part.train_loss for part in parts])[order],
            np.concatenate([part.epochs for part in parts])[order],
        )

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
                # not clamp_min, whose derivative at 0 is 1 in some versions of PyTorch: ODIN's step follows it
                values = values.relu()
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
        values = inputs.expand(len(self.weights[0]), *inputs.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer > 0:
                values = values.clamp_min_(0.0)
            # with few outputs, the product of the transposed is faster
            values = torch.bmm(weight.mT, values.mT).mT if layer == len(self.weights) - 1 else values @ weight
            if bias is not None:
                values = values + bias[:, None]
        return values
