"""FLOPs and parameters of a network without some filters, as torch-pruning counts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from moevoprune.filters.cutting import check_cutting, cut, trial_mask
from moevoprune.filters.graph import Call, FilterGraph, is_depthwise

__all__ = ["NetworkCosts", "count"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def count(network: nn.Module, example: Tensor) -> tuple[int, int]:
    """FLOPs (multiply-accumulates) for one image and parameters, counted by torch-pruning.

    Parameters
    ----------
    network
        Any network that torch-pruning can run.
    example
        An input, shape (n, channels, height, width); the first image of it is used.
    """
    example = example[:1].to(next(network.parameters()).device)
    flops, parameters = tp.utils.count_ops_and_params(network, example)
    return int(flops), int(parameters)


@dataclass(frozen=True, eq=False)
class _Term:
    """``weight`` times the channels left on one side of a module, or the product of those of two sides.

    ``one`` and ``other`` are numbers of sides; None stands for 1.
    """

    weight: float
    one: int | None
    other: int | None


class NetworkCosts:
    """FLOPs and parameters of many masks at once.

    Each module's count is a product of the channels left on its sides, so that masks need not be cut. The counts
    are compared with torch-pruning's own on a network that was cut; where they differ (modules whose costs follow
    another rule) every mask is cut and counted.

    Parameters
    ----------
    graph
        The filters of the network.
    network
        The network.
    smaller
        What :func:`moevoprune.filters.cutting.check_cutting` gave; None to make it.

    Attributes
    ----------
    flops, parameters
        Of the whole network.
    closed
        Whether masks are counted without cutting.
    """

    def __init__(self, graph: FilterGraph, network: nn.Module, smaller: nn.Module | None = None) -> None:
        self._graph = graph
        self._network = network
        self.flops, self.parameters = count(network, graph.example)
        self._sides: dict[tuple[str, str], int] = {}
        self._totals: list[int] = []
        self._readers: list[tuple[int, int]] = []
        self._flops_terms = self._terms_of_flops()
        self._parameter_terms = self._terms_of_parameters()
        self._spread = np.zeros((graph.n_bits, len(self._totals)))
        for side, bit in self._readers:
            self._spread[bit, side] += 1
        whole = np.array(self._totals, np.float64)[None]
        # what no term knows stays as it is
        self._fixed = np.array([self.flops, self.parameters]) - self._terms(whole)
        smaller = smaller or check_cutting(graph, network)
        wanted = count(smaller, graph.example)
        self.closed = True
        (found,) = self(trial_mask(graph)[None])
        self.closed = bool((found == wanted).all())

    def __call__(self, masks: Bits) -> Values:
        """FLOPs for one image, and parameters, of masks.

        Parameters
        ----------
        masks
            Shape (n, n_bits); at least one filter of each layer.

        Returns
        -------
        ndarray, shape (n, 2)
        """
        if not self.closed:
            smaller = (cut(self._graph, self._network, mask) for mask in masks)
            counts = [count(network, self._graph.example) for network in smaller]
            return np.array(counts, np.float64).reshape(-1, 2)
        left = np.array(self._totals) - (~masks).astype(np.float64) @ self._spread
        remaining: Values = np.rint(self._fixed + self._terms(left))
        return remaining

    def _terms(self, left: Values) -> Values:
        """FLOPs and parameters that terms know of, shape (n, 2), by the channels left on each side."""
        return np.stack([_sum(self._flops_terms, left), _sum(self._parameter_terms, left)], axis=1)

    def _terms_of_flops(self) -> list[_Term]:
        terms = []
        for call in self._graph.calls:
            module = self._network.get_submodule(call.module)
            positions = int(np.prod(call.makes[2:]))
            if isinstance(module, _ConvNd):
                one, other = self._ends(call.module, module)
                kernel = int(np.prod(module.kernel_size))
                if other is None:
                    terms.append(_Term(kernel * positions, one, None))
                else:
                    terms.append(_Term(kernel * positions / module.groups, one, other))
                terms.append(_Term(positions * (module.bias is not None), one, None))
            elif isinstance(module, nn.Linear):
                one, other = self._ends(call.module, module)
                rows = int(np.prod(call.reads[1:-1]))
                terms.append(_Term(rows, one, other))
                terms.append(_Term(module.bias is not None, one, None))
            elif type(module) in tp.utils.op_counter.MODULES_MAPPING:
                terms.append(self._elementwise(call, module))
        return terms

    def _terms_of_parameters(self) -> list[_Term]:
        terms = []
        for name, module in self._network.named_modules():
            if isinstance(module, _ConvNd | nn.Linear):
                one, other = self._ends(name, module)
                size = int(np.prod(getattr(module, "kernel_size", ())))
                terms.append(_Term(size / getattr(module, "groups", 1) if other is not None else size, one, other))
                terms.append(_Term(module.bias is not None, one, None))
            elif isinstance(module, _BatchNorm) and module.affine:
                terms.append(_Term(2, self._side(name, "both", module.num_features), None))
        return terms

    def _ends(self, name: str, module: nn.Module) -> tuple[int, int | None]:
        """Sides of a convolution or linear layer: what it makes, what it reads; None where that is the same."""
        if isinstance(module, _ConvNd):
            if is_depthwise(module):
                return self._side(name, "both", module.out_channels), None
            sizes = module.out_channels, module.in_channels
        else:
            sizes = module.out_features, module.in_features  # type: ignore[assignment]
        return self._side(name, "out", sizes[0]), self._side(name, "in", sizes[1])

    def _side(self, name: str, side: str, channels: int) -> int:
        """Number of a side, with the bits that its channels go with."""
        if (name, side) not in self._sides:
            self._sides[name, side] = self._new_side(channels)
            for layer in self._graph.layers:
                for site in layer.sites:
                    if site.module == name and site.side == side:
                        self._readers += [(self._sides[name, side], int(bit)) for bit in site.bits]
        return self._sides[name, side]

    def _new_side(self, channels: int) -> int:
        self._totals.append(channels)
        return len(self._totals) - 1

    def _elementwise(self, call: Call, module: nn.Module) -> _Term:
        """FLOPs of activations, pools and norms: their elements, each some times."""
        shape = call.reads if isinstance(module, _Pooling | _BatchNorm) else call.makes
        side = self._new_side(call.makes[1])
        for site in call.sites:
            self._readers += [(side, int(bit)) for bit in site.bits]
        times = 2 if isinstance(module, _BatchNorm) and module.affine else 1
        return _Term(times * int(np.prod(shape[2:])), side, None)


_Pooling = (
    nn.modules.pooling._MaxPoolNd
    | nn.modules.pooling._AvgPoolNd
    | nn.modules.pooling._AdaptiveAvgPoolNd
    | nn.modules.pooling._AdaptiveMaxPoolNd
)


def _sum(terms: list[_Term], left: Values) -> Values:
    total = np.zeros(len(left))
    for term in terms:
        product = np.full(len(left), float(term.weight))
        for side in (term.one, term.other):
            if side is not None:
                product = product * left[:, side]
        total += product
    return total
