"""Convolutional classifiers by name: small families, He et al.'s for CIFAR, torchvision's, the user's own."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moevoprune.errors import InputError, nearest, printable, whole_number
from moevoprune.features.backbones import available_backbones
from moevoprune.features.vision import import_torchvision, reason_of
from moevoprune.features.weights import load_state, read_state, renamed

__all__ = [
    "CIFAR_DEPTHS",
    "FAMILIES",
    "CifarResNet",
    "PaddedShortcut",
    "ResidualBlock",
    "SmallCNN",
    "SmallDenseNet",
    "SmallResNet",
    "build_network",
    "load_weights",
]

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
_CIFAR_CHANNELS = (16, 32, 64)
_MOST_NAMED = 3


# --- plain -----------------------------------------------------------------------------------------


class SmallCNN(nn.Module):
    """A small VGG: stages of two 3x3 convolutions, halved in between, averaged over space at the end.

    Parameters
    ----------
    n_classes
        Outputs.
    in_channels
        Channels of the images.
    channels
        Filters of the convolutions of each stage; every stage but the first begins with 2x2 maximum pooling.
    """

    def __init__(self, n_classes: int = 10, in_channels: int = 1, channels: Sequence[int] = (24, 48, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for stage, width in enumerate(channels):
            if stage:
                layers.append(nn.MaxPool2d(2))
            layers += [*_convolution(before, width), *_convolution(width, width)]
            before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, H, W) to logits (n, n_classes)."""
        logits: Tensor = self.classifier(_averaged(self.features(images)))
        return logits


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    # no bias: the batch norm behind it has one
    return (nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def _averaged(maps: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(maps, 1).flatten(1)


# --- with shortcuts --------------------------------------------------------------------------------


class PaddedShortcut(nn.Module):
    """Shortcut without parameters (option A of He et al., arXiv 1512.03385): fewer pixels, more channels.

    Of the pixels every `stride`-th row and column is taken; each output channel is a copy of an input channel, or
    zero. Both sides can lose channels independently of one another.

    Parameters
    ----------
    in_channels, out_channels
        Not fewer outputs than inputs. The additional channels are zero, half of them (rounded down) before the
        copied ones and the rest behind.
    stride
        Step of rows and columns.

    Attributes
    ----------
    source : Tensor of int64, shape (out_channels,)
        The input channel that each output channel copies; -1 for zero. Not part of the state dict.
    """

    source: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stride = stride
        before = (out_channels - in_channels) // 2
        source = torch.full((out_channels,), -1)
        source[before : before + in_channels] = torch.arange(in_channels)
        self.register_buffer("source", source, persistent=False)
        self._padding = self._plain_padding()

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return len(self.source)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps (n, in_channels, H, W) to (n, out_channels, ceil(H / stride), ceil(W / stride))."""
        maps = maps[:, :, :: self.stride, :: self.stride]
        if self._padding is not None:
            return functional.pad(maps, (0, 0, 0, 0, *self._padding))
        # one more channel of zeros, which -1 stands for
        with_zero = functional.pad(maps, (0, 0, 0, 0, 0, 1))
        return with_zero.index_select(1, self.source % (self.in_channels + 1))

    def remove_inputs(self, indices: Sequence[int]) -> None:
        """Take input channels away; outputs that copied one of them are zero from now on."""
        kept = _kept(self.in_channels, indices)
        # the last entry is what -1 becomes
        numbers = torch.full((self.in_channels + 1,), -1)
        numbers[kept] = torch.arange(len(kept))
        self.source = numbers.to(self.source.device)[self.source]
        self.in_channels = len(kept)
        self._padding = self._plain_padding()

    def remove_outputs(self, indices: Sequence[int]) -> None:
        """Take output channels away."""
        self.source = self.source[_kept(self.out_channels, indices).to(self.source.device)]
        self._padding = self._plain_padding()

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"

    def _plain_padding(self) -> tuple[int, int] | None:
        """Zero channels before and behind, where all inputs are copied once, in order; padding is faster."""
        source = self.source.tolist()
        if 0 not in source:
            return None
        before = source.index(0)
        behind = len(source) - before - self.in_channels
        plain = [-1] * before + list(range(self.in_channels)) + [-1] * behind
        return (before, behind) if source == plain else None


def _kept(count: int, removed: Sequence[int]) -> Tensor:
    keep = torch.ones(count, dtype=torch.bool)
    keep[torch.as_tensor(list(removed), dtype=torch.int64)] = False
    return keep.nonzero().flatten()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (the basic block of He et al., arXiv 1512.03385).

    Parameters
    ----------
    before, after
        Channels of input and output.
    stride
        Of the first convolution.
    shortcut
        Makes of the block's input what is added to the output of the second convolution.
    """

    def __init__(self, before: int, after: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = shortcut

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps (n, before, H, W) to (n, after, H / stride, W / stride), rounded up."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class _ResNet(nn.Module):
    """A 3x3 convolution, stages of residual blocks, the average over space, a linear layer.

    Parameters
    ----------
    n_classes, in_channels
        Outputs, and channels of the images.
    channels, blocks
        Filters and number of blocks of each stage; each stage but the first halves height and width.
    shortcut
        Makes the shortcut that changes the size, given channels before and after.
    """

    def __init__(
        self,
        n_classes: int,
        in_channels: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        shortcut: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self._stages: list[str] = []
        before = channels[0]
        for stage, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            layers = []
            for block in range(count):
                shrinks = stage > 0 and block == 0
                beside = shortcut(before, width) if shrinks else nn.Identity()
                layers.append(ResidualBlock(before, width, 2 if shrinks else 1, beside))
                before = width
            self._stages.append(f"layer{stage + 1}")
            self.add_module(self._stages[-1], nn.Sequential(*layers))
        self.linear = nn.Linear(before, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, H, W) to logits (n, n_classes)."""
        maps = functional.relu(self.bn1(self.conv1(images)))
        for name in self._stages:
            maps = self.get_submodule(name)(maps)
        logits: Tensor = self.linear(_averaged(maps))
        return logits


class SmallResNet(_ResNet):
    """A small residual network; shortcuts that change the size are strided 1x1 convolutions with batch norm.

    Parameters
    ----------
    n_classes
        Outputs.
    in_channels
        Channels of the images.
    channels, blocks
        Filters and number of blocks of each stage; each stage but the first halves height and width.
    """

    def __init__(
        self,
        n_classes: int = 10,
        in_channels: int = 1,
        channels: Sequence[int] = (24, 48, 64),
        blocks: Sequence[int] = (1, 1, 1),
    ) -> None:
        super().__init__(n_classes, in_channels, channels, blocks, _projection)


def _projection(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))


class CifarResNet(_ResNet):
    """The residual networks of He et al. (arXiv 1512.03385, section 4.2) for CIFAR, with shortcuts of option A.

    Three stages of 16, 32 and 64 filters. The names in its state dict (``conv1``, ``bn1``, ``layer1.0.conv1`` ...,
    ``linear``) are those of the widespread implementation by Yerlan Idelbayev.

    Parameters
    ----------
    depth
        6 n + 2 layers with weights, for n blocks in each stage: 20, 32, 44, 56, 110 in the paper.
    n_classes
        Outputs.
    in_channels
        Channels of the images.

    Raises
    ------
    InputError
        There is no network of this depth.
    """

    def __init__(self, depth: int = 20, n_classes: int = 10, in_channels: int = 3) -> None:
        if whole_number("depth", depth, 8) % 6 != 2:
            raise InputError(f"depth = {depth}: use 6 n + 2 layers, such as {', '.join(map(str, CIFAR_DEPTHS))}")
        super().__init__(n_classes, in_channels, _CIFAR_CHANNELS, [(depth - 2) // 6] * 3, PaddedShortcut)


# --- with concatenation ----------------------------------------------------------------------------


class SmallDenseNet(nn.Module):
    """A small DenseNet (arXiv 1608.06993, without bottlenecks): a layer reads all layers before it in its block.

    Parameters
    ----------
    n_classes
        Outputs.
    in_channels
        Channels of the images.
    growth
        Filters of each layer; the first convolution has twice as many.
    blocks
        Layers of each block. Between blocks a 1x1 convolution halves the channels and average pooling the sides.
    """

    def __init__(
        self, n_classes: int = 10, in_channels: int = 1, growth: int = 16, blocks: Sequence[int] = (3, 3, 3)
    ) -> None:
        super().__init__()
        width = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False)]
        for number, count in enumerate(blocks):
            if number:
                layers.append(_transition(width, width // 2))
                width //= 2
            for _ in range(count):
                layers.append(_DenseLayer(width, growth))
                width += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, in_channels, H, W) to logits (n, n_classes)."""
        logits: Tensor = self.classifier(_averaged(self.features(images)))
        return logits


class _DenseLayer(nn.Module):
    """Puts new feature maps behind those that it reads."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, self.conv(functional.relu(self.bn(maps)))], dim=1)


def _transition(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False), nn.AvgPool2d(2)
    )


# --- by name ---------------------------------------------------------------------------------------

FAMILIES: dict[str, type[nn.Module]] = {"cnn": SmallCNN, "resnet": SmallResNet, "densenet": SmallDenseNet}


def build_network(
    name: str, n_classes: int, in_channels: int, image_size: int | tuple[int, int], seed: int = 0
) -> nn.Module:
    """Build a classifier with random weights and try it on images of the wanted size.

    Parameters
    ----------
    name
        - ``"cnn"``, ``"resnet"`` or ``"densenet"``: the small families above;
        - ``"resnet20"``, ``32``, ``44``, ``56`` or ``110``: :class:`CifarResNet`;
        - a classification model of torchvision, such as ``"resnet18"``; where images have not three channels, its
          first convolution is made anew;
        - ``"FILE.py:FUNCTION"``: the user's own. **The file is run**, and the function called with those of
          ``n_classes``, ``in_channels`` and ``image_size`` that it has as parameters; it returns a module.
    n_classes
        Outputs, at least 2.
    in_channels
        Channels of the images.
    image_size
        Height and width of the images in pixels, or one number for both.
    seed
        Of the weights. The global random state is not changed, but for what the user's own code does to it.

    Returns
    -------
    Module
        On the CPU, in training mode; takes (n, in_channels, height, width) and gives logits (n, n_classes).

    Raises
    ------
    InputError
        There is no such network, it cannot be built, or it does not fit the images or the classes.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    with _seeded(seed), warnings.catch_warnings():
        # some constructors of torchvision announce another random start
        warnings.simplefilter("ignore")
        network = _construct(name, n_classes, in_channels, (height, width)).train()
        _check_kind(network, name)
        _try(network, name, n_classes, (in_channels, height, width))
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # the initialisers of torch.nn know the global generator only
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _construct(name: str, n_classes: int, in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    if ":" in name:
        return _users_own(name, {"n_classes": n_classes, "in_channels": in_channels, "image_size": image_size})
    if name in FAMILIES:
        return FAMILIES[name](n_classes=n_classes, in_channels=in_channels)
    cifar = {f"resnet{depth}": depth for depth in CIFAR_DEPTHS}
    if name in cifar:
        return CifarResNet(cifar[name], n_classes, in_channels)
    ours = (*FAMILIES, *cifar)
    known, trouble = ours, ""
    try:
        known = (*ours, *available_backbones())
    except InputError as error:
        trouble = f" ({error})"
    if name not in known:
        hint = nearest(name, known) or f"; ours are {', '.join(ours)}"
        raise InputError(
            f"unknown network {printable(name)!r}{hint}: use one of ours, a classification model of torchvision"
            f"{trouble}, or FILE.py:FUNCTION"
        )
    return _of_torchvision(name, n_classes, in_channels)


def _of_torchvision(name: str, n_classes: int, in_channels: int) -> nn.Module:
    models = import_torchvision().models
    builder = models.get_model_builder(name)
    arguments: dict[str, Any] = {"weights": None, "num_classes": n_classes}
    if name in ("googlenet", "inception_v3"):
        # further outputs in training mode, of which nothing here knows
        arguments["aux_logits"] = False
    try:
        network: nn.Module = builder(**arguments)
    except Exception as error:  # whatever 80 constructors raise
        raise InputError(f"{name} cannot be built ({reason_of(error)}): take another network") from None
    if in_channels != 3:
        _change_input(network, in_channels)
    return network


def _change_input(network: nn.Module, in_channels: int) -> None:
    """Make the first convolution anew, for images of another number of channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, own = name.rpartition(".")
    fresh = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    network.get_submodule(parent).register_module(own, fresh)


def _users_own(name: str, arguments: dict[str, Any]) -> nn.Module:
    text, _, function = name.rpartition(":")
    path = Path(text)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"{printable(name)!r}: there is no Python file {printable(text)!r}: write FILE.py:FUNCTION, with a"
            " function that returns a torch module"
        )
    builder = getattr(_run_file(path), function, None)
    if not callable(builder):
        raise InputError(f"{path}: has no function {function!r}: define one that returns a torch module")
    with suppress(TypeError, ValueError):
        parameters = inspect.signature(builder).parameters
        arguments = {key: value for key, value in arguments.items() if key in parameters}
    try:
        network = builder(**arguments)
    except (Exception, SystemExit) as error:  # the user's code raises what it likes
        raise InputError(
            f"{path}: {function}({', '.join(arguments)}) fails with {type(error).__name__} ({reason_of(error)})"
        ) from None
    if not isinstance(network, nn.Module):
        raise InputError(f"{path}: {function} returns {type(network).__name__}: let it return a torch.nn.Module")
    return network


def _run_file(path: Path) -> Any:
    """Run a Python file as a module of its own, which finds its neighbours as a script does."""
    path = path.resolve()
    # named by its path, so that two files of one name do not meet; classes look for their module there
    spec = importlib.util.spec_from_file_location(f"moevoprune_user.{path}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code raises what it likes
        del sys.modules[spec.name]
        raise InputError(f"{path}: cannot be run: {type(error).__name__} ({reason_of(error)})") from None
    finally:
        sys.path.remove(str(path.parent))
    return module


def _check_kind(network: nn.Module, name: str) -> None:
    """Refuse modules whose layers cannot be looked at or cut."""
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError(f"{name} is compiled by torch.jit, and cannot be cut: let it return the plain module")
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in network.parameters()):
        raise InputError(f"{name} has lazy layers without weights: let it run the module once on images first")


def _try(network: nn.Module, name: str, n_classes: int, shape: tuple[int, int, int]) -> None:
    """Hold a network to the promised shapes, in both modes, without touching its state."""
    trial = copy.deepcopy(network)
    # two numbers of images, as some modules are written for one number only
    for training, n_images in ((True, 2), (False, 1)):
        try:
            with torch.no_grad():
                logits = trial.train(training)(torch.zeros(n_images, *shape))
        except (
            Exception,
            SystemExit,
        ) as error:  # images that are too small, and whatever else the network's code finds
            raise InputError(
                f"{name} does not take images of {shape[0]} channels and {shape[1]} x {shape[2]} pixels"
                f" ({reason_of(error)}): give others, or another network"
            ) from None
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if found != (n_images, n_classes):
            count = "1 image" if n_images == 1 else f"{n_images} images"
            raise InputError(
                f"{name} gives {found} for {count} of {n_classes} classes: it must give logits, (n, {n_classes})"
            )


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Give a network all of its weights from a file, which is read without running anything in it.

    Wrappers (``{"state_dict": ...}``) and prefixes (``module.``) of training tools are understood.

    Parameters
    ----------
    network
        Changed in place; of no use after an error.
    path
        A state dict: ``torch.save``, or ``.safetensors``.

    Raises
    ------
    InputError
        The file cannot be read, a tensor is missing, of another shape or not finite, or there are more than the
        network has.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        # opening a FIFO would wait for ever
        raise InputError(
            f"{path}: is no regular file: save a state dict with torch.save(model.state_dict(), FILE)"
        )
    state, own = read_state(path), network.state_dict()
    kind = type(network).__name__
    advice = "is it the file of another network, or of another number of classes?"
    # what the network lacks is looked for last: a file that fits nowhere is described better by what is missing
    load_state(network, state, set(own), str(path), kind, advice)
    unexpected = [key for key in renamed(state, own)[0] if key not in own]
    if unexpected:
        more = f" and {len(unexpected) - _MOST_NAMED} more" if len(unexpected) > _MOST_NAMED else ""
        names = ", ".join(repr(printable(key)) for key in unexpected[:_MOST_NAMED])
        raise InputError(f"{path} does not fit {kind}: it also holds {names}{more}; {advice}")
