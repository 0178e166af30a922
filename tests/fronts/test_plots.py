"""Figures: what is drawn, told by the artists, not by pixels."""

from __future__ import annotations

import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from plot_data import (
    AXES,
    constant_front,
    make_curves,
    make_explanation,
    make_front,
    make_results,
    make_runs,
    make_windows,
    regression_front,
)
from scipy.stats import sem, spearmanr
from scipy.stats import t as student

from moevoprune.errors import InputError
from moevoprune.fronts.front import Axis
from moevoprune.fronts.plots import (
    plot_attainment,
    plot_comparison,
    plot_convergence,
    plot_frequency,
    plot_front,
    plot_front_3d,
    plot_importance,
    plot_pairs,
    plot_parallel,
    plot_robustness,
    plot_window_means,
    plot_windows,
    save_figure,
    save_figures,
    style,
)
from moevoprune.fronts.seeds import front_attainment

FILES = ["front.png", "front3d.png", "pairs.png", "parallel.png", "convergence.png"]

EDGES = {
    "empty": make_front(0),
    "one": make_front(1),
    "two": make_front(2),
    "many": make_front(300, n_bits=4096, encoding="connections"),
    "constant": constant_front(),
    "full": make_front(3, low=128),
    "no active bit": make_front(low=0, active=np.arange(20)),
    "one bit": make_front(1, n_bits=1),
    "four": make_front(n_obj=4),
    "regression": regression_front(),
    "test unknown": make_front(test=np.full(20, np.nan), dense_test=float("nan")),
    "odd names": make_front(axes=(Axis("my_$cost", True), Axis("x" * 90, False), Axis("_a$b$ {", True))),
}


# of them one figure alone takes notice
HISTORIES = {
    "no history": make_front(history={}),
    "empty history": make_front(history={key: np.zeros(0) for key in ("evaluations", "hypervolume", "best")}),
    "nothing feasible": make_front(
        history={
            "evaluations": np.array([20.0]),
            "hypervolume": np.array([0.0]),
            "best": np.array([np.nan]),
        }
    ),
}


def by_label(ax):
    return {handle.get_label(): handle for handle in ax.get_legend_handles_labels()[0]}


def texts(ax):
    return [text.get_text() for text in ax.texts]


# --- all figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EDGES)
def test_every_front_can_be_drawn(name):
    # no pixels: only whether it works, and without a warning
    for draw in (plot_front, plot_front_3d, plot_pairs, plot_parallel, plot_convergence):
        draw(EDGES[name]).figure.draw_without_rendering()


@pytest.mark.parametrize("name", HISTORIES)
def test_every_history_can_be_drawn(name):
    plot_convergence(HISTORIES[name]).figure.draw_without_rendering()


@pytest.fixture
def few_pixels(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


# read as a plain dict: asking RcParams itself for the backend would choose one
def global_state():
    return dict(dict.items(matplotlib.rcParams)), len(Gcf.get_all_fig_managers())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Paths of a front's figures, of few pixels, and what was global before they were drawn."""
    before = global_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 30)
        return save_figures(make_front(), tmp_path_factory.mktemp("saved")), before


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("n_obj", [1, 2])
def test_save_figures_writes_what_it_returns(tmp_path, n_obj):
    folder = tmp_path / "run" / "figures"
    paths = save_figures(make_front(n_obj=n_obj), folder)
    assert [path.name for path in paths] == ["front.png", "parallel.png", "convergence.png"]
    assert sorted(folder.iterdir()) == sorted(paths)


@pytest.mark.usefixtures("few_pixels")
def test_same_front_same_bytes(saved, tmp_path):
    paths, _ = saved
    assert [path.name for path in paths] == FILES
    for first, second in zip(paths, save_figures(make_front(), tmp_path), strict=True):
        data = first.read_bytes()
        assert data == second.read_bytes()
        for chunk in (b"tEXt", b"iTXt", b"tIME", b"Software"):
            assert chunk not in data


def test_no_global_state_is_touched(saved):
    _, before = saved
    assert global_state() == before


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        save_figures(make_front(), tmp_path / "file" / "figures")


ALL = {
    "front": (plot_front, make_front()),
    "pairs": (plot_pairs, make_front(n_obj=4)),
    "parallel": (plot_parallel, make_front()),
    "convergence": (plot_convergence, make_front()),
    "comparison": (plot_comparison, make_results()),
    "windows": (plot_windows, make_windows()),
    "robustness": (plot_robustness, make_curves()),
    "robustness of kinds": (plot_robustness, make_curves(("feature_noise", "fog", "jpeg", "$x_y$"))),
    "attainment": (plot_attainment, front_attainment(make_runs())),
    "frequency": (plot_frequency, make_explanation()),
    "importance": (plot_importance, make_explanation()),
}


