"""The experiment on backbones, on a handful of small images and networks with random weights."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student

from moevoprune import Front

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(5)
    for label in range(3):
        folder = tmp_path / "patches" / f"class{label}"
        folder.mkdir(parents=True)
        for place in range(12):
            pixels = generator.integers(0, 120, size=(16, 16, 3)) + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{place}.png")
    # of few features: a guided search ranks them on every fold
    for name, layer in (("early", "features.3.squeeze_activation"), ("late", "features.6.squeeze_activation")):
        (tmp_path / f"{name}.toml").write_text(
            f'[backbone]\nname = "squeezenet1_1"\nweights = "none"\nlayer = "{layer}"\nsize = 32\ncrop = 32\n'
        )

    def run(backbones):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
        settings = ["--seeds", "2", "--budget", "10", "--jobs", "1", "--weights", "none", "--size", "32"]
        images = str(tmp_path / "patches")
        monkeypatch.setattr(
            sys, "argv", ["feature_extractors.py", images, "--backbones", backbones, *settings, *folders]
        )
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXPERIMENTS / "feature_extractors.py"), run_name="__main__")
        return ended.value.code

    return run


def test_its_numbers_are_those_of_the_fronts_and_a_second_call_searches_nothing(call, tmp_path):
    backbones = f"{tmp_path / 'early.toml'},{tmp_path / 'late.toml'}"
    assert call(backbones) == 0
    rows = list(csv.DictReader((tmp_path / "results" / "feature_extractors.csv").read_text().splitlines()))
    assert [(row["backbone"], row["seed"], row["features"]) for row in rows] == [
        ("early", "1", "16"),
        ("early", "2", "16"),
        ("late", "1", "32"),
        ("late", "2", "32"),
    ]
    for row in rows:
        front = Front.load(tmp_path / "work" / row["backbone"] / f"patches-seed{row['seed']}")
        accuracy, active, test = front.column("accuracy"), front.active, front.test
        best = min(range(len(front)), key=lambda member: (-accuracy[member], active[member]))
        assert float(row["best_test"]) == pytest.approx(test[best], abs=1e-6)
        as_good = [member for member in range(len(front)) if accuracy[member] >= front.dense_values[0]]
        smallest = min(as_good, key=lambda member: active[member], default=None)
        assert int(row["smallest_active"]) == (front.n_bits if smallest is None else active[smallest])
        expected = front.dense_test if smallest is None else test[smallest]
        assert float(row["smallest_test"]) == pytest.approx(expected, abs=1e-6)

    text = (tmp_path / "results" / "feature_extractors.md").read_text()
    assert str(tmp_path) not in text
    assert "--backbones early.toml,late.toml" in text
    best = [float(row["best_test"]) for row in rows if row["backbone"] == "late"]
    spread = np.std(best, ddof=1) / np.sqrt(2)
    low, high = student.interval(0.95, 1, np.mean(best), spread) if spread else (best[0], best[0])
    numbers = [f"{value:.3f}".replace("0.", ".", 1) for value in (np.mean(best), low, high)]
    assert "{} [{}, {}]".format(*numbers) in text

    fronts = sorted((tmp_path / "work").rglob("front.npz"))
    before = [(path, path.stat().st_mtime_ns) for path in fronts]
    assert call(backbones) == 0
    assert [(path, path.stat().st_mtime_ns) for path in fronts] == before
    assert (tmp_path / "results" / "feature_extractors.md").read_text() == text


def test_bad_input_is_said_in_one_line(call, tmp_path, capsys):
    (tmp_path / "empty.toml").write_text("[head]\nhidden = [8]\n")
    (tmp_path / "file.toml").write_text('[backbone]\nname = "squeezenet1_1"\nweights = "mine.pth"\n')
    for backbones, message in (
        ("resnet1", "unknown backbone 'resnet1'"),
        ("squeezenet1_1,squeezenet1_1", "each once"),
        ("", "name at least one"),
        (str(tmp_path / "empty.toml"), "has no section [backbone]"),
        (str(tmp_path / "file.toml"), "name the --weights-folder"),
    ):
        assert call(backbones) == 2
        error = capsys.readouterr().err
        assert error.startswith("feature_extractors: error: ")
        assert error.count("\n") == 1
        assert message in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "backbones").glob("*.toml")), ids=lambda path: path.stem)
def test_backbones_of_the_committed_results_are_sound(path):
    from moevoprune.cli.config import read_toml
    from moevoprune.features.backbone_settings import BackboneSettings
    from moevoprune.features.backbones import backbone_layers

    raw = read_toml(path)["backbone"]
    assert "/" not in raw["weights"]
    settings = BackboneSettings.model_validate({**raw, "weights": "none"})
    assert settings.layer is None or settings.layer in backbone_layers(settings)
