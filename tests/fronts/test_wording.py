"""Numbers, names and tables as people read them."""

from __future__ import annotations

import csv
import io
import math

import pytest
from plot_data import make_front

from moevoprune.fronts.front import Axis
from moevoprune.fronts.tables import aligned, csv_text, markdown_table
from moevoprune.fronts.wording import (
    bare,
    capitalised,
    counted,
    direction,
    file_size,
    measure_name,
    objective_name,
    short_number,
    unit,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", ".5"),
        ("-0.5", "-.5"),
        ("+0.50", "+.50"),
        ("10.5", "10.5"),
        ("-20.5", "-20.5"),
        ("0", "0"),
        ("1.0e-04", "1.0e-04"),
    ],
)
def test_a_number_without_the_nought_before_its_point(text, expected):
    assert bare(text) == expected
    assert float(bare(text)) == float(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.8034, ".803"),
        (1.0, "1.000"),
        (-0.25, "-.250"),
        (0.0, ".000"),
        (0.0001, "1.0e-04"),
        (27.104, "27.1"),
        (1234.5, "1,234"),
        (123456.0, "123,456"),
        (math.nan, "n/a"),
        (-math.inf, "n/a"),
        (None, "n/a"),
    ],
)
def test_short_numbers(value, expected):
    assert short_number(value) == expected


def test_sizes_of_files():
    sizes = (0, 999, 1000, 21_940, 999_999, 1_340_000)
    assert [file_size(size) for size in sizes] == ["0 B", "999 B", "1.0 kB", "21.9 kB", "1,000.0 kB", "1.3 MB"]


def test_what_bits_are_called():
    assert [unit(name, 1) for name in ("features", "neurons:1", "connections", "features+neurons", "")] == [
        "feature",
        "neuron",
        "connection",
        "bit",
        "bit",
    ]
    front = make_front()
    assert counted(front, 1) == "1 neuron"
    assert counted(front, 1280) == "1,280 neurons"
    assert objective_name(front, Axis("active_neurons", False)) == "share of active neurons"
    assert objective_name(front, Axis("ood_auroc:energy", True)) == "OoD AUROC (energy)"


def test_measures_have_the_names_of_the_field():
    names = ("accuracy", "r2", "mse", "cka", "cka:noise", "ood_fpr95", "my_own")
    assert [measure_name(name) for name in names] == [
        "accuracy",
        "R²",
        "MSE",
        "CKA",
        "CKA (noise)",
        "OoD FPR at 95 % TPR",
        "my own",
    ]
    assert (direction(True), direction(False)) == ("higher is better", "lower is better")
    assert capitalised("share of CKA") == "Share of CKA"
    assert capitalised("") == ""


def test_tables_as_csv():
    text = csv_text(("name", "value"), [('a,"b"', 0.5), ("c", None), ("d", 7)])
    assert list(csv.reader(io.StringIO(text))) == [["name", "value"], ['a,"b"', "0.500000"], ["c", ""], ["d", "7"]]
    assert "\r" not in text


def test_tables_of_aligned_columns():
    table = [["", "one", "three"], ["knee", ".1", ".25"], ["b", "-", ""]]
    assert aligned(table) == ["      one  three", "knee   .1    .25", "b       -"]
    assert aligned(table, left=0)[2] == "   b    -"
    assert aligned(table, left=2)[1] == "knee  .1     .25"


def test_tables_as_markdown():
    assert markdown_table([["a", "b"], ["1", "2"], ["3", "4"]]) == [
        "| a | b |",
        "|---|---:|",
        "| 1 | 2 |",
        "| 3 | 4 |",
    ]