@pytest.mark.parametrize("name", ALL)
def test_given_axes_are_drawn_on(name):
    draw, data = ALL[name]
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(data, ax=left) is left
    assert left.lines or left.patches or left.child_axes
    assert not right.lines
    assert not right.child_axes


@pytest.mark.parametrize("name", ALL)
def test_legend_and_names_are_in_nobodys_way(name):
    ax = ALL[name][0](ALL[name][1])
    figure = ax.figure
    figure.draw_without_rendering()
    boxes = [legend.get_window_extent() for legend in figure.findobj(Legend)]
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    places = [ax, *ax.child_axes] if ax.axison else ax.child_axes
    boxes += [label.get_window_extent() for panel in places for label in (panel.xaxis.label, panel.title)]
    boxes = [box for box in boxes if box.width > 0]
    boxes += [panel.get_window_extent() for panel in places]
    for one, other in itertools.combinations(boxes, 2):
        # they may touch
        assert not one.padded(-1).overlaps(other.padded(-1))


@pytest.mark.parametrize("draw", [plot_front, plot_front_3d, plot_pairs, plot_parallel])
def test_front_without_members_says_so(draw):
    ax = draw(make_front(0))
    assert any("no members" in text for text in texts(ax))
    assert not ax.collections


# --- plot_front ------------------------------------------------------------------------------------------------


def test_front_shows_all_members_and_the_dense_head():
    front = make_front(40)
    artists = by_label(plot_front(front))
    np.testing.assert_array_equal(
        artists["validation"].get_offsets(), np.column_stack([front.active, front.values[:, 0]])
    )
    np.testing.assert_array_equal(artists["test"].get_offsets(), np.column_stack([front.active, front.test]))
    np.testing.assert_array_equal(artists["dense, validation"].get_offsets(), [[128, 0.9]])
    np.testing.assert_array_equal(artists["dense, test"].get_offsets(), [[128, 0.91]])
    knee = front.knee()
    np.testing.assert_array_equal(artists["knee"].get_offsets(), [[front.active[knee], front.values[knee, 0]]])


@pytest.mark.parametrize("front", [make_front(40), regression_front()], ids=["maximised", "minimised"])
def test_staircase_is_what_no_other_member_beats(front):
    size, loss = front.active, front.F[:, 0]
    expected = {
        (size[i], front.values[i, 0])
        for i in range(len(front))
        if not any(
            size[j] <= size[i] and loss[j] <= loss[i] and (size[j] < size[i] or loss[j] < loss[i])
            for j in range(len(front))
        )
    }
    line = by_label(plot_front(front))["best for its size"]
    assert line.get_drawstyle() == "steps-post"
    assert (np.diff(line.get_xdata()) > 0).all()
    assert set(zip(line.get_xdata(), line.get_ydata(), strict=True)) == expected


def test_labels_name_members_and_their_values():
    front = make_front(2, active=np.array([1, 12]))
    front = replace(front, values=np.array([[0.5, 0.1, 0.6], [0.8034, 0.3, 0.7]]))
    front = replace(front, F=np.array([[0.5, 0.1, 0.4], [0.1966, 0.3, 0.3]]))
    assert texts(plot_front(front)) == [
        "knee, best: 12 neurons, .803",
        "smallest: 1 neuron, .500",
        "dense: 128 neurons, .900",
    ]


def test_smallest_member_near_the_best_is_labelled():
    front = make_front(3, active=np.array([2, 30, 90]))
    scores = np.array([0.4, 0.893, 0.9])
    values = np.column_stack([scores, front.active / 128, [0.5, 0.5, 0.9]])
    front = replace(front, values=values, F=np.column_stack([1 - scores, values[:, 1], 1 - values[:, 2]]))
    assert any("within .01 of best" in text and "30 neurons, .893" in text for text in texts(plot_front(front)))


@pytest.mark.parametrize("name", ["many", "constant", "regression", "four", "two", "one"])
def test_labels_stay_inside_and_do_not_overlap(name):
    ax = plot_front(EDGES[name])
    ax.figure.draw_without_rendering()
    # the extent of an annotation takes in its leader, that of its text does not
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) >= 2
    for box in boxes:
        assert ax.bbox.x0 <= box.x0
        assert box.x1 <= ax.bbox.x1 + 1
        assert ax.bbox.y0 <= box.y0
        assert box.y1 <= ax.bbox.y1 + 1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize(
    ("low", "scale"), [(1, "log"), (12, "log"), (13, "linear"), (128, "linear"), (0, "linear")]
)
def test_sizes_are_logarithmic_from_a_decade_on(low, scale):
    ax = plot_front(make_front(3, active=np.array([low, 128, 128])))
    assert ax.get_xscale() == scale


