"""Pretrained torchvision classifiers, cut before their head: images in, feature vectors out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, nearest
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.cutting import find_cut, trace
from moevoprune.features.preprocessing import Preprocessing, default_preprocessing, resolve_preprocessing
from moevoprune.features.vision import import_torchvision, own_randomness, reason_of
from moevoprune.features.weights import (
    download_state,
    load_state,
    original_weights,
    read_state,
    resolve_weights,
    targets_of,
    weights_hash,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "Backbone",
    "BackboneSettings",
    "available_backbones",
    "backbone_layers",
    "load_backbone",
    "same_backbone",
]


class Backbone:
    """A frozen network up to its features; made by :func:`load_backbone`.

    It holds the modules that the features need and no others.

    Attributes
    ----------
    settings : BackboneSettings
        What was asked for.
    preprocessing : Preprocessing
        Turns a Pillow image into one row of the input of :meth:`features`.
    weights_sha256 : str
        SHA-256 over the names, shapes and values of the tensors in use: the same for the same weights, whatever
        file they came from.
    weights_name : str or None
        torchvision's full name of its own weights, e.g. ``"ResNet50_Weights.IMAGENET1K_V2"``.
    feature_size : int
        Length d of the feature vector.
    layer : str
        Node whose (averaged) output is the feature vector.
    feature_map : str or None
        Node of the last feature map before the features; None where there is none, as in vision transformers.
    notes : tuple of str
        What the user should know, one line each.
    device : torch.device
        Where the weights are.
    """

    def __init__(
        self,
        *,
        settings: BackboneSettings,
        preprocessing: Preprocessing,
        to_map: nn.Module | None,
        to_features: nn.Module,
        layer: str,
        feature_map: str | None,
        feature_size: int,
        weights_sha256: str,
        weights_name: str | None,
        notes: tuple[str, ...],
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.preprocessing = preprocessing
        self.layer = layer
        self.feature_map = feature_map
        self.feature_size = feature_size
        self.weights_sha256 = weights_sha256
        self.weights_name = weights_name
        self.notes = notes
        self.device = device
        self._to_map = to_map
        self._to_features = to_features

    def features(self, images: Tensor, mixed_precision: bool = False) -> Tensor:
        """Compute the feature vectors of prepared images, without gradients.

        Parameters
        ----------
        images
            Shape (n, 3, crop, crop), as :attr:`preprocessing` makes them; on any device.
        mixed_precision
            On CUDA, compute in float16 where autocast deems it safe: faster, with about 3 significant digits.
            Changes nothing on the CPU.

        Returns
        -------
        Tensor, shape (n, feature_size)
            float32, on :attr:`device`.

        Raises
        ------
        InputError
            The images have another shape.
        """
        import torch

        side = self.preprocessing.crop
        if tuple(images.shape[1:]) != (3, side, side):
            raise InputError(
                f"images of shape {tuple(images.shape)} do not fit {self.settings.name}:"
                f" give (n, 3, {side}, {side}), as its preprocessing makes them"
            )
        half = mixed_precision and self.device.type == "cuda"
        with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.float16, enabled=half):
            values: Tensor = images.to(self.device, torch.float32)
            if self._to_map is not None:
                values = self._to_map(values)
            values = self._to_features(values)
        return values.float()

    def split_at_map(self) -> tuple[nn.Module, nn.Module]:
        """Return the network in two parts, between which the last feature map can be read and changed.

        Returns
        -------
        to_map : Module
            Images (n, 3, crop, crop) to the feature map (n, c, h, w).
        to_features : Module
            The feature map to features (n, feature_size).
            Both are in evaluation mode, on :attr:`device`, and let gradients with respect to their input pass;
            one after the other they compute :meth:`features`.

        Raises
        ------
        InputError
            The backbone has no feature map.
        """
        if self._to_map is None:
            raise InputError(
                f"{self.settings.name} ends in tokens, not in a feature map ({self.layer}):"
                " choose a convolutional backbone, or a layer that is a feature map"
            )
        return self._to_map, self._to_features

    def to_module(self) -> nn.Module:
        """Return the network as one module, e.g. to export it.

        Returns
        -------
        Module
            Prepared images (n, 3, crop, crop) to features (n, feature_size), as :meth:`features` computes them. In
            evaluation mode, on :attr:`device`; the weights are shared with this backbone.
        """
        from torch import nn

        parts = [part for part in (self._to_map, self._to_features) if part is not None]
        return nn.Sequential(*parts).eval()

    def record(self) -> dict[str, object]:
        """Return all that defines the features, in plain values for JSON."""
        return {
            "name": self.settings.name,
            "args": dict(self.settings.args),
            "weights": self.settings.weights,
            "weights_name": self.weights_name,
            "weights_sha256": self.weights_sha256,
            "layer": self.layer,
            "feature_map": self.feature_map,
            "feature_size": self.feature_size,
            "preprocessing": self.preprocessing.record(),
            "torchvision": str(import_torchvision().__version__),
        }


def same_backbone(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records of extractions name the same features; also where one does not say.

    Parameters
    ----------
    one, other
        With an entry ``"backbone"`` as :meth:`Backbone.record` gives it, or without.
    """
    first, second = one.get("backbone"), other.get("backbone")
    if not isinstance(first, dict) or not isinstance(second, dict):
        return True
    return all(first.get(key) == second.get(key) for key in ("weights_sha256", "layer", "preprocessing"))


def available_backbones() -> tuple[str, ...]:
    """Names of all classification models of the installed torchvision, sorted.

    Raises
    ------
    InputError
        torchvision cannot be imported.
    """
    models = import_torchvision().models
    return tuple(sorted(models.list_models(module=models)))


