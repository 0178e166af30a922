"""Figures against pictures of them that were looked at once.

The pictures hold what is drawn from the data and no text: letters differ between versions of FreeType, lines and
points do not. What the words say is tested in ``test_plots.py``. After a change that is meant to be, draw them
again, look at them, and commit them:

    python tests/fronts/test_plot_images.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import plot_data
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

from moevoprune.fronts import plots
from moevoprune.fronts.seeds import front_attainment

BASELINES = Path(__file__).parent / "baseline_images"
# root of the mean square difference of pixels from 0 to 255; the smallest mark, left out, makes it 2.3
TOLERANCE = 1.5
DRAWN = {
    "front": (plots.plot_front, plot_data.make_front(40)),
    "front_3d": (plots.plot_front_3d, plot_data.make_front(40, low=20)),
    "pairs": (plots.plot_pairs, plot_data.make_front(40)),
    "parallel": (plots.plot_parallel, plot_data.make_front(20)),
    "convergence": (plots.plot_convergence, plot_data.make_front()),
    "comparison": (plots.plot_comparison, plot_data.make_results()),
    "windows": (plots.plot_windows, plot_data.make_windows()),
    "robustness": (plots.plot_robustness, plot_data.make_curves()),
    "robustness_of_kinds": (plots.plot_robustness, plot_data.make_curves(("feature_noise", "fog"))),
    "attainment": (plots.plot_attainment, front_attainment(plot_data.make_runs())),
    "frequency": (plots.plot_frequency, plot_data.make_explanation()),
    "importance": (plots.plot_importance, plot_data.make_explanation()),
}


OLD = tuple(map(int, matplotlib.__version__.split(".")[:2])) < (3, 9)


def draw(name):
    """A figure without its text, laid out by fixed shares: sizes of letters move nothing."""
    function, data = DRAWN[name]
    # whatever the settings of this machine are
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(5.0, 3.6), dpi=60, facecolor="white")
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8), projection="3d" if name == "front_3d" else None)
        function(data, ax=axes)
    for artist in figure.findobj(lambda artist: isinstance(artist, Text | Legend)):
        artist.set_visible(False)
    return figure


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float64)


def difference(one, other):
    return float(np.sqrt(((one - other) ** 2).mean()))


def baseline(name):
    with Image.open(BASELINES / f"{name}.png") as image:
        return np.asarray(image.convert("RGB")).astype(np.float64)


def parts(figure):
    """All that stands for data, and covers something: lines, points, areas and bars."""
    found = []
    for axes in figure.findobj(Axes):
        found += [*axes.lines, *axes.collections, *axes.patches]
    # the lines between the colours of a colour bar are there, but none in number
    return [part for part in found if not (isinstance(part, LineCollection) and not part.get_segments())]


@pytest.mark.parametrize(
    "name",
    [
        # 3-D axes chose other limits before
        pytest.param(name, marks=pytest.mark.skipif(OLD, reason="mplot3d of matplotlib < 3.9"))
        if name == "front_3d"
        else name
        for name in DRAWN
    ],
)
def test_figure_looks_as_it_did(name, tmp_path):
    drawn, expected = pixels(draw(name)), baseline(name)
    assert drawn.shape == expected.shape
    Image.fromarray(drawn.astype(np.uint8)).save(tmp_path / f"{name}.png")
    assert difference(drawn, expected) <= TOLERANCE, f"{tmp_path}/{name}.png is not {BASELINES}/{name}.png"


@pytest.mark.parametrize("name", DRAWN)
def test_a_missing_part_is_noticed(name):
    figure, expected = draw(name), baseline(name)
    found = parts(figure)
    assert found
    for part in found:
        part.set_visible(False)
        assert difference(pixels(figure), expected) > TOLERANCE, part
        part.set_visible(True)


def test_baselines_are_those_of_the_figures_and_small():
    assert {path.stem for path in BASELINES.iterdir()} == set(DRAWN)
    for path in BASELINES.iterdir():
        assert path.stat().st_size < 40_000


def main():
    """Draw the pictures again."""
    BASELINES.mkdir(exist_ok=True)
    for name in DRAWN:
        Image.fromarray(pixels(draw(name)).astype(np.uint8)).save(BASELINES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
