"""Finished networks as files: safetensors to load again, ONNX and .pt2 to use without this package."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from moevoprune.device import reproducible
from moevoprune.errors import InputError, printable, words_of
from moevoprune.files import atomic_path, open_regular, ordered_safetensors
from moevoprune.filters.cutting import cut
from moevoprune.filters.finishing import FinishedNetwork, weights_of
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.images import Normalisation, to_tensor
from moevoprune.filters.networks import build_network, load_weights
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.fronts.export.formats import FORMATS, check_installed, encode, format_of, open_exported
from moevoprune.fronts.export.modules import FusedModule

__all__ = [
    "ExportedNetwork",
    "NetworkRecord",
    "export_network",
    "export_saved",
    "load_network",
    "read_record",
    "save_network",
]

Bits = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_ENDING = ".safetensors"
_FORMAT = "moevoprune-filters-1"
_EXPORT_FORMAT = "moevoprune-export-1"
# of a record in a file: beyond these a slip, or a file made to fill the memory, is likelier than a network
_MOST_CLASSES, _MOST_CHANNELS, _LARGEST_SIDE, _MOST_FILTERS = 1_000_000, 4096, 4096, 10_000_000
# images that an exported file is tried on, and what its probabilities may differ by: runtimes round differently
_TRIED = 512
_TOLERANCE = 1e-4


class NetworkRecord(BaseModel):
    """What a saved network is, beside its weights.

    Parameters
    ----------
    architecture
        Name of the whole network, as :func:`~moevoprune.filters.networks.build_network` takes it.
    role
        What the network was called.
    n_classes, in_channels
        Outputs, and channels of the images.
    image_size
        Height and width of the images in pixels.
    keep
        Modules whose filters were kept whole.
    n_filters
        Bits of the mask.
    packed
        The mask: eight filters a byte, the first in the highest bit, in hexadecimal.
    mean, std
        What images are normalised by, for each channel, in units of the full range (0..1).
    class_names
        One for each class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    architecture: str = Field(min_length=1)
    role: str
    n_classes: int = Field(ge=2, le=_MOST_CLASSES)
    in_channels: int = Field(ge=1, le=_MOST_CHANNELS)
    image_size: tuple[int, int]
    keep: tuple[str, ...]
    n_filters: int = Field(ge=1, le=_MOST_FILTERS)
    packed: str = Field(pattern="^([0-9a-f]{2})+$")
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    @property
    def mask(self) -> Bits:
        """Filters that the network kept, shape (n_filters,)."""
        packed = np.frombuffer(bytes.fromhex(self.packed), np.uint8)
        return np.unpackbits(packed, count=self.n_filters).astype(np.bool_)

    @property
    def normalisation(self) -> Normalisation:
        """What images are normalised by."""
        return Normalisation(self.mean, self.std)

    def _check(self) -> None:
        """Hold the parts to one another."""
        if not all(1 <= side <= _LARGEST_SIDE for side in self.image_size):
            raise InputError(f"image_size = {self.image_size} is no height and width")
        if len(self.packed) != 2 * -(-self.n_filters // 8):
            raise InputError(f"the mask has {4 * len(self.packed)} bits for {self.n_filters} filters")
        if len(self.normalisation.mean) != self.in_channels:
            raise InputError(f"mean and std have {len(self.mean)} numbers for {self.in_channels} channels")
        if len(self.class_names) != self.n_classes:
            raise InputError(f"there are {len(self.class_names)} class names for {self.n_classes} classes")


def save_network(
    path: str | Path, finished: FinishedNetwork, problem: FilterPruningProblem, architecture: str
) -> None:
    """Write a finished network as a safetensors file that :func:`load_network` reads.

    It holds weights and buffers, and as metadata a :class:`NetworkRecord`; no code and no pickle.

    Parameters
    ----------
    path
        Ends in ``.safetensors``; its folder must exist.
    finished
        The network.
    problem
        The problem that it is from.
    architecture
        Name of the whole network, as :func:`~moevoprune.filters.networks.build_network` takes it. For a network
        that has none any words will do: it is then loaded with ``load_network(path, network)``.

    Raises
    ------
    InputError
        The name has another ending or characters that cannot be stored, or the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    _check_ending(path)
    channels, height, width = problem.images.shape
    try:
        record = NetworkRecord(
            architecture=architecture,
            role=finished.role,
            n_classes=problem.images.n_classes,
            in_channels=channels,
            image_size=(height, width),
            keep=problem.graph.keep,
            n_filters=problem.graph.n_bits,
            packed=np.packbits(finished.mask).tobytes().hex(),
            mean=problem.normalisation.mean,
            std=problem.normalisation.std,
            class_names=problem.images.class_names,
        )
    except ValidationError as error:
        raise InputError(f"{path}: the network cannot be saved ({_complaint(error)})") from None
    content = save(weights_of(finished.network), {"format": _FORMAT, "about": json.dumps(record.model_dump())})
    with atomic_path(path) as temporary:
        temporary.write_bytes(ordered_safetensors(content))


def read_record(path: str | Path) -> NetworkRecord:
    """Read what a saved network is, without its weights.

    Parameters
    ----------
    path
        A file that :func:`save_network` wrote.

    Raises
    ------
    InputError
        The file is missing, damaged, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_ending(path)
    try:
        # opening a FIFO would wait for ever
        open_regular(path).close()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as a network ({words_of(error)})") from None
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path}: is no network that filter pruning has saved")
    try:
        record = NetworkRecord.model_validate_json(metadata.get("about", ""))
        record._check()
    except ValidationError as error:
        raise InputError(f"{path}: is damaged ({_complaint(error)})") from None
    except InputError as error:
        raise InputError(f"{path}: is damaged ({error})") from None
    return record


