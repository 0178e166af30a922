"""``moevoprune robustness``: from run folders to a table and a figure."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from moevoprune import FeatureSet, Front, evolve, load_features
from moevoprune.cli.building import build_problem
from moevoprune.cli.config import parse_config, to_toml
from moevoprune.cli.main import main
from moevoprune.features import extraction
from moevoprune.fronts import plots
from moevoprune.fronts.robustness import load_robustness

pytest.importorskip("torchvision")

BACKBONE = ["--backbone", "mobilenet_v2", "--backbone-arg", "width_mult=0.1", "--weights", "none", "--size", "32"]
SETTINGS = {"name": "mobilenet_v2", "args": {"width_mult": 0.1}, "weights": "none", "size": 32}
# one corruption, which is random, of two images
LITTLE = ["--noise", "1", "--corruptions", "gaussian_noise", "--severities", "3", "--limit", "2"]
FEW = ["--noise", "0,1", "--repeats", "2", "--corruptions", "contrast,jpeg", "--severities", "2,5"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with images of two classes, their features in a file, and a run on each."""
    root = tmp_path_factory.mktemp("home")
    for label, name in enumerate(("red", "green")):
        for number in range(12):
            path = root / "colours" / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(100 * label + number).integers(0, 100, (40, 36, 3), dtype=np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOEVOPRUNE_CACHE", str(root / "cache"))
        patch.chdir(root)
        assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 0
        images = {"data": {"images": str(root / "colours")}, "backbone": SETTINGS}
        save_run(root / "images", images)
        save_run(root / "features", {"data": {"features": str(root / "f.npz")}})
    return root


def save_run(folder, raw):
    """What a run leaves that this command reads; its figures would take most of the time."""
    raw = {**raw, "head": {"hidden": (4,), "epochs": 2}, "problem": {"cv": 2}}
    config, problem = build_problem(parse_config(raw, "settings"))
    evolve(problem, pop_size=4, n_gen=1, seed=1).save(folder)
    (folder / "config.toml").write_text(to_toml(config))
    features = problem.features
    record = {
        "data": {"sha256": features.content_hash},
        "extraction": json.loads(features.extraction or "null"),
    }
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of that folder in which nothing has moved, and the current one."""
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(home / "cache"))
    for name in ("images", "features"):
        shutil.copytree(home / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_drawing(request, monkeypatch):
    """Drawing takes most of the time: one test does it."""
    if request.function is not test_a_run_on_images:
        monkeypatch.setattr(plots, "plot_robustness", lambda curves: Figure(figsize=(1, 1)).add_axes((0, 0, 1, 1)))


@pytest.fixture(autouse=True, scope="module")
def one_backbone():
    """The network is loaded once: it is the same for all, and nothing changes it."""
    load, loaded = extraction.load_backbone, {}

    def remembered(*asked):
        if str(asked) not in loaded:
            loaded[str(asked)] = load(*asked)
        return loaded[str(asked)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "load_backbone", remembered)
        yield


def error(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def of(curves, name, kind):
    (found,) = [curve for curve in curves if (curve.name, curve.kind) == (name, kind)]
    return found


def test_a_run_on_images(here, capsys):
    assert main(["robustness", "images", "--member", "0", *FEW]) == 0
    out = capsys.readouterr().out
    front = Front.load("images")
    curves = load_robustness("images")
    names = ["knee", "best", "member 0", "dense", "ensemble"]
    kinds = ["feature_noise", "contrast", "jpeg"]
    assert [(curve.kind, curve.name) for curve in curves] == [(kind, name) for kind in kinds for name in names]
    assert of(curves, "dense", "feature_noise").severities == (0, 1)
    assert of(curves, "dense", "feature_noise").accuracy[0] == pytest.approx(front.dense_test)
    # six test images, as they are at severity 0
    assert of(curves, "dense", "jpeg").severities == (0, 2, 5)
    assert of(curves, "dense", "jpeg").accuracy[0] == pytest.approx(front.dense_test, abs=1e-6)
    assert "6 images, mean over 2 corruptions" in out
    assert f"knee: member {front.knee()}, {front.active[front.knee()]} of 1,280 features" in out
    mean = np.mean([of(curves, "dense", kind).accuracy for kind in kinds[1:]], axis=0)
    line = next(line for line in out.split("mean over 2")[1].splitlines() if line.startswith("dense"))
    assert [float(cell) for cell in line.split()[1:]] == pytest.approx(mean.tolist(), abs=6e-4)
    line = next(line for line in out.splitlines() if line.startswith("contrast"))
    contrast = [np.mean(of(curves, name, "contrast").accuracy[1:]) for name in names]
    assert [float(cell) for cell in line.split()[1:]] == pytest.approx(contrast, abs=6e-4)
    with Image.open(here / "images" / "figures" / "robustness.png") as figure:
        assert figure.width > 400


def test_again_it_writes_the_same(here, capsys):
    assert main(["robustness", "images", "--out", "a", "--quiet", *LITTLE]) == 0
    assert main(["robustness", "images", "--out", "b", "--quiet", *LITTLE]) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(str(path.relative_to(here / "a")) for path in (here / "a").rglob("*.*")) == [
        "figures/robustness.png",
        "robustness.csv",
    ]
    assert (here / "a" / "robustness.csv").read_bytes() == (here / "b" / "robustness.csv").read_bytes()
    assert main(["robustness", "images", "--out", "c", "--quiet", "--seed", "2", "--features-only", *LITTLE]) == 0
    other = load_robustness("c")
    assert {curve.kind for curve in other} == {"feature_noise"}
    assert other != [curve for curve in load_robustness("a") if curve.kind == "feature_noise"]


def test_a_run_on_features(here, home, capsys):
    assert main(["robustness", "features", *FEW]) == 0
    assert "with --images FOLDER" in capsys.readouterr().out
    curves = load_robustness("features")
    assert {curve.kind for curve in curves} == {"feature_noise"}
    # the images that the file came from
    assert main(["robustness", "features", "--images", str(home / "colours"), "--limit", "4", *FEW]) == 0
    assert "on 4 images" in capsys.readouterr().out
    both = load_robustness("features")
    assert both[: len(curves)] == curves
    assert {curve.kind for curve in both} == {"feature_noise", "contrast", "jpeg"}


def test_what_has_moved(here, home, capsys):
    shutil.copytree(home / "colours", here / "moved")
    text = (here / "images" / "config.toml").read_text()
    (here / "images" / "config.toml").write_text(text.replace("colours", "gone"))
    assert main(["robustness", "images", *FEW]) == 2
    assert "gone" in error(capsys)
    assert not (here / "images" / "robustness.csv").exists()
    assert main(["robustness", "images", "--images", "moved", "--quiet", *FEW]) == 0
    first = load_robustness("images")
    # features from a file, and no images at all
    (here / "images" / "config.toml").write_text(text)
    data = ["--data", str(home / "f.npz"), "--features-only"]
    assert main(["robustness", "images", "--quiet", *data, *FEW]) == 0
    assert load_robustness("images") == [curve for curve in first if curve.kind == "feature_noise"]
    # other images
    next((here / "moved" / "red").iterdir()).unlink()
    assert main(["robustness", "images", "--images", "moved", *LITTLE, "--quiet"]) == 2
    assert "are not the images of images" in error(capsys)


def test_files_that_are_no_images(here, home, capsys):
    shutil.copytree(home / "colours", here / "moved")
    (here / "moved" / "red" / "notes.txt").write_text("no image")
    assert main(["robustness", "images", "--images", "moved", "--quiet", *LITTLE]) == 2
    assert "notes.txt" in error(capsys)
    assert main(["robustness", "images", "--images", "moved", "--skip-bad", *LITTLE]) == 0
    assert "notes.txt" in capsys.readouterr().out


def test_other_weights(here, capsys):
    record = json.loads((here / "images" / "run.json").read_text())
    record["extraction"]["backbone"]["weights_sha256"] = "0" * 64
    (here / "images" / "run.json").write_text(json.dumps(record))
    assert main(["robustness", "images", "--quiet", *LITTLE]) == 2
    assert "--weights FILE" in error(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise", "a,b"], "--noise a,b"),
        (["--noise", "0,-1"], "--noise 0,-1"),
        (["--noise", "nan"], "--noise nan"),
        (["--noise", ","], "--noise ,"),
        (["--severities", "0.5"], "--severities 0.5"),
        (["--severities", "6"], "at most 5"),
        (["--corruptions", "snow"], "unknown corruption 'snow'"),
        (["--corruptions", ""], "no corruption is named"),
        (["--limit", "0"], "--limit = 0"),
        (["--repeats", "0"], "--repeats = 0"),
        (["--seed", "-1"], "--seed = -1"),
        (["--member", "99"], "--member 99"),
        (["--out", ""], "--out is empty"),
        (["--images", ""], "--images is empty"),
        (["--images", "nowhere"], "nowhere"),
    ],
)
def test_options_that_cannot_be_used(here, capsys, options, message):
    assert main(["robustness", "features", "--quiet", *options]) == 2
    assert message in error(capsys)
    assert not (here / "features" / "robustness.csv").exists()


def test_features_of_unknown_origin_need_no_images(here, home, capsys):
    source = load_features(home / "f.npz")
    FeatureSet(source.X_train, source.y_train, source.X_test, source.y_test).save("bare.npz")
    save_run(here / "bare", {"data": {"features": str(here / "bare.npz")}})
    assert main(["robustness", "bare", "--images", str(home / "colours")]) == 2
    assert "not extracted from images by moevoprune" in error(capsys)
    assert main(["robustness", "bare", *LITTLE]) == 0
    assert "--images" not in capsys.readouterr().out


def test_a_front_without_settings_needs_its_data(here, home, capsys):
    Front.load("images").save("saved")
    assert main(["robustness", "saved", "--quiet"]) == 2
    assert "--data" in error(capsys)
    assert main(["robustness", "saved", "--data", str(home / "f.npz"), "--quiet", *LITTLE]) == 0
    assert len(load_robustness("saved")) == 4
    assert main(["robustness", "nowhere", "--quiet"]) == 2
    assert "not found" in error(capsys)
