"""``moevoprune export``: from a run folder to a file, its numbers and its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from moevoprune import FeatureSet, HeadSettings, PruningProblem, evolve
from moevoprune.cli import export as module
from moevoprune.cli.main import main
from moevoprune.features.backbones import BackboneSettings, load_backbone
from moevoprune.fronts.ensembles import make_ensemble
from moevoprune.fronts.export import exporting
from moevoprune.fronts.export.measuring import latencies

SETTINGS = {
    "name": "mobilenet_v2",
    "args": {"width_mult": 0.35},
    "weights": "none",
    "layer": "features.1",
    "crop": 32,
}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(module, "_BATCHES", (2,))
    monkeypatch.setattr(module, "_IMAGE_BATCHES", (2,))
    monkeypatch.setattr(exporting, "latencies", partial(latencies, seconds=0.02))


@pytest.fixture(scope="module")
def front(small_features, quick_head):
    return evolve(PruningProblem(small_features, head=quick_head, cv=3, seed=1), pop_size=10, n_gen=3, seed=1)


@pytest.fixture(scope="module")
def run(front, small_features, tmp_path_factory):
    """A front that was saved from Python, with its data beside it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    front.save(folder)
    np.savez(
        folder.parent / "data.npz",
        X_train=small_features.X_train,
        y_train=small_features.y_train,
        X_test=small_features.X_test,
        y_test=small_features.y_test,
        class_names=np.array(small_features.class_names),
    )
    return folder


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    """A front on the features of a real, small backbone."""
    backbone = load_backbone(BackboneSettings(**SETTINGS))
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.normal(size=(40, 3, 32, 32)).astype(np.float32) + labels[:, None, None, None]
    rows = backbone.features(torch.from_numpy(images)).numpy()
    data = FeatureSet(rows[:30], labels[:30], rows[30:], labels[30:], class_names=("dark", "bright"))
    head = HeadSettings(hidden=(4,), epochs=3, batch_size=16)
    folder = tmp_path_factory.mktemp("runs") / "images"
    evolve(PruningProblem(data, head=head, cv=2, seed=1), pop_size=6, n_gen=1, seed=1).save(folder)
    record = {"extraction": {"backbone": {"settings": SETTINGS, "weights_sha256": backbone.weights_sha256}}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def call(*words):
    return main(["export", *(str(word) for word in words)])


@pytest.mark.parametrize("member", ["knee", "best", "0", "dense"])
def test_members(run, front, small_features, tmp_path, capsys, member):
    target = tmp_path / "head.pt2"
    assert call(run, "--member", member, "--to", target, "--data", run.parent / "data.npz") == 0
    heads = {
        "knee": front.heads[front.knee()],
        "best": front.heads[front.best("accuracy")],
        "dense": front.dense_head,
    }
    head = heads.get(member, front.heads[0])
    outputs = torch.export.load(target).module()(torch.from_numpy(small_features.X_test.copy()))
    np.testing.assert_allclose(outputs.numpy(), head.predict_proba(small_features.X_test), atol=1e-6)
    out, err = capsys.readouterr()
    assert err == ""
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert f"reads {len(head.inputs)} of 14 features" in out
    assert "checked with 45 test rows" in out
    assert "same class for 45 of 45" in out
    assert f"{head.n_parameters}" in lines["parameters of the head"]
    for label in ("multiply-adds of the head per row", "file", "time for 2 rows"):
        assert label in lines
    assert ("dense head  " in out) == (member != "dense")


def test_ensemble(run, front, small_features, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_LARGE", 2)
    target = tmp_path / "head.pt2"
    data = ("--data", run.parent / "data.npz")
    assert call(run, "--member", "ensemble", "--how", "all", "--to", target, *data) == 0
    mean = np.mean([head.predict_proba(small_features.X_test) for head in front.heads], axis=0)
    outputs = torch.export.load(target).module()(torch.from_numpy(small_features.X_test.copy()))
    np.testing.assert_allclose(outputs.numpy(), mean, atol=1e-5)
    out = capsys.readouterr().out
    assert f"ensemble (all) of {len(front)} heads, soft voting" in out
    times = sum(head.n_parameters for head in front.heads) / front.dense_head.n_parameters
    assert times > 2
    assert f"{times:.1f} times the parameters of the dense head: --how greedy chooses fewer" in out
    assert call(run, "--member", "ensemble", "--voting", "hard", "--to", target, *data, "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_an_ensemble_as_the_user_wants_it(run, tmp_path, capsys):
    target = tmp_path / "vote.safetensors"
    data = ["--data", run.parent / "data.npz"]
    assert call(run, "--member", "ensemble", "--members", "2", "--to", target, *data) == 0
    assert "ensemble of 2 heads" in capsys.readouterr().out
    assert call(run, "--members", "2", "--to", target, *data) == 2
    assert "add --member ensemble" in capsys.readouterr().err
    assert call(run, "--weights", "nope", "--to", target, *data) == 2
    assert "--weights is for --with-backbone" in capsys.readouterr().err
    assert call(run, "--to", tmp_path / "x\udcff.onnx", *data) == 2
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["default", "greedy"])
def test_smaller_ensembles(run, front, tmp_path, capsys, how):
    target = tmp_path / "vote.safetensors"
    assert call(run, "--member", "ensemble", "--how", how, "--to", target, "--data", run.parent / "data.npz") == 0
    out = capsys.readouterr().out
    assert f"ensemble ({how}) of {make_ensemble(front, how).n_members} heads, soft voting" in out
    assert "same class for 45 of 45" in out
    # what is small, or cannot be had smaller, needs no advice
    assert "times the parameters" not in out


def test_without_the_data(run, front, tmp_path, capsys):
    target = tmp_path / "head.safetensors"
    assert call(run, "--to", target) == 0
    out = capsys.readouterr().out
    assert "random rows, as the run's data cannot be read" in out
    assert "same class for 512 of 512" in out
    assert call(run, "--to", target, "--data", tmp_path / "nowhere.npz") == 2
    assert "nowhere.npz" in capsys.readouterr().err


def test_with_backbone(image_run, tmp_path, capsys):
    target = tmp_path / "fused.pt2"
    for name, colour in (("dark", 10), ("bright", 240)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40 + i, 50), (colour, 20 * i, 40)).save(tmp_path / "pictures" / name / f"{i}.png")
    (tmp_path / "pictures" / "dark" / "notes.txt").write_text("no image")
    assert call(image_run, "--with-backbone", "--to", target) == 0
    out = capsys.readouterr().out
    assert "checked with 8 images of random noise" in out
    assert "the backbone in the file has 784 parameters" in out
    assert "off 64-bit arithmetic" in out
    assert call(image_run, "--with-backbone", "--to", target, "--images", tmp_path / "pictures") == 0
    assert "checked with 6 images:" in capsys.readouterr().out
    fused = torch.export.load(target).module()
    assert fused(torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))).shape == (3, 2)
    (tmp_path / "bad" / "dark").mkdir(parents=True)
    (tmp_path / "bad" / "dark" / "0.png").write_text("no image")
    assert call(image_run, "--with-backbone", "--to", target, "--images", tmp_path / "bad") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "head.onx"], "did you mean '.onnx'"),
        (["--to", "head.pt2", "--member", "last"], "use knee, best, ensemble, dense or a number from 0"),
        (["--to", "head.pt2", "--how", "greedy"], "add --member ensemble"),
        (["--to", "head.pt2", "--voting", "soft"], "add --member ensemble"),
        (["--to", "head.pt2", "--member", "ensemble", "--how", "gredy"], "did you mean 'greedy'"),
        (["--to", "head.pt2", "--images", "."], "--images is for --with-backbone"),
        (["--to", "head.pt2", "--with-backbone"], "not extracted from images by moevoprune"),
        (["--to", "head.pt2", "--with-backbone", "--inputs", "active"], "does not go with --with-backbone"),
        (["--to", "head.safetensors", "--with-backbone"], "use .onnx or .pt2"),
        (["--to", "head.safetensors", "--inputs", "active"], "does not go with .safetensors"),
        (["--to", "nowhere/head.safetensors"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported(run, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert call(run, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_options_cost_no_imports():
    code = (
        "import sys, moevoprune.cli.export, moevoprune.cli.recorded_backbone; "
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_leaves(shared_data, tmp_path, capsys):
    """An exported knee gives the labels of the head in an environment without moevoprune."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from moevoprune import load_features

    source = shared_data / "features" / "leaves_citrus.npz"
    features = load_features(source)
    problem = PruningProblem(features, head=HeadSettings(hidden=(16,), epochs=4), cv=1, seed=1)
    front = evolve(problem, pop_size=8, n_gen=2, algorithm="nsga2", seed=1)
    front.save(tmp_path / "run")
    assert call(tmp_path / "run", "--to", tmp_path / "knee.onnx", "--data", source) == 0
    np.save(tmp_path / "rows.npy", features.X_test)
    code = (
        "import sys; sys.modules['moevoprune'] = None; sys.modules['torch'] = None\n"
        "import numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession('knee.onnx')\n"
        "print(*session.run(None, {'features': np.load('rows.npy')})[0].argmax(1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head = front.heads[front.knee()]
    assert [int(label) for label in done.stdout.split()] == head.predict(features.X_test).tolist()
    n_hidden, n_classes = 16, len(features.class_names)
    fixed = n_hidden + n_hidden * n_classes + n_classes
    share = (head.n_parameters - fixed) / (front.dense_head.n_parameters - fixed)
    assert share == front.active[front.knee()] / features.n_features
    assert f"{head.n_parameters:,}" in capsys.readouterr().out
