"""What a filter pruning run keeps: fronts, scores, their files, tables and figure."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from moevoprune.errors import InputError
from moevoprune.filters.plots import plot_filter_fronts
from moevoprune.filters.results import (
    FilterFront,
    NetworkScore,
    PruningResult,
    SearchCost,
    read_scores,
    write_scores,
)
from moevoprune.filters.settings import DEFAULT_BUDGET, PruningSettings
from moevoprune.filters.tables import network_table, report, scores_csv, search_table
from moevoprune.fronts.plots import style

WHOLE = np.array([1000.0, 500.0, 0.02])


@pytest.fixture
def front():
    """Three members: 8, 4 and 2 of ten filters; the knee is the second."""
    masks = np.zeros((3, 10), np.bool_)
    for row, size in enumerate((2, 4, 8)):
        masks[row, :size] = True
    values = np.array([[0.9, 0.1], [0.04, 0.3], [0.01, 0.8]])
    costs = np.array([[100.0, 60.0], [300.0, 150.0], [800.0, 400.0]])
    return FilterFront(("error", "flops"), masks, values, values, costs, WHOLE, 1)


def score(role, flops=1000, error=0.02, latency=2e-3):
    return NetworkScore(role, flops, flops // 2, 4 * flops, latency, 40 * latency, error, 2 * error, None)


@pytest.fixture
def scores():
    return (
        score("original"),
        score("original, tuned", error=0.018),
        score("heavy", 800),
        score("knee", 300, 0.03, 1e-3),
        score("light", 100, 0.5),
        score("uniform L1", 290, 0.045),
        score("global magnitude", 300, 0.025),
    )


@pytest.fixture
def result(front, scores):
    return PruningResult("cnn", "guided", 1, front, SearchCost(240, 12.3), scores)


# --- fronts ----------------------------------------------------------------------------------------


def test_the_hypervolume_is_the_area_of_the_steps(front):
    # by hand: widths up to 1, heights up to the member before
    assert front.hypervolume == pytest.approx((1 - 0.1) * (1 - 0.9) + (1 - 0.3) * (0.9 - 0.04) + 0.2 * 0.03)
    accurate = replace(
        front, objectives=("accuracy", "flops"), values=np.array([[0.1, 0.1], [0.96, 0.3], [0.99, 0.8]])
    )
    assert accurate.hypervolume == pytest.approx(front.hypervolume)


def test_the_choice_is_by_losses_and_the_cost_that_was_named(front):
    assert front.choices == (2, 1, 0)
    by_parameters = replace(
        front,
        objectives=("error", "flops", "parameters"),
        losses=np.array([[0.9, 0.1, 0.5], [0.04, 0.3, 0.2], [0.01, 0.8, 0.1]]),
        cost_column=2,
    )
    assert by_parameters.choices.light == 2


def test_a_front_is_written_and_read_with_the_same_bytes(front, tmp_path):
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    front.save(one)
    front.save(other)
    assert one.read_bytes() == other.read_bytes()
    again = FilterFront.load(one, ("error", "flops"), 1)
    for name in ("masks", "values", "losses", "costs", "whole"):
        assert np.array_equal(getattr(again, name), getattr(front, name))
    assert again.to_csv() == front.to_csv()


@pytest.mark.parametrize("harm", ["cut", "other", "lacking"])
def test_a_damaged_front_is_refused(front, tmp_path, harm):
    path = tmp_path / "front.npz"
    front.save(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif harm == "lacking":
        np.savez(path, masks=front.masks)
    with pytest.raises(InputError, match=r"front\.npz"):
        FilterFront.load(path, ("error", "flops", "latency") if harm == "other" else ("error", "flops"), 1)


def test_the_csv_has_a_row_for_each_member(front):
    rows = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert [row["role"] for row in rows] == ["light", "knee", "heavy"]
    assert [row["filters"] for row in rows] == ["2", "4", "8"]
    assert [float(row["flops_share"]) for row in rows] == [0.1, 0.3, 0.8]
    assert [float(row["error"]) for row in rows] == [0.9, 0.04, 0.01]
    single = replace(
        front, masks=front.masks[1:2], values=front.values[1:2], losses=front.losses[1:2], costs=front.costs[1:2]
    )
    assert "heavy+knee+light" in single.to_csv()


# --- scores ----------------------------------------------------------------------------------------


def test_scores_are_written_and_read(scores, tmp_path):
    path = tmp_path / "scores.json"
    write_scores(path, scores)
    assert read_scores(path) == scores


@pytest.mark.parametrize("text", ["", "[]", "[1]", '[{"role": "knee"}]', "{}", "[" * 100_000])
def test_damaged_scores_are_refused(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(InputError, match="missing or damaged"):
        read_scores(path)


def test_scores_of_other_types_are_refused(scores, tmp_path):
    path = tmp_path / "scores.json"
    write_scores(path, scores)
    stored = json.loads(path.read_text())
    stored[0]["flops"] = "many"
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="damaged"):
        read_scores(path)


def test_what_a_search_took_starts_from_nothing(tmp_path):
    path = tmp_path / "search.json"
    assert SearchCost.load(path) == SearchCost(0, 0.0)
    SearchCost(30, 1.5).save(path)
    assert SearchCost.load(path) == SearchCost(30, 1.5)
    path.write_text("[]")
    assert SearchCost.load(path) == SearchCost(0, 0.0)


# --- tables ----------------------------------------------------------------------------------------


def test_a_network_stands_beside_its_original(result):
    header, *rows = network_table([result])
    cells = {row[1]: dict(zip(header[2:5], row[2:5], strict=True)) for row in rows}
    assert list(cells) == [score.role for score in result.scores]
    assert cells["knee"] == {"test error, %": "3.00", "FLOPs": "0.000 M", "share, %": "30.0"}
    assert rows[3][-2:] == ["1", "50"]  # 1 ms, half of the original's


def test_several_seeds_are_averaged(result, scores):
    other = replace(result, seed=2, scores=tuple(replace(one, test_error=one.test_error + 0.02) for one in scores))
    rows = {row[1]: row for row in network_table([result, other])}
    # 3 % and 5 %: mean 4, standard error 1
    assert rows["knee"][2] == "4.00 ±1.00"
    assert len(scores_csv([result, other]).splitlines()) == 1 + 2 * len(scores)


def test_several_searches_get_a_column_and_share_their_originals(result, scores):
    other = replace(result, algorithm="nsga2", scores=(*scores[:5], score("uniform L1", 290, 0.02), scores[6]))
    header, *rows = network_table([result, other])
    assert header[:3] == ["network", "search", "which"]
    assert [row[2] for row in rows].count("original") == 1
    assert [row[1] for row in rows if row[2] == "knee"] == ["guided", "nsga2"]
    _, guided, nsga2 = search_table([result, other])
    # test errors of 4.5 and 2.5 % against 3 %, of 2 % against 3 %
    assert guided[-2:] == ["+1.50", "-.50"]
    assert nsga2[-2:] == ["-1.00", "-.50"]
    assert guided[2:6] == ["240", "12", ".698", "30.0"]


def test_without_baselines_there_is_nothing_to_compare(result):
    alone = replace(result, scores=result.scores[:5])
    assert len(search_table([alone])[0]) == 7
    assert "uniform" not in "".join(map(str, network_table([alone])))


def test_a_baseline_that_gets_to_no_such_flops_is_not_there(result):
    lacking = replace(result, network="resnet", scores=result.scores[:-1])
    _, cnn, resnet = search_table([result, lacking])
    assert cnn[-2:] == ["+1.50", "-.50"]
    assert resnet[-2:] == ["+1.50", "n/a"]


def test_the_report_holds_both_tables(result):
    text = report([result], "moevoprune filters", ["about the data"])
    assert "`moevoprune filters`" in text
    assert "Seed 1." in text
    assert text.count("\n|---|") == 2


def test_the_figure_has_a_panel_for_each_network(result, tmp_path):
    results = [result, replace(result, algorithm="deep_pruning_es"), replace(result, network="$resnet")]
    ax = plot_filter_fronts(results)
    figure = ax.figure
    titles = [child.get_title() for child in ax.child_axes]
    assert titles[:2] == ["cnn", r"\$resnet"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["guided", "DeepPruningES"]
    # the light network errs too often to be shown at its height
    assert ax.child_axes[0].get_ylim()[1] == pytest.approx(0.08)
    assert style.save_figure(ax, tmp_path / "front.png").stat().st_size > 1000


# --- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ("cnn", "cnn")}, "named twice"),
        ({"algorithms": ("guided", "guidde")}, "did you mean 'guided'"),
        ({"budget": 10, "gens": 2}, "give one of them"),
        ({"weights": "file.pth"}, "name one network"),
        ({"mean": (0.5,)}, "give both or neither"),
        ({"objectives": ("flops", "error")}, "name error"),
        ({"objectives": ("error", "cka:dense")}, "at least one of flops, parameters, latency"),
        ({"pop": 3}, "greater than or equal to 4"),
        ({"augment": "flop"}, "augment = 'flop'"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"epoch": 3}, "did you mean 'epochs'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        PruningSettings.checked(changes)


def test_a_search_ends_by_one_of_the_two():
    assert PruningSettings().end == {"n_gen": None, "budget": DEFAULT_BUDGET}
    assert PruningSettings(gens=3).end == {"n_gen": 3, "budget": None}
    assert PruningSettings(objectives=("accuracy", "latency", "flops")).cost_column == 2
    assert PruningSettings(objectives=("accuracy", "latency")).cost_column == 1


@pytest.mark.parametrize("name", ["values", "losses", "costs", "whole"])
@pytest.mark.parametrize("harm", [lambda a: a * np.nan, lambda a: a.astype(str), lambda a: a + 0j])
def test_a_front_of_no_numbers_is_refused(front, tmp_path, name, harm):
    path = tmp_path / "front.npz"
    front.save(path)
    with np.load(path) as stored:
        arrays = {**stored, name: harm(stored[name])}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="is not the front of a run"):
        FilterFront.load(path, front.objectives, front.cost_column)


@pytest.mark.parametrize(
    "change", [{"flops": 0}, {"flops": 10**400}, {"latency": float("nan")}, {"role": "heavy"}]
)
def test_scores_that_no_table_can_show_are_refused(scores, tmp_path, change):
    path = tmp_path / "scores.json"
    write_scores(path, scores)
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([{**stored[0], **change}, *stored[1:]]), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        read_scores(path)
    path.write_text(json.dumps(stored[:1]), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        read_scores(path)


def test_a_search_that_took_for_ever_took_nothing(tmp_path):
    path = tmp_path / "search.json"
    for text in ('{"evaluations": 1e999, "seconds": 1}', '{"evaluations": 1, "seconds": NaN}'):
        path.write_text(text, encoding="utf-8")
        assert SearchCost.load(path) == SearchCost()
