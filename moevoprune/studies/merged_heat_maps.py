"""Heat maps of the neurons that are active most often over a merged front: where they look in test images."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from moevoprune.cli.data import extract_images
from moevoprune.cli.member_maps import pick_images
from moevoprune.cli.sweeping import SweepRun
from moevoprune.files import atomic_path
from moevoprune.fronts.heatmaps import Shown, draw_heat_maps, heat_maps
from moevoprune.studies.frequent_neurons import TOP, Neurons

__all__ = ["save_merged_heat_maps"]

_COLOURS = 256


def save_merged_heat_maps(run: SweepRun, neurons: Neurons, path: Path) -> None:
    """Draw where the ten most frequent neurons look, one test image per class, and write it as a small PNG.

    The prediction shown with each image is that of the merged front's knee.

    Parameters
    ----------
    run
        One of the runs whose fronts were merged, on images.
    neurons
        Of these runs.
    path
        The file; its folder is made where missing.

    Raises
    ------
    InputError
        The images or the backbone cannot be read.
    """
    _save_with_few_colours(_draw(run, neurons), path)


def _draw(run: SweepRun, neurons: Neurons) -> Figure:
    """Compute the heat maps and draw them: a row per image, a column per neuron."""
    import torch

    extractor, extraction = extract_images(run.config)
    backbone, images = extractor.backbone, extraction.images
    shown = {int(images.labels[index]): index for index in reversed(pick_images(images))}
    indices = [shown[label] for label in sorted(shown)]
    merged = neurons.runs.merged
    knee, chosen = merged.knee(), neurons.explanation.top(TOP)
    preparation = backbone.preprocessing
    batch = torch.stack([preparation(images.open(index)) for index in indices])
    maps = heat_maps(
        backbone.split_at_map(), merged.heads[knee], chosen, [batch], preparation.mean, preparation.std
    )
    rows = [
        Shown(images.keys[index].replace("\\", "/").rsplit("/", 1)[-1], merged.class_names[guess], right)
        for index, guess in zip(indices, maps.outputs.argmax(axis=1).tolist(), strict=True)
        for right in [bool(images.class_names[images.labels[index]] == merged.class_names[guess])]
    ]
    frequency = neurons.explanation.frequency
    headings = [f"neuron {neuron}\n{100 * frequency[neuron]:.0f} % of members" for neuron in chosen]
    title = f"{run.name}: the knee's prediction, and the neurons most often active over the merged front"
    return draw_heat_maps(maps, rows, title, headings)


def _save_with_few_colours(figure: Figure, path: Path) -> None:
    """Write a figure of photographs as a small PNG."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    full = Image.open(drawn).convert("RGB")
    few = full.quantize(palette=full.quantize(_COLOURS, kmeans=1), dither=Image.Dither.FLOYDSTEINBERG)
    with atomic_path(path) as temporary:
        few.save(temporary, format="png", optimize=True)
