"""Heat maps over images: where in a picture a head's prediction and its features come from."""

from __future__ import annotations

import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from moevoprune.errors import InputError, printable
from moevoprune.files import atomic_path
from moevoprune.heads.head import TrainedHead

__all__ = [
    "HeatMaps",
    "MapHead",
    "Shown",
    "draw_heat_maps",
    "enlarge",
    "file_names",
    "heat_maps",
    "plain_text",
    "save_heat_maps",
]

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_VERMILLION, _GREY, _DARK = "#D55E00", "#6E6E6E", "#222222"
_DPI = 110
# inches
_CELL, _GAP, _NAMES, _EDGE = 1.12, 0.05, 1.62, 0.12
_TITLE, _HEADINGS, _CAPTION = 0.28, 0.38, 0.30
_SMALL, _MEDIUM = 8.0, 11.0
# inferno without its black end, which would darken what it lies upon
_HEAT = matplotlib.colormaps["inferno"]
_COOLEST, _HOTTEST = 0.25, 0.98
_MOST_ALPHA = 0.85

_NO_HEAT: dict[str, Any] = {"fontsize": _SMALL - 1, "color": _DARK}
_PLATE: dict[str, Any] = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}

# values of feature maps that captum is given at a time: 64 MB
_CHUNK = 2**24


