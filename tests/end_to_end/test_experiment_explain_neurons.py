"""The experiment on frequent neurons: on features, and (slow) on images with heat maps."""

from __future__ import annotations

import csv
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moevoprune import Front

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SETTINGS = "[problem]\ncv = 1\n[head]\nhidden = [8]\nepochs = 2\n"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))

    def run(*sources):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
        settings = ["--seeds", "2", "--budget", "30", "--jobs", "1"]
        monkeypatch.setattr(sys, "argv", ["explain_neurons.py", *map(str, sources), *settings, *folders])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXPERIMENTS / "explain_neurons.py"), run_name="__main__")
        return ended.value.code

    return run


def test_frequencies_are_those_of_the_merged_front(call, tmp_path, small_features, capsys):
    small_features.save(tmp_path / "alone.npz")
    problem = tmp_path / "alone.toml"
    problem.write_text(f'[data]\nfeatures = "alone.npz"\n{SETTINGS}')
    assert call(problem) == 0
    rows = list(csv.DictReader((tmp_path / "results" / "explain_neurons.csv").read_text().splitlines()))
    text = (tmp_path / "results" / "explain_neurons.md").read_text()
    assert str(tmp_path) not in text
    for search in ("published", "ours"):
        merged = Front.merge([Front.load(tmp_path / "work" / search / f"alone-seed{seed}") for seed in (1, 2)])
        frequency = merged.masks.mean(axis=0)
        own = {int(row["feature"]): float(row["frequency"]) for row in rows if row["search"] == search}
        assert len(own) == 14
        assert own == {neuron: pytest.approx(frequency[neuron], abs=1e-6) for neuron in range(14)}
        (line,) = re.findall(
            rf"^\| alone \| {search} \| (\d+) \| [\d.]+ \| (\d+) \(.*\| (\d+) \(.*\| (\d+) \(", text, re.M
        )
        counts = [(frequency >= level).sum() for level in (1.0, 0.9, 0.5)]
        assert [int(number) for number in line] == [len(merged), *counts]

    capsys.readouterr()
    assert call(tmp_path / "missing.toml") == 2
    error = capsys.readouterr().err
    assert error.startswith("explain_neurons: error: ")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_images_get_heat_maps(call, tmp_path, monkeypatch):
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(3)
    for name, dark in (("day", 120), ("night", 20)):
        for kind in ("left", "right"):
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = generator.integers(dark, dark + 60, (32, 32, 3), dtype=np.uint8)
                pixels[8:24, slice(0, 16) if kind == "left" else slice(16, 32)] += 70
                Image.fromarray(pixels).save(folder / f"{number}.png")
        backbone = '[backbone]\nname = "mobilenet_v3_small"\nweights = "none"\nsize = 32\ncrop = 32\n'
        (tmp_path / f"{name}.toml").write_text(f'[data]\nimages = "{name}"\n{backbone}{SETTINGS}')
    assert call(tmp_path / "day.toml", tmp_path / "night.toml") == 0
    text = (tmp_path / "results" / "explain_neurons.md").read_text()
    for name in ("day", "night"):
        path = tmp_path / "results" / f"explain_neurons_{name}.png"
        assert f"]({path.name})" in text
        with Image.open(path) as picture:
            # the heat is in colour, the photographs are not
            red, _, blue = np.asarray(picture.convert("RGB"), dtype=int).transpose(2, 0, 1)
        assert (red - blue > 60).sum() > 1000
