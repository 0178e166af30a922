"""``moevoprune explain``: from run folders to tables and figures."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from moevoprune import FeatureSet, HeadSettings, PruningProblem, evolve, load_features
from moevoprune.cli import explain as module
from moevoprune.cli.explain import add_arguments, explain
from moevoprune.errors import InputError
from moevoprune.features import backbones
from moevoprune.fronts import heatmaps
from moevoprune.fronts.explanation import explain_front

HASH = "12ab" * 16
SETTINGS = {"name": "resnet18", "args": {}, "weights": "none", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
RECORD = {
    "data": {"name": "small", "sha256": "d"},
    "extraction": {
        "backbone": {"settings": SETTINGS, "weights_sha256": HASH, "layer": "flatten", "feature_size": 6},
        "split": "as given",
    },
}


def prepare(image):
    """16 x 16 pixels, from 0..255 to -1..1."""
    pixels = np.asarray(image.convert("RGB").resize((16, 16)), np.float32) / 127.5 - 1
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


class FakeBackbone:
    """Six features: how bright each colour is above and below, over a map of 4 x 4 places."""

    def __init__(self, digest=HASH, feature_map="map"):
        self.settings = SimpleNamespace(name="fake")
        self.preprocessing = Prepare()
        self.feature_map = feature_map
        self.feature_size = 6
        self.weights_sha256 = digest
        self.notes = ("a note",)
        self._lower = torch.nn.Conv2d(3, 6, 4, stride=4, bias=False)
        with torch.no_grad():
            self._lower.weight.zero_()
            for channel in range(6):
                self._lower.weight[channel, channel % 3, : 2 if channel < 3 else 4] = 1 / 16

    def features(self, images):
        with torch.no_grad():
            return self._lower(images).mean(dim=(2, 3))

    def split_at_map(self):
        return self._lower, torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


class Prepare:
    mean, std, crop = (0.5,) * 3, (0.5,) * 3, 16

    def __call__(self, image):
        return prepare(image)


def paint(path, label, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (16, 16, 3))
    pixels[..., label] += 130
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Red, green and blue pictures, 8 and 4 of each."""
    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(["red", "green", "blue"]):
            for i in range(count):
                paint(root / part / name / f"{name}_{part}{i}.png", label, 100 * label + i + count)
    return root


def evolved(seed=1, encoding="features", names=("red", "green", "blue")):
    rng = np.random.default_rng(0)
    pictures = [(label, rng.integers(0, 90, (16, 16, 3))) for label in [0, 1, 2] * 20]
    rows, labels = [], np.array([label for label, _ in pictures])
    for label, pixels in pictures:
        pixels[..., label] += 130
        rows.append(prepare(Image.fromarray(pixels.astype(np.uint8))))
    features = FakeBackbone().features(torch.stack(rows)).numpy()
    data = FeatureSet(features[:40], labels[:40], features[40:], labels[40:], class_names=names, name="small")
    head = HeadSettings(hidden=(8,), epochs=6, batch_size=16)
    return evolve(PruningProblem(data, encoding, head=head, cv=2, seed=seed), pop_size=6, n_gen=2, seed=seed)


@pytest.fixture(scope="module")
def fronts():
    return {
        "one": evolved(),
        "two": evolved(2),
        "neurons": evolved(encoding="neurons"),
        "foreign": evolved(names=("blue", "yellow", "red")),
    }


@pytest.fixture
def make_run(fronts, tmp_path):
    def make(name="one", record=RECORD, where=None):
        run = tmp_path / (where or name)
        fronts[name].save(run)
        if record is not None:
            (run / "run.json").write_text(json.dumps(record))
        return run

    return make


@pytest.fixture(autouse=True)
def fake_backbone(monkeypatch, request):
    if "shared_data" in request.fixturenames:
        return
    monkeypatch.setattr(heatmaps, "_DPI", 30)
    monkeypatch.setattr(backbones, "load_backbone", lambda settings, device: FakeBackbone())


