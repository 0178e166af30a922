"""Where a network is cut: its graph is traced, and the penultimate pooled features are found in it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, nearest
from moevoprune.features.vision import import_torchvision, reason_of

if TYPE_CHECKING:
    from torch import fx, nn

    from moevoprune.features.backbone_settings import BackboneSettings
    from moevoprune.features.preprocessing import Preprocessing

__all__ = ["Cut", "Traced", "find_cut", "trace"]

# two rows tell the batch from a dimension of length one
_PROBE_ROWS = 2


@dataclass(frozen=True)
class Traced:
    """The network as a graph, with the shape of every node's output."""

    model: nn.Module
    graph: fx.Graph
    nodes: dict[str, fx.Node]
    shapes: dict[fx.Node, tuple[int, ...] | None]

    def usable(self) -> list[str]:
        """Names of nodes that give features."""
        return [name for name, node in self.nodes.items() if self.features_of(node) is not None]

    def features_of(self, node: fx.Node) -> int | None:
        """Length of the feature vector of a node, or None where it has none."""
        shape = self.shapes[node]
        if node.op == "placeholder" or shape is None or len(shape) not in (2, 3, 4) or shape[0] != _PROBE_ROWS:
            return None
        if len(shape) == 4:
            if not _is_map(shape):
                return None
            return shape[3] if _channels_last(shape) else shape[1]
        return shape[-1]

    def is_spatial(self, node: fx.Node) -> bool:
        """Whether the output is a feature map of more than one place."""
        shape = self.shapes[node]
        if shape is None or len(shape) != 4 or node.op == "placeholder" or not _is_map(shape):
            return False
        return shape[0] == _PROBE_ROWS and shape[2] > 1


@dataclass(frozen=True)
class Cut:
    """Where the network is cut: one graph, or two with the feature map between them."""

    layer: str
    feature_map: str | None
    feature_size: int
    graphs: tuple[fx.Graph, ...]


def _channels_last(shape: tuple[int, ...]) -> bool:
    # inputs are square, so the two equal sides are the space
    return shape[2] != shape[3] and shape[1] == shape[2]


def _is_map(shape: tuple[int, ...]) -> bool:
    return shape[2] == shape[3] or _channels_last(shape)