def test_test_values_are_left_out_where_they_are_of_another_metric():
    ax = plot_front(regression_front())
    assert ax.get_ylabel() == "mse (lower is better)"
    assert ax.get_xlabel() == "active bits"
    assert not {"test", "dense, test"} & set(by_label(ax))


def test_size_as_first_objective_is_not_drawn_over_itself():
    front = make_front()
    front = replace(
        front,
        axes=(AXES[1], AXES[0]),
        values=front.values[:, [1, 0]],
        F=front.F[:, [1, 0]],
        dense_values=front.dense_values[[1, 0]],
    )
    ax = plot_front(front)
    assert ax.get_ylabel() == "accuracy (higher is better)"
    np.testing.assert_array_equal(by_label(ax)["validation"].get_offsets()[:, 1], front.values[:, 1])


# --- plot_front_3d ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_obj", [3, 4])
def test_space_has_the_first_three_objectives(n_obj):
    front = make_front(n_obj=n_obj, low=20)
    ax = plot_front_3d(front)
    labels = [ax.get_zlabel(), ax.get_xlabel(), ax.get_ylabel()]
    assert labels == [
        "accuracy (higher is better)",
        "share of active neurons (lower is better)",
        "cka (higher is better)",
    ]
    x, y, z = next(c for c in ax.collections if c.get_array() is not None)._offsets3d
    np.testing.assert_array_equal(np.column_stack([z, x, y]), front.values[:, :3])
    x, y, z = by_label(ax)["dense head: 128 neurons"]._offsets3d
    np.testing.assert_array_equal([*z, *x, *y], front.dense_values[:3])


def test_space_has_the_logarithm_of_sizes_over_more_than_a_decade():
    front = make_front(active=np.arange(1, 21))
    shares = front.active / 128
    front = replace(front, values=np.column_stack([front.values[:, 0], shares, front.values[:, 2]]))
    ax = plot_front_3d(front)
    points = next(c for c in ax.collections if c.get_array() is not None)
    np.testing.assert_allclose(10.0 ** np.asarray(points._offsets3d[0]), shares)
    np.testing.assert_array_equal(points.get_array(), front.values[:, 2])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [".01", ".1", "1"]


def test_space_needs_three_objectives_and_space():
    with pytest.raises(InputError, match="needs three objectives"):
        plot_front_3d(make_front(n_obj=2))
    with pytest.raises(InputError, match="projection='3d'"):
        plot_front_3d(make_front(), Figure().add_subplot())
    space = Figure().add_subplot(projection="3d")
    assert plot_front_3d(make_front(), space) is space


# --- plot_parallel ---------------------------------------------------------------------------------------------


def test_parallel_has_a_line_per_member_better_upwards():
    front = make_front()
    ax = plot_parallel(front)
    lines = next(c for c in ax.collections if isinstance(c, LineCollection))
    heights = np.array([segment[:, 1] for segment in lines.get_segments()])
    assert heights.shape == (20, 4)
    # the smallest are drawn last, on top
    order = np.argsort(-front.active, kind="stable")
    np.testing.assert_array_equal(lines.get_array(), front.active[order])
    dense = np.append(front.dense_values, front.dense_test)
    table = np.column_stack([front.values, front.test])
    goodness = np.where([True, False, True, True], 1, -1)
    low, high = (
        np.minimum((table * goodness).min(axis=0), dense * goodness),
        np.maximum((table * goodness).max(axis=0), dense * goodness),
    )
    np.testing.assert_allclose(heights, ((table * goodness - low) / (high - low))[order], atol=1e-12)
    drawn = by_label(ax)
    np.testing.assert_allclose(
        drawn["dense head: 128 neurons"].get_ydata(), (dense * goodness - low) / (high - low)
    )
    knee = front.knee()
    assert f"knee: {front.active[knee]} neurons" in drawn


def test_parallel_prints_the_real_ends_of_every_axis():
    front = make_front()
    ax = plot_parallel(front)
    placed = {(round(text.get_position()[0]), text.get_position()[1] > 0.5): text.get_text() for text in ax.texts}
    assert placed[1, False] == "1.000"
    assert float(placed[1, True]) == pytest.approx(front.values[:, 1].min(), abs=0.0005)
    assert float(placed[0, True]) == pytest.approx(max(front.values[:, 0].max(), 0.9), abs=0.0005)
    assert float(placed[0, False]) == pytest.approx(front.values[:, 0].min(), abs=0.0005)
    names = [tick.get_text() for tick in ax.get_xticklabels()]
    assert names[0] == "accuracy\n(higher is better)"
    assert names[-1] == "test accuracy\n(higher is better)"