def backbone_layers(settings: BackboneSettings) -> tuple[str, ...]:
    """Names that ``BackboneSettings.layer`` may have, from the input to the output of the network.

    Raises
    ------
    InputError
        The model or its arguments are unknown, or its input size does not fit.
    """
    _check_name(settings.name)
    weights = resolve_weights(settings)
    known = weights if weights is not None and not isinstance(weights, Path) else original_weights(settings.name)
    defaults = default_preprocessing(known)
    preprocessing = resolve_preprocessing(defaults, settings)
    model = _build(settings, known, values=False)
    return tuple(trace(model, settings, preprocessing, usual=defaults.crop).usable())


def load_backbone(settings: BackboneSettings, device: torch.device | str = "cpu") -> Backbone:
    """Build a network, give it its weights and cut it at its features.

    The global random state is neither used nor changed.

    Parameters
    ----------
    settings
        What to load.
    device
        Where to put the weights.

    Raises
    ------
    InputError
        torchvision does not work; or the model, an argument, the weights or the layer do not exist or do not fit
        one another; or the network does not accept images of the wanted size.
    """
    import torch

    _check_name(settings.name)
    weights = resolve_weights(settings)
    # a file is taken for a relative of torchvision's first weights, which most recipes follow
    known = weights if weights is not None and not isinstance(weights, Path) else original_weights(settings.name)
    # the search for the cut needs shapes alone: no weights, no arithmetic
    model = _build(settings, known, values=False)
    defaults = default_preprocessing(known)
    preprocessing = resolve_preprocessing(defaults, settings)
    traced = trace(model, settings, preprocessing, usual=defaults.crop)
    cut = find_cut(traced, settings)

    notes: tuple[str, ...] = ()
    if weights is None:
        state: Mapping[str, Any] = _build(settings, known, values=True).state_dict()
        where = "random weights"
        notes = (
            f"{settings.name} has random weights (weights = none): its features are those of an untrained network",
        )
    elif isinstance(weights, Path):
        state = read_state(weights)
        where = str(weights)
    else:
        state = download_state(weights, settings)
        where = str(weights)

    own = set(model.state_dict())
    load_state(model, state, targets_of(cut.graphs), where, settings.name)
    resolved = torch.device(device)
    parts = [torch.fx.GraphModule(model, graph).eval() for graph in cut.graphs]
    for part in parts:
        part.requires_grad_(False)
    digest = weights_hash(parts, own)
    for part in parts:
        part.to(resolved)
    return Backbone(
        settings=settings,
        preprocessing=preprocessing,
        to_map=parts[0] if len(parts) == 2 else None,
        to_features=parts[-1],
        layer=cut.layer,
        feature_map=cut.feature_map,
        feature_size=cut.feature_size,
        weights_sha256=digest,
        weights_name=str(weights) if weights is not None and not isinstance(weights, Path) else None,
        notes=notes,
        device=resolved,
    )


@contextmanager
def _weightless() -> Iterator[None]:
    """Put new weights on the meta device, where they have a shape and no values.

    Tensors that networks compute while they are built stay on the CPU, unlike under ``torch.device("meta")``:
    RegNet takes its widths from some, Swin and MaxViT keep tables of relative positions.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class EmptyOnMeta(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if func is torch.empty and kwargs.get("device") is None:
                kwargs["device"] = "meta"
            return func(*args, **kwargs)

    with EmptyOnMeta():
        yield


def _check_name(name: str) -> None:
    known = available_backbones()
    if name not in known:
        hint = nearest(name, known) or f"; known ones: {', '.join(known)}"
        raise InputError(f"unknown backbone {name!r}{hint}: use a classification model of torchvision")


def _build(settings: BackboneSettings, known: Any, values: bool) -> nn.Module:
    """Build the whole network.

    Parameters
    ----------
    settings
        Name and arguments.
    known
        torchvision's weights that it is made for, or None. They are not loaded.
    values
        Whether it gets random weights, or weights that have only a shape.
    """
    for name in ("weights", "progress", "pretrained"):
        if name in settings.args:
            raise InputError(f"backbone argument {name!r} is no argument of a network: use the setting 'weights'")
    model = _construct(settings, {}, values)
    sides = known.meta.get("min_size") if known is not None else None
    if sides and "image_size" not in settings.args and getattr(model, "image_size", sides[0]) != sides[0]:
        # torchvision's builders take the size of a vision transformer from its weights
        model = _construct(settings, {"image_size": sides[0]}, values)
    own_range = settings.mean is None and settings.std is None
    if hasattr(model, "transform_input") and "transform_input" not in settings.args and own_range:
        # torchvision's weights of GoogLeNet and Inception were trained on another normalisation, which the network
        # makes itself: the builders set this with the weights, which come later here
        setattr(model, "transform_input", True)  # noqa: B010  (mypy takes attributes of modules for tensors)
    return model.eval()


def _construct(settings: BackboneSettings, defaults: dict[str, Any], values: bool) -> nn.Module:
    import torch

    models = import_torchvision().models
    with (
        torch.device("cpu"),
        nullcontext() if values else _weightless(),
        own_randomness(),
        warnings.catch_warnings(),
    ):
        # GoogLeNet and Inception announce another random start; layers without units are warned of
        warnings.simplefilter("ignore")
        try:
            model: nn.Module = models.get_model(settings.name, weights=None, **defaults, **settings.args)
        except Exception as error:  # whatever the constructors of 80 networks raise for an argument
            given = ", ".join(f"{name}={value!r}" for name, value in settings.args.items())
            raise InputError(
                f"{settings.name} cannot be built with {given or 'its defaults'} ({reason_of(error)}):"
                " correct the backbone arguments"
            ) from None
    return model