def trace(model: nn.Module, settings: BackboneSettings, preprocessing: Preprocessing, usual: int) -> Traced:
    """Trace the network and find all shapes, and check that it takes images of the wanted size.

    Parameters
    ----------
    model
        The network; of its tensors the shapes are used.
    settings
        For messages.
    preprocessing
        Has the wanted size.
    usual
        Side of the images that the network was made for, in pixels.
    """
    import torch

    extractor = _extractor(model)
    tensors = {**dict(extractor.named_parameters()), **dict(extractor.named_buffers())}
    shapes_only = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}

    def outputs(side: int) -> dict[str, Any]:
        # traced networks print where in their code an error came up
        with torch.no_grad(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            images = torch.empty(_PROBE_ROWS, 3, side, side, device="meta")
            result: dict[str, Any] = torch.func.functional_call(extractor, shapes_only, images)
        return result

    try:
        values = outputs(preprocessing.crop)
    except Exception as error:  # convolutions, assertions and reshapes complain in their own ways
        raise InputError(
            f"{settings.name} does not take images of {preprocessing.crop} x {preprocessing.crop} pixels"
            f" ({reason_of(error)}): give another crop and size"
        ) from None
    if usual != preprocessing.crop:
        # small images end in maps of one place, which look like pooled ones: the usual size shows what is what
        # arguments such as image_size may forbid it
        with suppress(Exception):
            values = outputs(usual)
    (output,) = (node for node in extractor.graph.nodes if node.op == "output")
    nodes: dict[str, fx.Node] = dict(output.args[0])
    shapes = {
        node: tuple(values[name].shape) if isinstance(values[name], torch.Tensor) else None
        for name, node in nodes.items()
    }
    return Traced(model, extractor.graph, nodes, shapes)


def _extractor(model: nn.Module) -> fx.GraphModule:
    """Make a network that returns the outputs of all nodes of the traced one, by name."""
    extraction = import_torchvision().models.feature_extraction
    names = extraction.get_graph_node_names(model, suppress_diff_warning=True)[1]
    extractor: fx.GraphModule = extraction.create_feature_extractor(
        model,
        train_return_nodes=[names[0]],
        eval_return_nodes={name: name for name in names},
        suppress_diff_warning=True,
    ).eval()
    model.eval()
    return extractor


def find_cut(traced: Traced, settings: BackboneSettings) -> Cut:
    """Find where to cut: after the layer asked for, or after the penultimate pooled features.

    Raises
    ------
    InputError
        There is no such layer, or it gives no features.
    """
    node = _usual_features(traced, settings) if settings.layer is None else _wanted(traced, settings)
    size = traced.features_of(node)
    assert size is not None  # both ways above give nodes with features
    map_node = node if traced.is_spatial(node) else _map_before(traced, node)
    names = {node: name for name, node in traced.nodes.items()}
    if map_node is None:
        graphs: tuple[fx.Graph, ...] = (_part(traced, None, node),)
    else:
        graphs = (_part(traced, None, map_node, as_map=True), _part(traced, map_node, node))
    return Cut(names[node], names[map_node] if map_node is not None else None, size, graphs)


def _wanted(traced: Traced, settings: BackboneSettings) -> fx.Node:
    layer = settings.layer
    # a module stands for the last thing computed in it, as in torchvision
    inside = [name for name in traced.nodes if name == layer or name.startswith(f"{layer}.")]
    if not inside:
        raise InputError(
            f"{settings.name} has no layer {layer!r}{nearest(str(layer), traced.nodes)}:"
            " moevoprune.features.backbones.backbone_layers(settings) lists them"
        )
    node = traced.nodes[inside[-1]]
    if traced.features_of(node) is None:
        shape = traced.shapes[node]
        raise InputError(
            f"layer {layer!r} of {settings.name} gives"
            f" {'no tensor' if shape is None else f'the shape {shape} for {_PROBE_ROWS} images'}:"
            " use a layer with a feature map, tokens or one vector for each image"
        )
    return node


def _usual_features(traced: Traced, settings: BackboneSettings) -> fx.Node:
    """Find the penultimate pooled features: the last feature map, averaged, or the token of the image."""
    from torch import nn

    layers = [
        node
        for node in traced.graph.nodes
        if node.op == "call_module"
        and isinstance(traced.model.get_submodule(str(node.target)), nn.Linear | nn.Conv2d)
    ]
    if layers:
        # whatever comes from here on belongs to the classes
        classifier = layers[-1]
        before = _ancestors(classifier)
        last = _map_before(traced, classifier, across_tokens=True)
        after = _descendants(last) if last is not None else before
        for node in traced.graph.nodes:
            shape = traced.shapes.get(node)
            if node in before and node in after and shape and len(shape) == 2 and shape[0] == _PROBE_ROWS:
                if last is None or shape[1] == traced.features_of(last) or _tokens_between(traced, last, node):
                    return _bare(traced, node)
                # flattened: one feature per place would be tens of thousands
                break
        if last is not None:
            return _bare(traced, last)
    raise InputError(f"{settings.name} has no pooled features that could be found: choose a layer")


def _map_before(traced: Traced, node: fx.Node, across_tokens: bool = False) -> fx.Node | None:
    """Find the last feature map that everything at a node has gone through."""
    before = _ancestors(node)
    for candidate in reversed(list(traced.graph.nodes)):
        if candidate in before and candidate in traced.shapes and traced.is_spatial(candidate):
            if not across_tokens and _tokens_between(traced, candidate, node):
                return None
            if not _reaches_input(node, without=candidate):
                return _bare(traced, candidate)
    return None


def _tokens_between(traced: Traced, start: fx.Node, end: fx.Node) -> bool:
    between = _descendants(start) & (_ancestors(end) | {end})
    return any(len(traced.shapes.get(node) or ()) == 3 for node in between)


def _bare(traced: Traced, node: fx.Node) -> fx.Node:
    """Step back over modules that change nothing here, so that the name is that of the work."""
    from torch import nn
    from torchvision.ops import StochasticDepth

    idle = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.AdaptiveAvgPool2d, StochasticDepth)
    while (
        node.op == "call_module"
        and isinstance(traced.model.get_submodule(str(node.target)), idle)
        and traced.shapes[node] == traced.shapes.get(node.all_input_nodes[0])
    ):
        node = node.all_input_nodes[0]
    return node


def _ancestors(node: fx.Node) -> set[fx.Node]:
    return _reached(node, lambda other: other.all_input_nodes)


def _descendants(node: fx.Node) -> set[fx.Node]:
    return _reached(node, lambda other: other.users)


def _reached(start: fx.Node, step: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(step(start))
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(step(node))
    return found


def _reaches_input(node: fx.Node, without: fx.Node) -> bool:
    found = _reached(node, lambda other: [n for n in other.all_input_nodes if n is not without])
    return any(other.op == "placeholder" for other in found)


def _part(traced: Traced, start: fx.Node | None, end: fx.Node, as_map: bool = False) -> fx.Graph:
    """Copy the graph between two nodes; maps enter and leave as (n, c, h, w), features leave as (n, d).

    Parameters
    ----------
    traced
        The whole network.
    start
        Feature map that the part is given, or None for the images.
    end
        Node to compute.
    as_map
        Whether it leaves as a map.
    """
    from torch import fx

    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def is_last(node: fx.Node) -> bool:
        shape = traced.shapes[node]
        return shape is not None and len(shape) == 4 and _channels_last(shape)

    if start is not None:
        given = graph.placeholder("feature_map")
        turned = is_last(start) and start is not end
        copies[start] = graph.call_method("permute", (given, 0, 2, 3, 1)) if turned else given
    if end is not start:
        needed = _reached(end, lambda other: () if other is start else other.all_input_nodes) | {end}
        for node in traced.graph.nodes:
            if node in needed and node not in copies:
                copies[node] = graph.node_copy(node, copies.__getitem__)
    result = copies[end]
    shape = traced.shapes[end]
    if as_map:
        if is_last(end):
            result = graph.call_method("permute", (result, 0, 3, 1, 2))
    elif shape is not None and len(shape) == 4:
        # a map that was given is channels-first already
        space = [1, 2] if is_last(end) and end is not start else [2, 3]
        result = graph.call_method("mean", (result, space))
    elif shape is not None and len(shape) == 3:
        result = graph.call_method("mean", (result, 1))
    graph.output(result)
    return graph