def test_parallel_puts_a_constant_objective_in_the_middle():
    ax = plot_parallel(constant_front())
    assert texts(ax)[:3] == ["all .500"] * 3
    np.testing.assert_array_equal(by_label(ax)["dense head: 128 neurons"].get_ydata()[:3], 0.5)


# --- plot_convergence ------------------------------------------------------------------------------------------


def test_convergence_shows_hypervolume_and_best_value():
    front = make_front()
    ax = plot_convergence(front)
    volume, twin = ax, next(other for other in ax.figure.axes if other is not ax)
    np.testing.assert_array_equal(volume.lines[0].get_xdata(), front.history["evaluations"])
    np.testing.assert_array_equal(volume.lines[0].get_ydata(), front.history["hypervolume"])
    np.testing.assert_array_equal(twin.lines[0].get_ydata(), front.history["best"])
    assert twin.get_ylabel() == "best accuracy (higher is better)"


def test_single_generation_shows_as_a_point():
    front = make_front()
    ax = plot_convergence(replace(front, history={key: column[:1] for key, column in front.history.items()}))
    assert ax.lines[0].get_marker() == "o"


@pytest.mark.parametrize("name", ["no history", "empty history"])
def test_convergence_without_history_says_so(name):
    ax = plot_convergence(HISTORIES[name])
    assert "no history" in ax.texts[0].get_text()
    assert len(ax.figure.axes) == 1


def test_best_value_is_left_out_while_nothing_is_feasible():
    ax = plot_convergence(HISTORIES["nothing feasible"])
    assert len(ax.figure.axes) == 1
    assert len(ax.lines) == 1


# --- plot_pairs ------------------------------------------------------------------------------------------------


def test_pairs_have_every_objective_against_every_other():
    front = make_front(30, n_obj=4)
    ax = plot_pairs(front)
    assert len(ax.child_axes) == 16
    grid = np.array(ax.child_axes, dtype=object).reshape(4, 4)
    for row, column in itertools.combinations(range(4), 2):
        points = grid[column, row].collections[0]
        np.testing.assert_array_equal(points.get_offsets(), front.values[:, [row, column]])
        np.testing.assert_array_equal(points.get_array(), front.active)
        rank = spearmanr(front.values[:, row], front.values[:, column]).statistic
        assert float(texts(grid[row, column])[0]) == pytest.approx(rank, abs=0.005)
    for row in range(4):
        counts, edges, _ = grid[row, row].patches[0].get_data()
        assert counts.sum() == 30
        assert edges[0] <= front.values[:, row].min()
        assert front.values[:, row].max() <= edges[-1]


def test_small_figures_of_an_objective_have_one_scale():
    front = make_front(40, n_bits=4096)
    grid = np.array(plot_pairs(front).child_axes, dtype=object).reshape(3, 3)
    assert grid[1, 1].get_xscale() == grid[2, 1].get_xscale() == grid[1, 0].get_yscale() == "log"
    assert grid[0, 0].get_xscale() == grid[2, 2].get_xscale() == "linear"
    for column in range(3):
        assert len({grid[row, column].get_xlim() for row in range(column, 3)}) == 1
        low, high = grid[2, column].get_xlim()
        everything = np.append(front.values[:, column], front.dense_values[column])
        assert low < everything.min()
        assert everything.max() < high


def test_constant_objectives_have_no_correlation():
    assert texts(plot_pairs(constant_front()).child_axes[1])[0] == "n/a"


def test_pairs_need_two_objectives():
    with pytest.raises(InputError, match="needs two objectives"):
        plot_pairs(make_front(n_obj=1))
    assert len(plot_pairs(make_front(n_obj=2)).child_axes) == 4


# --- plot_windows, plot_robustness -----------------------------------------------------------------------------


def test_windows_show_both_votings_and_three_members():
    windows = make_windows()
    ax = plot_windows(windows)
    drawn = by_label(ax)
    expected = {
        "ensemble, soft voting": "soft",
        "ensemble, hard voting": "hard",
        "best member on test": "best_member",
        "best member on validation": "best_by_validation",
        "mean of members": "mean_member",
    }
    assert list(drawn) == list(expected)[::-1]
    for label, attribute in expected.items():
        np.testing.assert_array_equal(
            drawn[label].get_ydata(), [getattr(window, attribute) for window in windows], label
        )
    assert [tick.get_text() for tick in ax.get_xticklabels()][:3] == ["50–60\n10", "55–65\n11", "60–70\n0"]


