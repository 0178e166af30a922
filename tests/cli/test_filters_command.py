"""``moevoprune filters``: from images and networks to tables, a figure and three smaller networks; resume."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from moevoprune.cli.main import main
from moevoprune.filters.fitness import FilterEvaluator
from moevoprune.filters.images import load_images, to_tensor
from moevoprune.filters.saving import load_network, read_record
from moevoprune.fronts.plots import style
from moevoprune.search.journal import EvaluationJournal

NETWORKS = """
from torch import nn

def small(n_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes),
    )

def two_outputs():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""
QUICK = ["--budget", "12", "--pop", "6", "--search-images", "64", "--epochs", "1", "--jobs", "1"]


@pytest.fixture(scope="module", autouse=True)
def rough_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 30)
        yield


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with images of bars in three directions, and a file of networks."""
    folder = tmp_path_factory.mktemp("desk")
    generator = np.random.default_rng(3)
    labels = np.arange(120) % 3
    images = generator.integers(0, 120, (120, 6, 6), dtype=np.uint8)
    images[labels == 0, 2:4, :] += 100
    images[labels == 1, :, 2:4] += 100
    parts = {"X_train": images[:90], "y_train": labels[:90], "X_test": images[90:], "y_test": labels[90:]}
    np.savez(folder / "bars.npz", **parts)
    (folder / "networks.py").write_text(NETWORKS, encoding="utf-8")
    return folder


def command(desk, out, *more):
    return [
        "filters",
        str(desk / "bars.npz"),
        "--network",
        f"{desk / 'networks.py'}:small",
        "--out",
        str(out),
        *more,
    ]


def resumed(desk, out, *more):
    """Code is run only where it is named again."""
    return ["filters", "--out", str(out), "--resume", "--network", f"{desk / 'networks.py'}:small", *more]


@pytest.fixture(scope="module")
def finished(desk, tmp_path_factory):
    """A run with two searches and two seeds, never disturbed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main([*command(desk, out, *QUICK), "--algorithm", "guided,nsga2", "--seeds", "2", "--quiet"]) == 0
    return out


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- what is written -------------------------------------------------------------------------------


def test_all_networks_are_in_the_table(finished):
    roles = ["original", "original, tuned", "heavy", "knee", "light"]
    found = rows(finished / "filters.csv")
    knees = {(row["search"], row["seed"]): int(row["flops"]) for row in found if row["which"] == "knee"}
    assert set(knees) == {(search, seed) for search in ("guided", "nsga2") for seed in "12"}
    for key, flops in knees.items():
        group = [row for row in found if (row["search"], row["seed"]) == key]
        assert [row["which"] for row in group[:5]] == roles
        # so small a network has knees that magnitude pruning does not always get to
        assert {row["which"] for row in group[5:]} <= {"uniform L1", "global magnitude"}
        assert all(int(row["flops"]) <= flops for row in group[5:])
    assert {"uniform L1", "global magnitude"} <= {row["which"] for row in found}
    for row in found:
        assert float(row["flops_share"]) <= 1
        assert float(row["test_error"]) in [pytest.approx(wrong / 30, abs=1e-6) for wrong in range(31)]
    text = (finished / "filters.md").read_text(encoding="utf-8")
    assert "Means over seeds 1 to 2" in text
    assert "bars: 90 training and 30 test images of 6 x 6 pixels" in text
    assert (finished / "front.png").stat().st_size > 1000
    assert not list(finished.rglob(".*"))


def test_a_saved_network_errs_as_often_as_the_table_says(finished, desk):
    images = load_images(desk / "bars.npz")
    for row in rows(finished / "filters.csv"):
        if row["which"] not in ("heavy", "knee", "light"):
            continue
        path = finished / f"seed{row['seed']}" / "small" / row["search"] / f"{row['which']}.safetensors"
        network = load_network(path)
        with torch.no_grad():
            answers = network(to_tensor(images.X_test, read_record(path).normalisation)).argmax(dim=1).numpy()
        assert np.mean(answers != images.y_test) == pytest.approx(float(row["test_error"]), abs=1e-6)
        assert sum(parameter.numel() for parameter in network.parameters()) == int(row["parameters"])


