"""Which filters of a network can go, and what goes with them: torch-pruning's dependency graph as bits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from moevoprune.errors import InputError, nearest, words_of

__all__ = [
    "CONVOLUTIONS",
    "Call",
    "FilterGraph",
    "FilterLayer",
    "Site",
    "Trace",
    "is_depthwise",
    "own_pruners",
    "prunes_itself",
]

Bits = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules whose filters can be bits."""

# what they compute of one channel depends on the others: without some, it is not what it was
_ACROSS_CHANNELS = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention, nn.LocalResponseNorm)
_MOST_NAMED = 3


@dataclass(frozen=True, eq=False)
class Site:
    """Channels of one module that go with filters of a layer.

    Attributes
    ----------
    module
        Name of the module.
    side
        ``"in"``: the module reads these channels; ``"out"``: it makes them; ``"both"``: it hands them on.
    channels
        Channels of that side, shape (n,).
    bits
        The bit that each of them goes with, shape (n,).
    """

    module: str
    side: str
    channels: Indices
    bits: Indices


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module that holds no others.

    Attributes
    ----------
    module
        Its name.
    reads, makes
        Shapes of its first input and of its output.
    sites
        Channels of the output that go with filters.
    """

    module: str
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    sites: tuple[Site, ...] = ()


@dataclass(frozen=True, eq=False)
class FilterLayer:
    """Filters that are bits of their own, and what goes with them; at least one of them has to stay.

    Where a group of torch-pruning's holds modules that have only some of its channels (maps that are put side by
    side, then added to others), these are layers of their own, so that no module can lose all channels.

    Attributes
    ----------
    name
        Name of a convolution that has these filters.
    members
        Names of all convolutions that lose filters together, e.g. those that a shortcut adds up.
    bits
        Numbers of its bits in a mask.
    sites
        All channels that go with them.
    """

    name: str
    members: tuple[str, ...]
    bits: slice
    sites: tuple[Site, ...]

    @property
    def n_filters(self) -> int:
        """Number of filters, each one bit."""
        return int(self.bits.stop - self.bits.start)


@dataclass(frozen=True, eq=False)
class Trace:
    """A network with the graph that torch-pruning made of it.

    Attributes
    ----------
    network
        The network that was traced.
    graph
        torch-pruning's ``DependencyGraph``.
    groups
        Its groups that may be pruned: for each the channels that go with each filter of its first convolution.
    left_out
        Why others are kept whole, by the name of their convolution.
    calls
        Calls of modules that hold no others, each with the graph's node of its output.
    """

    network: nn.Module
    graph: Any
    groups: tuple[Any, ...]
    left_out: dict[str, str]
    calls: tuple[tuple[Call, Any], ...]


class FilterGraph:
    """The filters of a network as bits.

    A bit is a filter (an output channel) of a convolution, together with all that has to go with it: filters of
    convolutions that a shortcut adds to it, channels of batch norms and depthwise convolutions, inputs of whatever
    reads it. torch-pruning's dependency graph (Fang et al. 2023, "DepGraph") finds them. Kept whole are channels
    that reach the output (the classes) or are those of the images, those that a norm across channels sees, and
    convolutions in groups that are not depthwise.

    That a network without some channels is what gates make of it should not be taken for granted:
    :func:`moevoprune.filters.cutting.check_cutting` cuts filters of each layer and compares the outputs.

    Parameters
    ----------
    network
        Any image classifier; it is copied, not changed.
    example
        An input of it, shape (n, channels, height, width); its values do not matter.
    keep
        Names of modules whose filters are to be kept whole; also of modules that hold such modules.

    Attributes
    ----------
    layers
        What bits mean, in the order of the mask.
    n_bits
        Length of a mask.
    groups
        Bits of each of torch-pruning's groups, one layer or several, by the name of its first convolution.
    left_out
        Convolutions that are kept whole, and why.
    keep
        Modules that were to be kept whole.
    calls
        Calls of modules, in the order of a forward pass.

    Raises
    ------
    InputError
        The network cannot be copied, run or traced (the message names the module), or `keep` is not a list of
        names of its modules.
    """

    def __init__(self, network: nn.Module, example: Tensor, keep: Sequence[str] = ()) -> None:
        self.keep = _checked_names(network, keep)
        self.example = example.detach().clone()
        traced = self.trace(network)
        self.left_out = traced.left_out
        self.groups = _numbered(traced)
        self.layers, self.calls = _described(traced, tuple(self.groups.values()))
        if not self.layers:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.left_out.items())[:_MOST_NAMED])
            raise InputError(f"this network has no filters that could go ({reasons or 'it has no convolution'})")
        self.n_bits = self.layers[-1].bits.stop

    def trace(self, network: nn.Module) -> Trace:
        """Copy a network of this architecture and let torch-pruning trace the copy.

        Raises
        ------
        InputError
            It cannot be copied, run or traced; the message names the module.
        """
        _check_parameters(network)
        try:
            copied = copy.deepcopy(network)
        except Exception as error:  # tensors that are no parameters, locks, open files ...
            raise InputError(f"this network cannot be copied by copy.deepcopy ({words_of(error)})") from None
        return _trace(copied, self.example, self.keep)

    def check_masks(self, masks: Bits) -> None:
        """Refuse masks that empty a layer.

        Raises
        ------
        InputError
            One does, or masks have another length.
        """
        if masks.ndim != 2 or masks.shape[1] != self.n_bits:
            raise InputError(f"masks have shape {masks.shape}: give (n, {self.n_bits}), one bit for each filter")
        for layer in self.layers:
            if not masks[:, layer.bits].any(axis=1).all():
                raise InputError(f"a mask leaves no filter of {layer.name}: keep at least one")


class _OtherOutput(Exception):
    """The output is no tensor; says what it is."""


class _OwnPruner(tp.BasePruningFunc):
    """Lets modules that know how to lose channels do it themselves."""

    TARGET_MODULES = None

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        layer.remove_outputs(list(idxs))
        return layer

    def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        layer.remove_inputs(list(idxs))
        return layer

    def get_out_channels(self, layer: Any) -> int:
        return int(layer.out_channels)

    def get_in_channels(self, layer: Any) -> int:
        return int(layer.in_channels)


def prunes_itself(module: nn.Module) -> bool:
    """Whether a module says itself how it loses channels: ``remove_inputs``, ``remove_outputs`` of indices."""
    return hasattr(module, "remove_inputs") and hasattr(module, "remove_outputs")


def own_pruners(network: nn.Module) -> dict[type[nn.Module], tp.BasePruningFunc]:
    """What torch-pruning is to call, by class, for modules that know themselves how to lose channels."""
    return {type(module): _OwnPruner() for module in network.modules() if prunes_itself(module)}


def _checked_names(network: nn.Module, keep: Sequence[str]) -> tuple[str, ...]:
    if isinstance(keep, str):
        raise InputError(f"keep: got the string {keep!r}; give a list of names of modules, for example [{keep!r}]")
    names = [name for name, _ in network.named_modules() if name]
    for name in keep:
        if name not in names:
            raise InputError(f"keep names no module of this network: {name!r}{nearest(name, names)}")
    return tuple(keep)


def _check_parameters(network: nn.Module) -> None:
    """Refuse weights that are not one plain parameter of one module: torch-pruning replaces such parameters."""
    owners: dict[nn.Parameter, str] = {}
    for name, module in network.named_modules():
        if is_parametrized(module):
            raise InputError(
                f"this network cannot be traced: the weights of module {name!r} are parametrised (weight norm, "
                "spectral norm): make them plain by torch.nn.utils.parametrize.remove_parametrizations"
            )
        for parameter in module.parameters(recurse=False):
            if parameter in owners:
                raise InputError(
                    f"this network cannot be traced: modules {owners[parameter]!r} and {name!r} share a "
                    "parameter: give each its own, or call one module twice"
                )
            owners[parameter] = name


def _trace(network: nn.Module, example: Tensor, keep: tuple[str, ...]) -> Trace:
    names = {module: name for name, module in network.named_modules()}
    example = example.to(next(iter(network.parameters()), example).device)
    seen: list[tuple[nn.Module, Call, Any]] = []
    inside: list[str] = []

    def enter(module: nn.Module, _: Any) -> None:
        inside.append(names[module])

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        inside.pop()
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor) and not list(module.children()):
            call = Call(names[module], tuple(inputs[0].shape), tuple(output.shape))
            # a layer that works in place changes the tensor's own history later
            seen.append((module, call, output.grad_fn))

    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network.eval()
    hooks = [module.register_forward_pre_hook(enter) for module in network.modules()]
    hooks += [module.register_forward_hook(leave) for module in network.modules()]
    graph = tp.DependencyGraph()

    def forward(network: nn.Module, example: Tensor) -> Tensor:
        output = network(example)
        if not isinstance(output, Tensor):
            raise _OtherOutput(type(output).__name__)
        return output

    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.build_dependency(
                network,
                example,
                forward_fn=forward,
                customized_pruners=own_pruners(network),
                verbose=False,
            )
    except _OtherOutput as error:
        raise InputError(f"this network gives a {error}: wrap it so that it gives the tensor of logits") from None
    except Exception as error:
        # whatever the network's own code, or torch-pruning on a graph that it does not know, raises
        said = words_of(error)
        if inside:
            name = inside[-1]
            where = (
                f"module {name!r} ({type(network.get_submodule(name)).__name__})" if name else "its own forward"
            )
            raise InputError(
                f"this network cannot be traced: {where} fails on an input of shape {tuple(example.shape)} "
                f"({said}): check the image size, the channels and the module"
            ) from None
        raise InputError(
            f"this network cannot be traced: torch-pruning does not understand what follows module "
            f"{_last_known(error, names)!r} ({said}): write that part with modules and operations it knows"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    lost = [call.module for module, call, _ in seen if _is_convolution(module) and module not in graph.module2node]
    if lost:
        raise InputError(
            f"this network cannot be traced: what {', '.join(map(repr, lost[:_MOST_NAMED]))} computes does not "
            "reach the output, or in ways that autograd does not see (detach, no_grad, NumPy): write that part in "
            "plain PyTorch, or leave it out"
        )
    groups, left_out = _prunable(graph, names, keep)
    nodes = {node.grad_fn: node for node in graph.module2node.values()}
    return Trace(network, graph, groups, left_out, tuple((call, nodes.get(made)) for _, call, made in seen))


def _last_known(error: Exception, names: dict[nn.Module, str]) -> str:
    """Name of the last module before the node of the graph that torch-pruning failed on."""
    node = None
    trace = error.__traceback__
    while trace is not None:
        held = [value for value in trace.tb_frame.f_locals.values() if isinstance(value, tp.dependency.Node)]
        node = held[0] if held else node
        trace = trace.tb_next
    waiting = [node] if node is not None else []
    for node in waiting:
        if node.module in names:
            return names[node.module]
        waiting.extend(before for before in node.inputs if before not in waiting)
    return ""


def _prunable(
    graph: Any, names: dict[nn.Module, str], keep: tuple[str, ...]
) -> tuple[tuple[Any, ...], dict[str, str]]:
    """Groups that may lose filters, and why others may not."""
    order = {module: place for place, module in enumerate(names)}
    groups: list[tuple[int, Any]] = []
    left_out: dict[str, str] = {}
    for group in graph.get_all_groups(root_module_types=CONVOLUTIONS):
        root = group[0].dep.target.module
        reason = _reason_to_keep(graph, group, names, keep)
        if reason is None:
            groups.append((order[root], group))
        else:
            left_out[names[root]] = reason
    return tuple(group for _, group in sorted(groups, key=lambda pair: pair[0])), left_out


def _reason_to_keep(graph: Any, group: Any, names: dict[nn.Module, str], keep: tuple[str, ...]) -> str | None:
    for dep, _ in group:
        node = dep.target
        module = node.module
        name = names.get(module, "")
        reads, makes = graph.is_in_channel_pruning_fn(dep.handler), graph.is_out_channel_pruning_fn(dep.handler)
        if makes and any(name == kept or name.startswith(f"{kept}.") for kept in keep):
            return f"{name} is to be kept"
        if reads and makes and name and not node.inputs:
            return f"{name} hands on the channels of the images"
        if isinstance(module, _ACROSS_CHANNELS):
            return f"{name} looks across channels"
        if _is_convolution(module) and module.groups > 1 and not is_depthwise(module):
            return f"{name} is a convolution in groups"
        if node.type == tp.ops.OPTYPE.OUTPUT or (makes and not node.outputs):
            return "its channels are the network's outputs"
    return None


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, CONVOLUTIONS)


def is_depthwise(module: Any) -> bool:
    """Whether a convolution makes each channel of the one channel with the same number."""
    return bool(module.groups == module.in_channels == module.out_channels)


def _numbered(traced: Trace) -> dict[str, slice]:
    names = {module: name for name, module in traced.network.named_modules()}
    ends = np.cumsum([len(group[0].idxs) for group in traced.groups]).tolist()
    return {
        names[group[0].dep.target.module]: slice(start, end)
        for group, (start, end) in zip(traced.groups, pairwise([0, *ends]), strict=True)
    }


def _described(traced: Trace, numbered: tuple[slice, ...]) -> tuple[tuple[FilterLayer, ...], tuple[Call, ...]]:
    """Layers with their sites, and calls with those of their outputs, as plain values."""
    names = {module: name for name, module in traced.network.named_modules()}
    layers: list[FilterLayer] = []
    of_node: dict[Any, list[Site]] = {}
    for group, bits in zip(traced.groups, numbered, strict=True):
        sites = []
        for item in group.items:
            node = item.dep.target
            sites.append(_site(traced.graph, item, names.get(node.module, ""), bits.start))
            of_node.setdefault(node, []).append(sites[-1])
        named = [site for site in sites if site.module]
        root = names[group[0].dep.target.module]
        layers += [_layer(traced.network, root, named, run) for run in _runs(named, bits.start, bits.stop)]
    calls = tuple(
        replace(call, sites=tuple(site for site in of_node.get(node, ()) if site.side != "in"))
        for call, node in traced.calls
    )
    return tuple(layers), calls


def _runs(sites: Sequence[Site], start: int, end: int) -> Iterator[slice]:
    """Bits from start to end, apart wherever a module has channels of one and none of the next."""
    has = np.zeros((len(sites), end - start), np.bool_)
    for row, site in enumerate(sites):
        has[row, site.bits - start] = True
    edges = start + 1 + np.flatnonzero((has[:, 1:] != has[:, :-1]).any(axis=0))
    for first, last in pairwise([start, *edges.tolist(), end]):
        yield slice(first, last)


def _layer(network: nn.Module, root: str, sites: Sequence[Site], bits: slice) -> FilterLayer:
    """Part of a group, named after its root, or after a convolution that has no other filters."""
    parts = [_part(site, bits) for site in sites]
    making = {
        site.module: len(site.bits) == len(part.bits)
        for site, part in zip(sites, parts, strict=True)
        if len(part.bits) and site.side != "in" and _is_convolution(network.get_submodule(site.module))
    }
    own = [name for name, is_own in making.items() if is_own]
    name = root if root in own else [*own, root][0]
    return FilterLayer(name, tuple(making), bits, tuple(part for part in parts if len(part.bits)))


def _part(site: Site, bits: slice) -> Site:
    """What goes with some of the bits."""
    inside = (site.bits >= bits.start) & (site.bits < bits.stop)
    return replace(site, channels=site.channels[inside], bits=site.bits[inside])


def _site(graph: Any, item: Any, name: str, start: int) -> Site:
    handler = item.dep.handler
    reads, makes = graph.is_in_channel_pruning_fn(handler), graph.is_out_channel_pruning_fn(handler)
    side = "both" if reads and makes else "in" if reads else "out"
    return Site(name, side, np.array(item.idxs, np.int64), np.array(item.root_idxs, np.int64) + start)