class MapHead(torch.nn.Module):
    """The upper part of a fused model: from a backbone's last feature map to some features, or on to a head.

    Parameters
    ----------
    upper
        From the feature map, shape (n, c, h, w), to all features, shape (n, n_features).
    chosen
        Features to go on with, shape (k,).
    head
        What is done with them, from shape (n, k); None for nothing.

    Attributes
    ----------
    map
        Passes the feature map on: the layer to attribute to.
    """

    def __init__(self, upper: torch.nn.Module, chosen: npt.ArrayLike, head: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.map = torch.nn.Identity()
        self.upper = upper
        self.head = torch.nn.Identity() if head is None else head
        self.register_buffer("_chosen", torch.from_numpy(np.array(chosen, dtype=np.int64)))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Values of the chosen features, or outputs of the head, shape (n, outputs)."""
        # a copy: an activation that works in place would change what captum has kept of the layer
        features = self.upper(self.map(maps).clone())
        outputs: torch.Tensor = self.head(features[:, self.get_buffer("_chosen")])
        return outputs


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Grad-CAM heat maps of some images, as coarse as the backbone's last feature map.

    Attributes
    ----------
    images
        As the network sees them, cropped, without its normalisation, shape (n, height, width, 3), uint8.
    prediction
        For the output that is explained, in units of that output, 0 and up, shape (n, h, w).
    features
        For the value of each chosen feature, in units of that feature, 0 and up, shape (n, k, h, w).
    values
        The chosen features, shape (n, k).
    outputs
        The head's outputs, logits or predicted targets, shape (n, outputs).
    """

    images: npt.NDArray[np.uint8]
    prediction: Floats
    features: Floats
    values: Floats
    outputs: Floats

    def __len__(self) -> int:
        return len(self.images)

    def part(self, chosen: Indices | slice) -> HeatMaps:
        """Heat maps of some of the images."""
        return HeatMaps(
            self.images[chosen],
            self.prediction[chosen],
            self.features[chosen],
            self.values[chosen],
            self.outputs[chosen],
        )

    def scales(self) -> Floats:
        """Strongest heat of each feature over all images, shape (k,)."""
        scales: Floats = self.features.max(axis=(0, 2, 3), initial=0.0)
        return scales


@dataclass(frozen=True)
class Shown:
    """What is said of an image beside its heat maps.

    Attributes
    ----------
    name
        The image's name.
    prediction
        What the head says of it.
    right
        Whether that is its class; None where that cannot be told.
    """

    name: str
    prediction: str
    right: bool | None = None


def heat_maps(
    split: tuple[torch.nn.Module, torch.nn.Module],
    head: TrainedHead,
    chosen: npt.ArrayLike,
    batches: Iterable[torch.Tensor],
    mean: Sequence[float],
    std: Sequence[float],
) -> HeatMaps:
    """Explain a head's predictions on images, and the values of chosen features.

    Grad-CAM (Selvaraju et al., arXiv 1610.02391), by captum: the channels of the last feature map, weighted by the
    mean gradient of what is explained, added up, and cut off at 0. Explained are the logit of the predicted class,
    in regression the first target, and each chosen feature's value. The part of the backbone below the map runs
    once per image, and without gradients.

    Parameters
    ----------
    split
        The backbone's two parts: images, shape (n, 3, height, width), to the feature map, shape (n, c, h, w), and
        the map to all features, shape (n, n_features). On one device, in evaluation mode.
    head
        The head to explain.
    chosen
        Indices of the features to explain, shape (k,).
    batches
        Preprocessed images, each of shape (n, 3, height, width).
    mean, std
        Normalisation of the preprocessing, one number per colour, in units of 1 for the brightest.

    Raises
    ------
    InputError
        There is no image, or the backbone's features are not those that the head reads.
    """
    lower, upper = split
    device = next((parameter.device for parameter in lower.parameters()), torch.device("cpu"))
    # two models, as no gradient of a feature survives a diverged head beside it
    features = MapHead(upper, chosen).to(device).eval()
    outputs = MapHead(upper, head.inputs, head.to_module()).to(device).eval()
    parts = [_explain(lower, features, outputs, batch.to(device), head.task, mean, std) for batch in batches]
    if not parts:
        raise InputError("there is no image to explain")
    return HeatMaps(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def enlarge(maps: npt.NDArray[np.floating], height: int, width: int) -> Floats:
    """Bring heat maps, shape (n, h, w), to the size of their images, bilinearly, shape (n, height, width)."""
    coarse = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[:, None]
    fine: torch.Tensor = LayerAttribution.interpolate(coarse, (height, width), interpolate_mode="bilinear")
    enlarged: Floats = fine[:, 0].numpy()
    return enlarged


def draw_heat_maps(
    maps: HeatMaps,
    rows: Sequence[Shown],
    title: str,
    headings: Sequence[str],
    scales: npt.NDArray[np.floating] | None = None,
) -> Figure:
    """Draw one row per image: the image, the heat map of its prediction, and one per feature.

    Predictions are scaled image by image, features by ``scales``: so a feature's column can be compared from row
    to row, and the figures of several classes with each other.

    Parameters
    ----------
    maps
        What to draw.
    rows
        What to say of each image.
    title
        Title of the figure, plain text.
    headings
        One per feature, above its column; may have two lines.
    scales
        The heat that gets the strongest colour, one per feature; None for the strongest of these images.

    Returns
    -------
    Figure
        With an Agg canvas.

    Raises
    ------
    InputError
        There is not one row per image and one heading per feature.
    """
    n, k = maps.features.shape[:2]
    if len(rows) != n or len(headings) != k or n == 0:
        raise InputError(
            f"{len(rows)} rows and {len(headings)} headings for {n} images with {k} features each: give one each"
        )
    scales = maps.scales() if scales is None else np.asarray(scales)
    width = 2 * _EDGE + _NAMES + (k + 2) * (_CELL + _GAP) + _GAP
    # the caption wants so much room even where there is not a single feature
    width = max(width, 6.4)
    height = 2 * _EDGE + _TITLE + _HEADINGS + n * (_CELL + _GAP) + _CAPTION
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, size: float = _SMALL, room: float = np.inf, **style: Any) -> None:
        # a class called $x$ is no formula
        style = {"fontsize": size, "color": _DARK, "parse_math": False, **style}
        drawn = figure.text(x / width, y / height, text, **style)
        if room < np.inf:
            # letters differ in width, and nothing may reach into what stands beside it
            drawn.set_fontsize(size * min(1.0, room * figure.dpi / max(drawn.get_window_extent().width, 1.0)))

    with warnings.catch_warnings():
        # a class may be named in letters that the font lacks: they become boxes
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        _draw(figure, write, maps, rows, title, headings, scales, width, height)
    return figure


def save_heat_maps(
    path: str | Path,
    maps: HeatMaps,
    rows: Sequence[Shown],
    title: str,
    headings: Sequence[str],
    scales: npt.NDArray[np.floating] | None = None,
) -> Path:
    """Write :func:`draw_heat_maps` as a PNG.

    Parameters
    ----------
    path
        The file; its folder must exist.
    maps, rows, title, headings, scales
        As in :func:`draw_heat_maps`.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    path = Path(path)
    figure = draw_heat_maps(maps, rows, title, headings, scales)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # a class may be named in letters that the font lacks: they become boxes
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        # no software tag: the bytes should depend on what is drawn only
        figure.savefig(temporary, dpi=_DPI, format="png", metadata={"Software": None})
    return path


def file_names(classes: Sequence[str]) -> list[str]:
    """Make a file name of each class name: safe on every file system, and no two the same even without case.

    Parameters
    ----------
    classes
        Any text.

    Returns
    -------
    list of str
        ``explain_NAME.png``, NAME being at most 40 letters, digits, points and dashes.
    """
    names: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(classes):
        letters = [c if c.isalnum() or c in "-." else "_" for c in unicodedata.normalize("NFKC", name)]
        stem = "_".join(part for part in "".join(letters)[:40].split("_") if part).strip(".-") or f"class{number}"
        unique, count = stem, 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{stem}-{count}"
        taken.add(unique.casefold())
        names.append(f"explain_{unique}.png")
    return names


def plain_text(text: str, longest: int | None = None) -> str:
    """One line of text that disturbs neither a terminal nor a figure, shortened in the middle."""
    text = printable(text)
    if longest is None or len(text) <= longest:
        return text
    # names often differ in their ends
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[len(text) - end :]}"


def _explain(
    lower: torch.nn.Module,
    feature_model: MapHead,
    output_model: MapHead,
    images: torch.Tensor,
    task: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[npt.NDArray[Any], ...]:
    """The arrays of :class:`HeatMaps` for one batch."""
    with torch.no_grad():
        maps = lower(images)
        values = feature_model(maps).cpu().numpy()
        outputs = output_model(maps).cpu().numpy()
    explained = outputs.argmax(axis=1) if task == "classification" else np.zeros(len(outputs), np.int64)
    prediction = _grad_cam(output_model, maps, explained[:, None])[:, 0]
    features = _grad_cam(feature_model, maps, np.tile(np.arange(values.shape[1]), (len(values), 1)))
    scale = torch.tensor(std, device=images.device)[:, None, None]
    shift = torch.tensor(mean, device=images.device)[:, None, None]
    seen = ((images * scale + shift).clamp(0, 1) * 255).round().to(torch.uint8)
    return seen.permute(0, 2, 3, 1).cpu().numpy(), prediction, features, values, outputs


def _grad_cam(model: MapHead, maps: torch.Tensor, targets: Indices) -> Floats:
    """Heat of every target of every map, shape (n, targets, h, w)."""
    n, k = targets.shape
    if k == 0:
        return np.zeros((n, 0, *maps.shape[2:]), np.float32)
    # every map once per target, so that one pass upwards and one down explain them all
    step = max(1, _CHUNK // max(maps[0].numel() * k, 1))
    parts = []
    for start in range(0, n, step):
        many = maps[start : start + step].detach().repeat_interleave(k, dim=0).requires_grad_()
        wanted = targets[start : start + step].ravel().tolist()
        with torch.enable_grad(), warnings.catch_warnings():
            # captum warns of hooks that it sets and of inputs that it makes differentiable
            warnings.simplefilter("ignore", UserWarning)
            heat = LayerGradCam(model, model.map).attribute(many, target=wanted, relu_attributions=True)
        parts.append(heat.detach())
    # a diverged head's gradient is no number; it has no heat
    found: torch.Tensor = torch.nan_to_num(torch.cat(parts), nan=0.0, posinf=0.0)
    heats: Floats = found.reshape(n, k, *found.shape[2:]).cpu().numpy()
    return heats


def _draw(
    figure: Figure,
    write: Any,
    maps: HeatMaps,
    rows: Sequence[Shown],
    title: str,
    headings: Sequence[str],
    scales: npt.NDArray[np.floating],
    width: float,
    height: float,
) -> None:
    top = height - _EDGE - _TITLE
    write(_EDGE, height - _EDGE, plain_text(title, 110), _MEDIUM, width - 2 * _EDGE, va="top", weight="bold")
    heads: dict[str, Any] = {"va": "bottom", "linespacing": 1.2}
    write(_EDGE, top - _HEADINGS + 0.05, "file\nprediction", **heads)
    for column, heading in enumerate(["image", "prediction", *headings]):
        lines = "\n".join(plain_text(line, 20) for line in heading.split("\n"))
        write(_left(column) + _CELL / 2, top - _HEADINGS + 0.05, lines, room=_CELL, ha="center", **heads)
    for row, shown in enumerate(rows):
        bottom = top - _HEADINGS - (row + 1) * (_CELL + _GAP) + _GAP
        _write_names(write, bottom, shown)
        picture = maps.images[row]
        fine = enlarge(np.concatenate([maps.prediction[row][None], maps.features[row]]), *picture.shape[:2])
        limits = [float(maps.prediction[row].max(initial=0.0)), *scales.tolist()]
        panels: list[Any] = [picture, *(_overlay(picture, *pair) for pair in zip(fine, limits, strict=True))]
        for column, panel in enumerate(panels):
            box = (_left(column) / width, bottom / height, _CELL / width, _CELL / height)
            # sharp pixels of a picture made smaller would shimmer
            ax = figure.add_axes(box)
            ax.imshow(panel, interpolation="antialiased", aspect="auto")
            ax.set_axis_off()
            if column and not fine[column - 1].any():
                ax.text(0.5, 0.05, "no heat", transform=ax.transAxes, ha="center", bbox=_PLATE, **_NO_HEAT)
    _draw_scale(figure, write, width, height)


def _left(column: int) -> float:
    # the photograph stands a little apart from the heat maps
    return _EDGE + _NAMES + column * (_CELL + _GAP) + (_GAP if column else 0.0)


def _write_names(write: Any, bottom: float, shown: Shown) -> None:
    middle, room = bottom + _CELL / 2, _NAMES - 2 * _GAP
    write(_EDGE, middle + 0.02, plain_text(shown.name, 23), room=room, va="bottom", color=_GREY)
    wrong = shown.right is False
    lines = textwrap.wrap(plain_text(shown.prediction, 60), 23)[:3]
    color = _VERMILLION if wrong else _DARK
    for number, line in enumerate(lines):
        write(_EDGE, middle - 0.02 - 0.15 * number, line, room=room, va="top", color=color)
    if wrong:
        write(_EDGE, middle - 0.02 - 0.15 * len(lines), "wrong", va="top", color=color, weight="bold")


def _overlay(picture: npt.NDArray[np.uint8], heat: Floats, limit: float) -> npt.NDArray[np.uint8]:
    """Lay heat over a grey picture: colour and opacity both say how strong it is."""
    grey = (picture @ np.array([0.299, 0.587, 0.114])) / 255
    strength = np.clip(heat / limit, 0, 1) if limit > 0 else np.zeros_like(heat)
    color = _HEAT(_COOLEST + (_HOTTEST - _COOLEST) * strength)[..., :3]
    alpha = (_MOST_ALPHA * strength)[..., None]
    blend = (1 - alpha) * grey[..., None] + alpha * color
    overlay: npt.NDArray[np.uint8] = np.round(255 * blend).astype(np.uint8)
    return overlay


def _draw_scale(figure: Figure, write: Any, width: float, height: float) -> None:
    bottom = _EDGE + 0.02
    start = _EDGE + 0.62
    strip = figure.add_axes((start / width, bottom / height, 0.9 / width, 0.11 / height))
    ramp = np.tile(np.linspace(0, 1, 128, dtype=np.float32), (2, 1))
    strip.imshow(_overlay(np.full((2, 128, 3), 140, np.uint8), ramp, 1.0), aspect="auto")
    strip.set_axis_off()
    style: dict[str, Any] = {"va": "center", "color": _GREY}
    write(_EDGE, bottom + 0.055, "no heat", **style)
    caption = "strongest: for predictions in each image, for a feature in all images of all figures"
    write(start + 0.97, bottom + 0.055, caption, **style)