def test_the_front_is_that_of_the_journal(finished):
    folder = finished / "seed1" / "small" / "guided"
    _, _, values = EvaluationJournal.read(folder / "evaluations.journal")
    best = values[:, 0].min()
    front = rows(folder / "front.csv")
    assert float(front[-1]["error"]) == pytest.approx(best, abs=1e-6)
    assert json.loads((folder / "search.json").read_text())["evaluations"] == 12


# --- resume ----------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_cut(desk, finished, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    undisturbed = {path.relative_to(finished): path.read_bytes() for path in finished.rglob("front.*")}
    first, second = (out / f"seed{seed}" / "small" for seed in (1, 2))
    # killed during a search: half of its journal, and nothing behind it
    journal = first / "guided" / "evaluations.journal"
    kept = journal.read_bytes()[: journal.stat().st_size // 2]
    shutil.rmtree(first / "nsga2")
    for path in (first / "guided").iterdir():
        path.unlink()
    journal.write_bytes(kept)
    # before the final training; with a damaged front
    (second / "guided" / "scores.json").unlink()
    (second / "nsga2" / "front.npz").write_bytes(b"PK")
    for name in ("filters.md", "filters.csv", "front.png"):
        (out / name).unlink()
    trained = (first / "original.safetensors").stat().st_mtime_ns
    assert main(resumed(desk, out)) == 0
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("front.*")} == undisturbed
    assert (first / "original.safetensors").stat().st_mtime_ns == trained
    timed = ("latency_ms", "latency_share", "latency_batch_ms")
    for row, before in zip(rows(out / "filters.csv"), rows(finished / "filters.csv"), strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {
            k: v for k, v in before.items() if k not in timed
        }
    printed = capsys.readouterr().out
    assert "from random weights" not in printed
    assert printed.count("final training") == 3
    assert "the search is done again" in printed
    # nothing is left to do
    assert main(resumed(desk, out)) == 0
    assert "generation" not in capsys.readouterr().out


def test_what_changed_is_refused(desk, finished, capsys):
    before = (finished / "settings.json").read_bytes()
    assert main(resumed(desk, finished, "--epochs", "3", "--distil")) == 2
    assert "settings changed (epochs: 1 → 3; distil: False → True)" in capsys.readouterr().err
    assert main(["filters", "--out", str(finished)]) == 2
    assert "holds another run: add --resume" in capsys.readouterr().err
    assert (finished / "settings.json").read_bytes() == before


def test_ctrl_c_leaves_a_run_that_can_go_on(desk, tmp_path, capsys, monkeypatch, finished):
    evaluate = FilterEvaluator.evaluate
    measured = 0

    def interrupted(self, masks):
        nonlocal measured
        for found in evaluate(self, masks):
            measured += 1
            if measured == 9:
                raise KeyboardInterrupt
            yield found

    out = tmp_path / "out"
    monkeypatch.setattr(FilterEvaluator, "evaluate", interrupted)
    assert main(command(desk, out, *QUICK)) == 130
    go_on = f"moevoprune filters --out {out} --resume --network {desk / 'networks.py'}:small"
    assert f"to go on: {go_on}\n" in capsys.readouterr().out
    assert not (out / "small" / "guided" / "front.npz").exists()
    monkeypatch.setattr(FilterEvaluator, "evaluate", evaluate)
    assert main([*shlex.split(go_on)[1:], "--quiet"]) == 0
    again = finished / "seed1" / "small" / "guided" / "front.csv"
    assert (out / "small" / "guided" / "front.csv").read_bytes() == again.read_bytes()


# --- weights and export ----------------------------------------------------------------------------


def test_given_weights_are_used_and_networks_are_exported(desk, finished, tmp_path, capsys):
    out = tmp_path / "out"
    weights = finished / "seed1" / "small" / "original.safetensors"
    more = ["--weights", str(weights), "--mean", "0.3", "--std", "0.2", "--no-baselines", "--export", "pt2"]
    assert main(command(desk, out, *QUICK, *more)) == 0
    printed = capsys.readouterr().out
    assert "from random weights" not in printed
    assert "uniform" not in printed
    folder = out / "small"
    assert (folder / "original.safetensors").read_bytes() == weights.read_bytes()
    assert read_record(folder / "guided" / "knee.safetensors").mean == (0.3,)
    exported = torch.export.load(folder / "guided" / "knee.pt2").module()
    network = load_network(folder / "guided" / "knee.safetensors")
    pixels = torch.tensor(load_images(desk / "bars.npz").X_test[..., 0]).float()[:, None] / 255
    with torch.no_grad():
        assert torch.equal(exported(pixels).argmax(1), network((pixels - 0.3) / 0.2).argmax(1))


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--network", "rsnet20"], "unknown network 'rsnet20'; did you mean 'resnet20'"),
        (["--network", "networks.py:two_outputs"], r"gives \(2, 2\) for 2 images of 3 classes"),
        (["--network", "networks.py:absent"], "has no function 'absent'"),
        (["--network", "densenet121"], "densenet121 does not take images of 1 channels and 6 x 6 pixels"),
        (["--network", "cnn", "--weights", "bars.npz"], "no state dict can be read"),
        (["--network", "cnn", "--weights", "other.pth"], "does not fit SmallCNN"),
        (["--weights", "other.pth"], "name one network"),
        (["--network", "cnn", "--mean", "0.5"], "give both or neither"),
        (["--network", "cnn", "--mean", "1", "2", "--std", "1", "2"], "images of 1 channel: give one for each"),
        (["--network", "cnn", "--keep", "features.99"], "keep names no module of this network: 'features.99'"),
        (["--network", "cnn", "--objectives", "error,flps"], "do not weigh error against cost"),
        (["--network", "cnn", "--objectives", "error,flops,flps"], "unknown name 'flps'"),
        (["--network", "cnn", "--objectives", ","], "--objectives is empty"),
        (["--network", "cnn", "--algorithm", "gided"], "did you mean 'guided'"),
        (["--network", "cnn", "--budget", "0"], "budget = 0"),
        (["--network", "cnn", "--jobs", "0"], "--jobs = 0"),
        (["--network", "cnn", "--export", "tflite"], "export = 'tflite'"),
        (["--network", "cnn", "--device", "tpu"], "unknown device 'tpu'"),
        (["--network", "cnn", "--size", "8"], "size, root and download are for folders"),
        (["--network", "cnn", "--resume"], "there is nothing to resume"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(desk, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(desk)
    torch.save({"features.0.weight": torch.zeros(3)}, desk / "other.pth")
    out = tmp_path / "out"
    assert main(["filters", "bars.npz", "--out", str(out), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moevoprune: error: ")
    assert re.search(message, line), line
    assert not out.exists()


def test_a_folder_of_other_things_is_left_alone(desk, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(command(desk, tmp_path)) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["filters", "--out", str(tmp_path), "--resume"]) == 2
    assert "holds no settings.json" in capsys.readouterr().err
    (tmp_path / "settings.json").write_text('{"format": 1, "settings": {"epochs": "many"}}')
    assert main(["filters", "--out", str(tmp_path), "--resume"]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_other_data_in_the_same_file_are_refused(desk, tmp_path, capsys):
    own, out = tmp_path / "own.npz", tmp_path / "out"
    shutil.copy(desk / "bars.npz", own)
    words = ["filters", str(own), "--network", f"{desk / 'networks.py'}:small", "--out", str(out)]
    assert main([*words, *QUICK, "--epochs", "0", "--no-baselines", "--quiet"]) == 0
    with np.load(own) as stored:
        arrays = {**stored, "X_test": stored["X_test"] + 1}
    np.savez(own, **arrays)
    assert main(resumed(desk, out)) == 2
    assert "settings changed (content of DATA: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mean", "123.7", "--std", "58.4"], "for pixels in 0 to 1"),
        (["--pop", "1" + 20 * "0"], "pop = "),
        (["--budget", "1" + 20 * "0"], "budget = "),
        (["--gens", "1" + 20 * "0"], "gens = "),
        (["--network", "frozen.py:frozen"], "no parameter that can be trained"),
    ],
)
def test_what_would_fail_late_is_refused_early(desk, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(desk)
    frozen = "def frozen():\n    return small(3, 1).requires_grad_(False)\n"
    (desk / "frozen.py").write_text(NETWORKS + frozen, encoding="utf-8")
    network = [] if "--network" in more else ["--network", "networks.py:small"]
    assert main(["filters", "bars.npz", "--out", str(tmp_path / "out"), *network, *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()
