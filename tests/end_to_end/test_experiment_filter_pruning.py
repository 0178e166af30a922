"""The experiment on filters of whole networks, at the size of a test."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t

from moevoprune.filters import steps
from moevoprune.filters.images import load_images, to_tensor
from moevoprune.filters.results import FilterFront
from moevoprune.filters.saving import load_network, read_record
from moevoprune.fronts.wording import bare
from moevoprune.studies.study import run_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NETWORK = """
from torch import nn

def small(n_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes),
    )
"""


@pytest.fixture
def images(tmp_path):
    """Bars in three directions, faint enough to be mistaken."""
    generator = np.random.default_rng(3)
    labels = np.arange(150) % 3
    pixels = generator.integers(0, 160, (150, 6, 6), dtype=np.uint8)
    pixels[labels == 0, 2:4, :] += 50
    pixels[labels == 1, :, 2:4] += 50
    parts = {"X_train": pixels[:90], "y_train": labels[:90], "X_test": pixels[90:], "y_test": labels[90:]}
    np.savez(tmp_path / "bars.npz", **parts)
    (tmp_path / "networks.py").write_text(NETWORK, encoding="utf-8")
    return tmp_path / "bars.npz"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("filter_pruning")

    def run(*arguments):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--jobs", "1"]
        network = ["--network", f"{tmp_path / 'networks.py'}:small"]
        monkeypatch.setattr(sys, "argv", ["filter_pruning.py", *arguments, "--quick", *network, *folders])
        return run_study("filter_pruning", "", script.carry_out, 3, {"seeds": 2}, script.add_options)

    return run


def test_networks_err_as_often_as_the_table_says(call, images, tmp_path, capsys, monkeypatch):
    assert call(str(images)) == 0
    out = tmp_path / "out" / "filter_pruning_quick"
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["search"], row["seed"]) for row in rows} == {
        (search, seed) for search in ("deep_pruning_es", "guided") for seed in "12"
    }
    # both searches asked for as many networks
    assert {row["evaluations"] for row in rows} == {"12"}
    data = load_images(images)
    (folder,) = (tmp_path / "work" / "quick").iterdir()
    for row in rows:
        made = folder / f"seed{row['seed']}" / "small" / row["search"]
        front = FilterFront.load(made / "front.npz", ("error", "flops"), 1)
        assert float(row["hypervolume"]) == pytest.approx(area(front.errors, front.flops_shares), abs=2e-6)
        if row["which"] in ("heavy", "knee", "light"):
            path = made / f"{row['which']}.safetensors"
            with torch.no_grad():
                answers = load_network(path)(to_tensor(data.X_test, read_record(path).normalisation)).argmax(dim=1)
            wrong = float(np.mean(answers.numpy() != data.y_test))
            assert float(row["test_error"]) == pytest.approx(wrong, abs=1e-6)
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    knees = [100 * float(r["test_error"]) for r in rows if (r["which"], r["search"]) == ("knee", "guided")]
    half = t.ppf(0.975, 1) * np.std(knees, ddof=1) / np.sqrt(2)
    low, high = (bare(f"{round(np.mean(knees) + sign * half, 2) + 0.0:.2f}") for sign in (-1, 1))
    assert f"[{low}, {high}]" in text
    assert "--network networks.py:small" in text
    assert str(tmp_path) not in text
    assert out.with_suffix(".png").stat().st_size > 1000

    def refuse(*_, **__):
        raise AssertionError("all of it was done already")

    for work in ("run_search", "finish", "tune"):
        monkeypatch.setattr(steps, work, refuse)
    assert call(str(images)) == 0
    assert out.with_suffix(".md").read_text(encoding="utf-8") == text


def area(errors, shares):
    """Area that points dominate up to (1, 1): a sum over the steps of their staircase."""
    total, lowest = 0.0, 1.0
    for share, error in sorted(zip(shares, errors, strict=True)):
        if error < lowest and share < 1:
            total += (1 - share) * (lowest - error)
            lowest = error
    return total


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.npz",), "nothing.npz"),
        (("IMAGES", "digits", "IMAGES"), "same name"),
        (("IMAGES", "--weights", "nowhere.pth"), "nowhere.pth"),
        (("IMAGES", "--mean", "0.5"), "mean and std belong together"),
        (("IMAGES", "--mean", "0.5", "0.5", "--std", "1", "1"), "channel"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(call, images, arguments, said, tmp_path, capsys):
    assert call(*(str(images) if word == "IMAGES" else word for word in arguments)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