def call(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return explain(parser.parse_args([str(word) for word in words]))


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the figures, by file name; drawing them would take most of the time."""
    calls = {}

    def write(path, maps, rows, title, headings, scales):
        calls[path.name] = SimpleNamespace(maps=maps, rows=rows, title=title, headings=headings, scales=scales)
        path.write_text("")
        return path

    monkeypatch.setattr(heatmaps, "save_heat_maps", write)
    return calls


# --- without images --------------------------------------------------------------------------------------------


def test_any_run_has_frequencies(make_run, capsys, fronts):
    run = make_run(record=None)
    assert call(run) == 0
    assert written(run / "explanation") == ["explanation.csv", "figures/frequency.png"]
    rows = table(run / "explanation" / "explanation.csv")
    assert "importance" not in rows[0]
    assert (run / "explanation" / "explanation.csv").read_text() == explain_front(fronts["one"]).to_csv()
    out = capsys.readouterr().out
    assert "relative weight" in out
    assert str(run / "explanation") in out
    first = out.splitlines()[3].split()
    assert first[:2] == [rows[0]["feature"], f"{float(rows[0]['frequency']):.3f}"]


def test_quiet_says_nothing(make_run, folder, capsys):
    assert call(make_run(), "--images", folder, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_top_counts_lines(make_run, capsys):
    call(make_run(), "--top", 2)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.split()[:1] and line.split()[0].isdigit() and "." in line]) == 2


def test_several_runs_are_merged(make_run, tmp_path, monkeypatch, fronts):
    monkeypatch.chdir(tmp_path)
    assert call(make_run("one"), make_run("two")) == 0
    assert call(make_run("one"), make_run("two")) == 0
    assert written(tmp_path / "explanations" / "one") == ["explanation.csv", "figures/frequency.png"]
    merged = type(fronts["one"]).merge([fronts["one"], fronts["two"]])
    text = (tmp_path / "explanations" / "one-2" / "explanation.csv").read_text()
    assert text == explain_front(merged).to_csv()
    assert call(make_run("one"), make_run("two"), "--out", tmp_path / "here") == 0
    assert (tmp_path / "here" / "explanation.csv").read_text() == text


def test_runs_on_other_data_are_not_merged(make_run):
    other = {**RECORD, "data": {"sha256": "e"}}
    with pytest.raises(InputError, match="other data or another head"):
        call(make_run("one"), make_run("two", other))
    with pytest.raises(InputError, match="other data or another head"):
        call(make_run("one"), make_run("foreign"))


def test_neurons_have_a_table_of_their_own(make_run, capsys):
    run = make_run("neurons")
    assert call(run) == 0
    assert written(run / "explanation") == ["explanation.csv", "figures/frequency.png", "neurons.csv"]
    assert len(table(run / "explanation" / "neurons.csv")) == 8
    assert "prunes no features" in capsys.readouterr().out


def test_explaining_again_leaves_other_files_alone(make_run, folder, drawn):
    run = make_run()
    call(run, "--images", folder)
    (run / "explanation" / "figures" / "mine.png").write_text("mine")
    (run / "explanation" / "explanation.csv").write_text("old")
    before = written(run / "explanation")
    call(run)
    assert written(run / "explanation") == before
    assert (run / "explanation" / "explanation.csv").read_text() != "old"
    assert (run / "explanation" / "figures" / "mine.png").read_text() == "mine"


# --- with images -----------------------------------------------------------------------------------------------


def test_a_figure_per_class(make_run, folder, drawn, capsys, fronts):
    run = make_run()
    assert call(run, "--images", folder, "--top", 4) == 0
    assert written(run / "explanation") == [
        "explanation.csv",
        "figures/explain_blue.png",
        "figures/explain_green.png",
        "figures/explain_red.png",
        "figures/frequency.png",
    ]
    red = drawn["explain_red.png"]
    # of the test part, from all over it
    assert [row.name for row in red.rows] == ["red_test1.png", "red_test2.png", "red_test3.png"]
    assert all(row.prediction.startswith("red, ") and row.right for row in red.rows)
    front = fronts["one"]
    knee = front.knee()
    assert red.title.startswith(f"red: head {knee} (knee) of the front, {front.active[knee]} of 6 features")
    top = table(run / "explanation" / "explanation.csv")[:4]
    assert [heading.split("\n")[0] for heading in red.headings] == [f"feature {row['feature']}" for row in top]
    # every figure on the same scales
    np.testing.assert_array_equal(red.scales, drawn["explain_blue.png"].scales)
    assert red.maps.features.shape == (3, 4, 4, 4)
    # as the network sees it
    with Image.open(folder / "test" / "red" / "red_test1.png") as image:
        np.testing.assert_array_equal(red.maps.images[0], np.asarray(image))
    out = capsys.readouterr().out
    assert "a note" in out
    assert "explain_red.png" in out


def test_importance_is_measured_on_the_images(make_run, folder, drawn, fronts):
    run = make_run()
    call(run, "--images", folder)
    tensors = [
        prepare(Image.open(path))
        for name in ("blue", "green", "red")
        for path in sorted((folder / "test" / name).iterdir())
    ]
    rows = FakeBackbone().features(torch.stack(tensors)).numpy()
    expected = explain_front(fronts["one"], rows)
    for row in table(run / "explanation" / "explanation.csv"):
        assert expected.importance is not None
        assert float(row["importance"]) == pytest.approx(expected.importance[int(row["feature"])], abs=2e-6)


@pytest.mark.parametrize("member", ["best", "0"])
def test_member(make_run, folder, drawn, member, fronts):
    call(make_run(), "--images", folder, "--member", member, "--per-class", 1)
    front = fronts["one"]
    number = front.best("accuracy") if member == "best" else 0
    assert f"head {number} " in drawn["explain_red.png"].title
    maps = drawn["explain_red.png"].maps
    np.testing.assert_allclose(
        maps.outputs,
        front.heads[number].outputs(
            FakeBackbone()
            .features(torch.from_numpy(maps.images.transpose(0, 3, 1, 2) / np.float32(127.5) - 1))
            .numpy()
        ),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("member", ["last", "-1", "999", "1.5", "", "²"])
def test_a_member_that_is_not_there(make_run, member):
    with pytest.raises(InputError, match="use knee, best or a number from 0"):
        call(make_run(), f"--member={member}")


def test_classes_are_matched_by_name(make_run, folder, drawn):
    # the run's classes are blue, yellow and red, for what is red, green and blue
    call(make_run("foreign"), "--images", folder)
    assert [row.prediction.split(",")[0] for row in drawn["explain_red.png"].rows] == ["blue"] * 3
    assert all(row.right is False for row in drawn["explain_red.png"].rows)
    # the run knows no green
    assert all(row.right is None for row in drawn["explain_green.png"].rows)


def test_images_without_classes(make_run, tmp_path, drawn):
    for i in range(7):
        paint(tmp_path / "flat" / f"{i}.png", i % 3, i)
    assert call(make_run(), "--images", tmp_path / "flat") == 0
    assert list(drawn) == ["explain_images.png"]
    assert [row.name for row in drawn["explain_images.png"].rows] == ["1.png", "4.png", "6.png"]
    assert drawn["explain_images.png"].title.startswith("head ")
    assert all(row.right is None for row in drawn["explain_images.png"].rows)


def test_hostile_names(make_run, tmp_path, capsys):
    names = ["$x$", "<b>&", "a\x1b[31m\nb", "健", "A_b", "a-B", "red"]
    for i, name in enumerate(names):
        paint(tmp_path / "odd" / name / "$1\n_$.png", i % 3, i)
    run = make_run()
    assert call(run, "--images", tmp_path / "odd") == 0
    assert len(list((run / "explanation" / "figures").glob("explain_*.png"))) == len(names)
    out = capsys.readouterr().out
    assert "\x1b" not in out


def test_the_split_of_the_run_is_made_again(make_run, tmp_path, drawn):
    from moevoprune.features.images import find_images

    for label, name in enumerate(["red", "green", "blue"]):
        for i in range(12):
            paint(tmp_path / "unsplit" / name / f"{i:02}.png", label, 50 * label + i)
    images = find_images(tmp_path / "unsplit")
    digests = [images.digest(i) for i in range(len(images))]
    split = images.split(0.25, 3, digests)
    tests = {split.keys[i] for i in split.rows("test")}
    record = json.loads(json.dumps(RECORD))
    record["extraction"] |= {
        "split": {"test_fraction": 0.25, "split_seed": 3},
        "images_sha256": hashlib.sha256(b"".join(digests)).hexdigest(),
    }
    call(make_run(record=record), "--images", tmp_path / "unsplit")
    assert {f"red/{row.name}" for row in drawn["explain_red.png"].rows} <= tests

    # other images: all of them may be shown
    record["extraction"]["images_sha256"] = "0" * 64
    drawn.clear()
    call(make_run(record=record), "--images", tmp_path / "unsplit")
    assert [row.name for row in drawn["explain_red.png"].rows] == ["02.png", "06.png", "10.png"]


def test_files_that_are_no_images(make_run, tmp_path, drawn, capsys):
    for label, name in enumerate(["red", "green"]):
        for i in range(3):
            paint(tmp_path / "some" / name / f"{i}.png", label, i)
    (tmp_path / "some" / "red" / "1.png").write_text("no image")
    run = make_run()
    with pytest.raises(InputError, match=r"red.1\.png.*--skip-bad"):
        call(run, "--images", tmp_path / "some")
    assert not (run / "explanation").exists()
    assert call(run, "--images", tmp_path / "some", "--skip-bad") == 0
    assert [row.name for row in drawn["explain_red.png"].rows] == ["0.png", "2.png"]
    out = capsys.readouterr().out
    assert "skipped 1 files that are no images" in out
    assert "1.png" in out
    for i in (0, 2):
        (tmp_path / "some" / "red" / f"{i}.png").write_text("no image")
    drawn.clear()
    assert call(run, "--images", tmp_path / "some", "--skip-bad") == 0
    assert list(drawn) == ["explain_green.png"]


def test_a_backbone_without_a_feature_map(make_run, folder, capsys, monkeypatch):
    monkeypatch.setattr(backbones, "load_backbone", lambda settings, device: FakeBackbone(feature_map=None))
    run = make_run()
    assert call(run, "--images", folder) == 0
    assert written(run / "explanation") == ["explanation.csv", "figures/frequency.png"]
    assert "importance" in table(run / "explanation" / "explanation.csv")[0]
    assert "heat maps are left out" in capsys.readouterr().out


def test_neurons_have_heat_maps_of_the_strongest_features(make_run, folder, drawn):
    run = make_run("neurons")
    call(run, "--images", folder, "--top", 3)
    rows = table(run / "explanation" / "explanation.csv")
    assert [float(row["frequency"]) for row in rows] == [1.0] * 6
    importance = [float(row["importance"]) for row in rows]
    assert importance == sorted(importance, reverse=True)
    assert "importance" in drawn["explain_red.png"].headings[0]


def test_too_many_columns(make_run, folder, drawn, capsys, monkeypatch):
    monkeypatch.setattr(module, "_MOST_COLUMNS", 2)
    call(make_run(), "--images", folder, "--top", 5)
    assert len(drawn["explain_red.png"].headings) == 2
    assert "first 2" in capsys.readouterr().out


# --- what cannot be explained ----------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [None, {}, {"extraction": None}, {"extraction": {"backbone": 3}}, []])
def test_a_run_that_does_not_come_from_images(make_run, folder, record):
    run = make_run(record=record)
    with pytest.raises(InputError, match="not extracted from images by moevoprune"):
        call(run, "--images", folder)
    assert not (run / "explanation").exists()
    assert call(run) == 0


def test_runs_with_other_backbones(make_run, folder):
    other = json.loads(json.dumps(RECORD))
    other["extraction"]["backbone"]["weights_sha256"] = "0" * 64
    with pytest.raises(InputError, match="another backbone"):
        call(make_run("one"), make_run("two", other), "--images", folder)


def test_other_weights(make_run, folder, drawn, monkeypatch):
    asked = []

    def load(settings, device):
        asked.append(settings.weights)
        return FakeBackbone("0" * 64 if settings.weights == "other.pth" else HASH)

    monkeypatch.setattr(backbones, "load_backbone", load)
    with pytest.raises(InputError, match="other weights than those"):
        call(make_run(), "--images", folder, "--weights", "other.pth")
    assert call(make_run(), "--images", folder, "--weights", "moved.pth") == 0
    assert asked == ["other.pth", "moved.pth"]


def test_weights_that_have_moved(make_run, folder, monkeypatch):
    monkeypatch.undo()
    record = json.loads(json.dumps(RECORD))
    record["extraction"]["backbone"]["settings"]["weights"] = "/nowhere/weights.pth"
    with pytest.raises(InputError, match="--weights FILE"):
        call(make_run(record=record), "--images", folder)


def test_damaged_records(make_run, folder):
    run = make_run()
    (run / "run.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        call(run)
    record = json.loads(json.dumps(RECORD))
    record["extraction"]["backbone"]["settings"]["crop"] = "wide"
    with pytest.raises(InputError, match="settings of the backbone are damaged"):
        call(make_run(record=record), "--images", folder)


def test_what_cannot_be_used(make_run, tmp_path, folder):
    run = make_run()
    with pytest.raises(InputError, match="not found"):
        call(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nowhere"):
        call(run, "--images", tmp_path / "nowhere")
    for option in ("--top", "--per-class"):
        with pytest.raises(InputError, match=option):
            call(run, option, 0)
        with pytest.raises(InputError, match=option):
            call(run, option, 201)
    with pytest.raises(InputError, match="--out is empty"):
        call(run, "--out", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        call(run, "--out", tmp_path / "file")
    with pytest.raises(InputError, match="unknown device"):
        call(run, "--images", folder, "--device", "abacus")


def test_options_cost_no_imports():
    code = (
        "import sys, moevoprune.cli.explain; print([m for m in ('torch', 'numpy', 'captum') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- for real --------------------------------------------------------------------------------------------------


def test_real_leaves(shared_data, tmp_path, capsys):
    features = load_features(shared_data / "features" / "leaves_citrus.npz")
    settings = backbones.BackboneSettings(
        name="mobilenet_v2",
        args={"width_mult": 0.35},
        weights=str(shared_data / "backbones" / "mobilenet_v2_035_imagenet.pth"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    backbone = backbones.load_backbone(settings)
    problem = PruningProblem(features, head=HeadSettings(hidden=(16,), epochs=4), cv=1, seed=1)
    front = evolve(problem, pop_size=8, n_gen=2, algorithm="nsga2", seed=1)
    front.save(tmp_path / "run")
    record = {"extraction": {"backbone": {**backbone.record(), "settings": settings.model_dump(mode="json")}}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    folder = tmp_path / "leaves"
    source = shared_data / "images" / "leaves_citrus" / "test"
    for name in ("canker", "healthy"):
        (folder / name).mkdir(parents=True)
        for path in sorted((source / name).iterdir())[:2]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    assert call(tmp_path / "run", "--images", folder, "--member", "best", "--top", 3) == 0
    for name in ("canker", "healthy"):
        with Image.open(tmp_path / "run" / "explanation" / "figures" / f"explain_{name}.png") as image:
            assert image.size[0] > 600
    assert "importance" in capsys.readouterr().out