def test_windows_of_seeds_are_means_with_student_intervals():
    values = {"ood_auroc": 0.9, "ood_best_member": 0.8, "ood_best_by_selection": 0.7, "ood_mean_member": 0.6}
    first = [replace(window, **values) for window in make_windows()]
    seeds = [first, *([replace(w, ood_auroc=0.9 + step) for w in first] for step in (0.01, 0.05))]
    ax = plot_window_means(seeds, "ood_auroc")
    drawn = by_label(ax)
    assert set(drawn) == {
        "ensemble, mean score", "best member on test", "best member in the search", "mean of members"
    }  # fmt: skip
    np.testing.assert_allclose(drawn["ensemble, mean score"].get_ydata(), 0.92)
    np.testing.assert_allclose(drawn["best member in the search"].get_ydata(), 0.7)
    # the ensemble's band is drawn last
    band = ax.collections[-1].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], student.interval(0.95, 2, 0.92, sem([0.9, 0.91, 0.95])))
    assert ax.get_ylabel() == "test OoD AUROC"
    # in accuracy, a window without members has neither mean nor band
    assert np.isnan(by_label(plot_window_means(seeds))["ensemble, soft voting"].get_ydata()[2])


def test_nothing_to_draw_is_said():
    assert "no windows" in texts(plot_windows([]))[0]
    assert "no curves" in texts(plot_robustness([]))[0]
    assert "no runs" in texts(plot_attainment([]))[0]


def test_robustness_of_one_kind_is_one_figure():
    curves = make_curves(names=("knee", "dense", "a $strange_name"))
    ax = plot_robustness(curves)
    assert not ax.child_axes
    assert ax.get_xlabel() == "feature noise, standard deviations"
    for line, curve in zip(ax.lines, curves, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), curve.severities)
        np.testing.assert_array_equal(line.get_ydata(), curve.accuracy)
    assert [line.get_label() for line in ax.lines] == ["knee", "dense", r"a \$strange_name"]


def test_kinds_of_disturbance_share_scale_and_looks():
    curves = [*make_curves(("fog",), ("knee",)), *make_curves(("feature_noise", "jpeg", "blur"))]
    ax = plot_robustness(curves)
    panels = [panel for panel in ax.child_axes if panel.get_visible()]
    assert [panel.get_xlabel().split(",")[0] for panel in panels] == ["fog", "feature noise", "jpeg", "blur"]
    assert len({panel.get_ylim() for panel in panels}) == 1
    for panel in panels:
        for line in panel.lines:
            assert (
                line.get_color()
                == {each.get_label(): each for each in panels[1].lines}[line.get_label()].get_color()
            )
    # also those that the first small figure has not
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["knee", "best", "member 7", "dense", "ensemble"]


# --- plot_attainment -------------------------------------------------------------------------------------------


def test_attainment_shows_the_median_between_best_and_worst():
    on_folds, on_test = front_attainment(make_runs())
    ax = plot_attainment([on_folds, on_test])
    drawn = by_label(ax)
    for one in (on_folds, on_test):
        line = drawn[f"{one.part}: median"]
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(line.get_ydata(), one.median)
        np.testing.assert_array_equal(line.get_xdata(), one.sizes)
        assert f"{one.part}: best to worst of 3 runs" in drawn
        assert drawn[f"{one.part}: dense head"].get_ydata()[0] == one.dense
    assert ax.get_xlabel() == "active neurons, at most"
    assert ax.get_ylabel() == "accuracy (higher is better)"


def test_attainments_of_another_measure_are_not_drawn_together():
    ax = plot_attainment(front_attainment([regression_front(), regression_front()]))
    assert ax.get_ylabel() == "mse (lower is better)"
    assert not any("test" in label for label in by_label(ax))


# --- save_figure -----------------------------------------------------------------------------------------------


def test_save_figure_writes_the_whole_figure(tmp_path):
    figure = Figure(figsize=(3, 2))
    part, _ = figure.subfigures(1, 2)
    ax = plot_windows(make_windows(), part.add_subplot())
    path = save_figure(ax, tmp_path / "new" / "windows.png")
    assert path.read_bytes()[16:24] == (3 * 150).to_bytes(4, "big") + (2 * 150).to_bytes(4, "big")
    with pytest.raises(InputError, match="cannot be made"):
        save_figure(ax, path / "windows.png")