def load_network(path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """Load a saved network: build the whole one, cut it by the mask, give it the weights.

    The file itself can run nothing. But a network that was given as ``FILE.py:FUNCTION`` is built by **running
    that file again**, from where its path leads today: load such files only from people whom you would let run
    code, or give `network`, and nothing is run.

    Parameters
    ----------
    path
        A file that :func:`save_network` wrote.
    network
        The whole network, before it was cut, with any weights; it is not changed. None to build it by its name.

    Returns
    -------
    nn.Module
        On the CPU, in evaluation mode; takes images that are normalised by the ``normalisation`` of
        :func:`read_record`, shape (n, in_channels, height, width), and gives logits (n, n_classes).

    Raises
    ------
    InputError
        The file is missing, damaged or another kind of file; the network cannot be built, or mask and weights do
        not fit it.
    """
    path = Path(path)
    record = read_record(path)
    try:
        if network is None:
            network = build_network(record.architecture, record.n_classes, record.in_channels, record.image_size)
        whole = copy.deepcopy(network).cpu()
        graph = FilterGraph(whole, torch.zeros(1, record.in_channels, *record.image_size), record.keep)
        if graph.n_bits != record.n_filters:
            raise InputError(
                f"its mask is for {record.n_filters} filters, but {printable(record.architecture)} has"
                f" {graph.n_bits}: is it the file of another network?"
            )
        smaller = cut(graph, whole, record.mask)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    load_weights(smaller, path)
    return smaller.eval()


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported file, checked.

    Attributes
    ----------
    path
        The file.
    format
        What its ending stands for.
    n_bytes
        Its size.
    difference
        Largest difference of its class probabilities from the network's, on the images of the check.
    n_images, n_agreeing
        Images of the check, and how many of them get the same class.
    """

    path: Path
    format: str
    n_bytes: int
    difference: float
    n_images: int
    n_agreeing: int


def export_network(finished: FinishedNetwork, path: str | Path, problem: FilterPruningProblem) -> ExportedNetwork:
    """Write a finished network as a file that needs no moevoprune, with the normalisation inside.

    The file takes ``images``, float32 with values in [0, 1], shape (n, channels, height, width), any n, and gives
    ``probabilities``, shape (n, n_classes). It is read again and compared with the network on test images, whose
    classes are not read, before it gets its name.

    Parameters
    ----------
    finished
        The network.
    path
        Ends in ``.onnx`` or ``.pt2``; its folder must exist.
    problem
        The problem that it is from.

    Raises
    ------
    InputError
        The format is another or lacks a package; the network cannot be exported; the file cannot be written, or
        does not give what the network gives.
    """
    images = problem.images
    return _export(
        finished.network, finished.role, problem.normalisation, images.class_names, images.X_test, Path(path)
    )


def export_saved(
    saved: str | Path, path: str | Path, images: Array, network: nn.Module | None = None
) -> ExportedNetwork:
    """Write a saved network as :func:`export_network` writes a finished one.

    Parameters
    ----------
    saved
        A file that :func:`save_network` wrote.
    path
        Ends in ``.onnx`` or ``.pt2``; its folder must exist.
    images
        What the file is tried on: uint8, or float32 with the full range 0..1, shape (n, height, width, channels).
    network
        As for :func:`load_network`.

    Raises
    ------
    InputError
        As :func:`load_network` and :func:`export_network`, or the images have another shape.
    """
    record = read_record(saved)
    wanted = (*record.image_size, record.in_channels)
    if images.ndim != 4 or images.shape[1:] != wanted or len(images) == 0:
        shape = ", ".join(map(str, wanted))
        raise InputError(f"images have shape {images.shape}: give (n, {shape}), n at least 1")
    smaller = load_network(saved, network)
    return _export(smaller, record.role, record.normalisation, record.class_names, images, Path(path))


def _export(
    network: nn.Module,
    role: str,
    normalisation: Normalisation,
    class_names: tuple[str, ...],
    images: Array,
    path: Path,
) -> ExportedNetwork:
    ending = format_of(path)
    if ending == _ENDING:
        raise InputError(f"{path}: .safetensors holds weights and no network: use .onnx or .pt2, or save_network")
    check_installed(ending)
    network = copy.deepcopy(network).cpu().requires_grad_(False)
    module = FusedModule(network, normalisation, nn.Softmax(dim=1)).eval()
    channels = len(normalisation.mean)
    pixels = to_tensor(images[:_TRIED], Normalisation((0.0,) * channels, (1.0,) * channels))
    metadata = {
        "format": _EXPORT_FORMAT,
        "task": "classification",
        "member": role,
        "input": "images",
        "output": "probabilities",
        "input_is": "images in [0, 1], (images, channels, height, width)",
        "class_names": json.dumps(class_names, ensure_ascii=False),
    }
    # a batch of one would be taken for a constant
    example = pixels[torch.arange(2) % len(pixels)]
    names = ("images", "probabilities")
    content = encode(ending, module, example, names, metadata, "write what it stumbles over in another way")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        difference, n_agreeing = _compared(module, temporary, pixels)
        if not difference <= _TOLERANCE:
            raise InputError(
                f"{path}: was not written: its probabilities would differ from the network's by {difference:.2g},"
                f" more than {_TOLERANCE:g}: use another format"
            )
    return ExportedNetwork(path, FORMATS[ending], len(content), difference, len(pixels), n_agreeing)


def _compared(module: nn.Module, path: Path, images: Tensor) -> tuple[float, int]:
    """Largest difference of a file from a module, for all images and for one alone, and equal classes."""
    rows: Floats = images.numpy()
    with reproducible(torch.device("cpu")):
        expected: Floats = module(images).numpy()
        predictor = open_exported(path)
        found, single = predictor(rows), predictor(rows[:1])
    difference = max(float(np.abs(found - expected).max()), float(np.abs(single - expected[:1]).max()))
    return difference, int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())


def _check_ending(path: Path) -> None:
    if path.suffix != _ENDING:
        raise InputError(f"{path}: networks are saved as {_ENDING}: use a name that ends so")


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return printable(f"{place}: {first['msg']}" if place else str(first["msg"]))
