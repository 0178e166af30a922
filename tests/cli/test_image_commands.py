"""The commands on images: extract, run, compare and explain, with what users' folders really hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moevoprune import FeatureSet, Front
from moevoprune.cli.config import parse_config, read_toml
from moevoprune.cli.main import main
from moevoprune.cli.problems import shipped_problems

pytest.importorskip("torchvision")

BACKBONE = ["--backbone", "mobilenet_v2", "--backbone-arg", "width_mult=0.1", "--weights", "none", "--size", "32"]
QUICK = ["--pop", "4", "--gens", "2", "--cv", "3", "--set", "epochs=2", "--set", "hidden=[4]", "--no-baselines"]


def photo(path: Path, colour: int, seed: int, size: tuple[int, int] = (40, 36)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 100, (*size, 3), dtype=np.uint8)
    pixels[..., colour] += 120
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of 12 images, in a folder that is the current one's child; with a cache of its own."""
    monkeypatch.setenv("MOEVOPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("red", "green")):
        for number in range(12):
            photo(tmp_path / "colours" / name / f"{number:02}.png", label, 100 * label + number)
    return tmp_path / "colours"


@pytest.fixture
def strange(images: Path) -> Path:
    """Eight images of something else, two classes."""
    for number in range(8):
        photo(images.parent / "strange" / f"kind{number % 2}" / f"{number}.png", 2, 900 + number)
    return images.parent / "strange"


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_extract_writes_a_file_that_run_takes(images, tmp_path, capsys):
    assert main(["extract", "colours", "--out", "new/f.npz", *BACKBONE, "--test-fraction", "0.34"]) == 0
    said = capsys.readouterr().out
    assert "random weights" in said
    assert "24 images through mobilenet_v2" in said
    features = FeatureSet.load(tmp_path / "new" / "f.npz")
    assert (features.n_train, features.n_test, features.class_names) == (16, 8, ("green", "red"))
    assert main(["run", "new/f.npz", "--out", "r", "--quiet", *QUICK]) == 0
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["extraction"]["backbone"]["settings"]["name"] == "mobilenet_v2"
    assert record["extraction"]["split"] == {"test_fraction": 0.34, "split_seed": 0}


def test_extract_again_reads_the_cache_and_writes_the_same_bytes(images, tmp_path, capsys):
    assert main(["extract", "colours", "--out", "a.npz", *BACKBONE]) == 0
    assert main(["extract", "colours", "--out", "b.npz", *BACKBONE]) == 0
    assert "0 computed now" in capsys.readouterr().out
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert main(["extract", "colours", "--out", "c.npz", "--half", *BACKBONE]) == 0
    with np.load(tmp_path / "c.npz") as archive:
        assert archive["X_train"].dtype == np.float16


def test_run_on_images_in_one_go_and_again_with_resume(images, strange, tmp_path, capsys):
    options = ["--ood", "strange", "--objectives", "accuracy,active_neurons,ood_auroc"]
    assert main(["run", "colours", "--out", "r", *BACKBONE, *options, *QUICK]) == 0
    said = capsys.readouterr().out
    assert "test_ood_auroc" in said
    assert "test_ood_fpr95" in said
    front = Front.load(tmp_path / "r")
    assert set(front.test_columns) == {"ood_auroc", "ood_fpr95"}
    assert ((front.test_columns["ood_auroc"] >= 0) & (front.test_columns["ood_auroc"] <= 1)).all()
    config = parse_config(read_toml(tmp_path / "r" / "config.toml"), "config")
    assert config.data.images == str(images)
    assert config.data.ood == (str(strange),)
    before = (tmp_path / "r" / "front.csv").read_bytes()
    (tmp_path / "r" / "front.csv").unlink()
    # also from another folder, as the settings hold whole paths
    os.chdir(images)
    assert main(["run", "--out", str(tmp_path / "r"), "--resume", "--quiet", "--no-baselines"]) == 0
    assert (tmp_path / "r" / "front.csv").read_bytes() == before


def test_ood_rows_from_a_file_and_through_the_recorded_backbone(images, strange, tmp_path, capsys):
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 0
    assert main(["extract", "strange", "--out", "s.npz", "--quiet", *BACKBONE]) == 0
    objectives = ["--objectives", "accuracy,active_neurons,ood_auroc:energy"]
    assert main(["run", "f.npz", "--ood", "s.npz", "--out", "a", "--quiet", *objectives, *QUICK]) == 0
    assert main(["run", "f.npz", "--ood", "strange", "--out", "b", "--quiet", *objectives, *QUICK]) == 0
    assert "ood_auroc:energy" in Front.load(tmp_path / "a").objectives
    # the same eight rows, though in another order before the draw
    assert "ood_auroc" in Front.load(tmp_path / "b").test_columns
    assert main(["extract", "colours", "--out", "g.npz", "--quiet", "--ood", "strange", *BACKBONE]) == 0
    features = FeatureSet.load(tmp_path / "g.npz")
    assert len(features.X_ood) + len(features.X_ood_test) == 8
    capsys.readouterr()
    with np.load(tmp_path / "f.npz") as archive:
        np.savez(tmp_path / "bare.npz", **{k: archive[k] for k in ("X_train", "y_train", "X_test", "y_test")})
    assert main(["run", "bare.npz", "--ood", "strange", "--out", "c", *QUICK]) == 2
    assert "--backbone" in error(capsys)


def test_ood_auroc_without_ood_rows_says_what_to_do(images, capsys):
    assert main(["run", "colours", "--quiet", *BACKBONE, "--objectives", "accuracy,ood_auroc", *QUICK]) == 2
    assert "--ood" in error(capsys)


def test_compare_takes_images(images, tmp_path, capsys):
    settings = ["backbone.name=mobilenet_v2", "backbone.args={width_mult=0.1}", "weights=none", "size=32"]
    settings += ["epochs=2", "hidden=[4]"]
    sets = [word for setting in settings for word in ("--set", setting)]
    command = ["compare", "colours", "--methods", "dense,anova", "--seeds", "1", "--jobs", "1", "--out", "c"]
    assert main([*command, "--cv", "3", *sets]) == 0
    assert "anova" in (tmp_path / "c" / "compare.md").read_text()


def test_explain_a_run_on_images(images, tmp_path, capsys):
    assert main(["run", "colours", "--out", "r", "--quiet", *BACKBONE, *QUICK]) == 0
    assert main(["explain", "r", "--images", "colours", "--top", "2", "--per-class", "1"]) == 0
    written = {path.name for path in (tmp_path / "r" / "explanation").rglob("*") if path.is_file()}
    assert {"explanation.csv", "frequency.png", "explain_red.png", "explain_green.png"} <= written


@pytest.fixture
def odd(images: Path) -> Path:
    """A truncated image and a text file among good images."""
    whole = images / "red" / "whole.jpg"
    photo(whole, 0, 50, (200, 200))
    (images / "red" / "a_truncated.jpg").write_bytes(whole.read_bytes()[:2000])
    (images / "red" / "b_text.jpg").write_text("this is no image\n")
    return images


def test_the_first_bad_file_stops_the_extraction_by_name(odd, capsys):
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    said = error(capsys)
    assert "colours/red/a_truncated.jpg" in said
    assert "--skip-bad" in said
    assert not Path("f.npz").exists()
    (odd / "red" / "a_truncated.jpg").unlink()
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "colours/red/b_text.jpg" in error(capsys)


def test_an_empty_class_folder_stops_by_name(images, capsys):
    (images / "empty").mkdir()
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "'empty'" in error(capsys)


def test_everything_odd_at_once_is_skipped_and_listed_or_read(odd, tmp_path, capsys):
    (odd / "empty").mkdir()
    rng = np.random.default_rng(3)
    deep = rng.integers(0, 65536, (40, 40)).astype(np.uint16)
    Image.fromarray(deep).save(odd / "red" / "sixteen.png")
    Image.new("CMYK", (40, 40), (0, 200, 100, 20)).save(odd / "red" / "cmyk.jpg")
    Image.new("L", (12_000, 12_000), 200).save(odd / "red" / "huge.png", compress_level=1)
    assert main(["extract", "colours", "--out", "f.npz", "--skip-bad", *BACKBONE]) == 0
    said = capsys.readouterr().out
    assert "skipped 3" in said
    for name in ("red/a_truncated.jpg", "red/b_text.jpg", "empty"):
        assert name in said
    with np.load(tmp_path / "f.npz") as archive:
        files = {*archive["files_train"], *archive["files_test"]}
        skipped = json.loads(str(archive["extraction"]))["skipped"]
    assert {"red/sixteen.png", "red/cmyk.jpg", "red/huge.png", "red/whole.jpg"} <= files
    assert len(files) == 24 + 4
    assert len(skipped) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "f.csv"], ".npz"),
        (["--out", "f.npz", "--backbone", "resnet5"], "resnet50"),
        (["--out", "f.npz", "--backbone-arg", "width_mult"], "key=value"),
        (["--out", "f.npz", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["--out", "f.npz", "--layer", "flaten"], "flatten"),
        (["--out", "f.npz", "--crop", "64", "--size", "32"], "crop"),
        (["--out", "f.npz", "--std", "0", "1", "1"], "std"),
        (["--out", "f.npz", "--test-fraction", "1.5"], "test"),
        (["--out", "f.npz", "--batch-size", "0"], "batch"),
        (["--out", "f.npz", "--interpolation", "cubic"], "bicubic"),
        (["--out", "f.npz", "--ood", "nothing_here"], "nothing_here"),
        (["--out", "f.npz", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_bad_options_are_one_line(images, options, words, capsys):
    base = [] if "--backbone" in options else BACKBONE
    if "--weights" in options or "--size" in options:
        base = [word for word in BACKBONE if word not in ("--weights", "none", "--size", "32")]
        base += [] if "--weights" in options else ["--weights", "none"]
    assert main(["extract", "colours", "--quiet", *base, *options]) == 2
    assert words in error(capsys)


def test_images_that_are_nowhere(images, capsys):
    assert main(["extract", "nowhere", "--out", "f.npz", "--quiet"]) == 2
    assert "nowhere" in error(capsys)
    assert main(["run", "CIFAR10", "--quiet"]) == 2
    assert "--root" in error(capsys)
    assert main(["run", "CIFAR10", "--root", "data", "--quiet"]) == 2
    assert "--download" in error(capsys)


PAPERS = ("srsmas", "rps", "leaves", "painting", "cataract", "plants")


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_problems_are_complete_and_say_what_is_missing(name, images, capsys):
    raw = read_toml(shipped_problems()[name], Path.cwd())
    config = parse_config(raw, name)
    assert config.backbone is not None
    assert config.backbone.name == "resnet50"
    assert config.problem.encoding == "features"
    assert config.problem.objectives == ("accuracy", "active_neurons", "ood_auroc")
    assert (config.search.pop, config.search.budget, config.search.algorithm) == (30, 200, "reference")
    assert config.head.epochs == 600
    others = {str(source).lower() for source in config.data.ood}
    assert others == set(PAPERS) - {name}
    assert main(["run", name, "--quiet"]) == 2
    said = error(capsys)
    assert str(config.data.images) in said
    assert "--root" in said


def test_a_shipped_problem_finds_its_images_below_root(images, strange, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    images.rename(tmp_path / "elsewhere" / "LEAVES")
    strange.rename(tmp_path / "elsewhere" / "RPS")
    options = ["--root", "elsewhere", "--set", 'ood=["RPS"]', "--weights", "none", "--backbone", "mobilenet_v2"]
    options += ["--size", "32", "--crop", "32", "--backbone-arg", "width_mult=0.1", "--set", "preset=default"]
    assert main(["run", "leaves", "--out", "r", "--quiet", *options, "--algorithm", "nsga2", *QUICK]) == 0
    assert "ood_auroc" in Front.load(tmp_path / "r").objectives


def test_a_data_set_in_a_folder_of_its_own_name_is_the_data_set(images, tmp_path, capsys):
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    photo(tmp_path / "data" / "MNIST" / "raw" / "x.png", 0, 1)
    assert main(["extract", "MNIST", "--root", "data", "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "--download" in error(capsys)


def test_options_on_images_are_refused_where_there_are_none(images, capsys):
    assert main(["run", "digits", "--backbone", "resnet18", "--quiet"]) == 2
    assert "--backbone" in error(capsys)
    assert main(["run", "digits", "--set", "test_fraction=0.3", "--quiet"]) == 2
    assert "--set" in error(capsys)


def test_a_resumed_run_may_name_its_backbone_again_but_no_other(images, capsys):
    assert main(["run", "colours", "--out", "r", "--quiet", *BACKBONE, *QUICK]) == 0
    again = ["run", "--out", "r", "--resume", "--quiet", "--no-baselines"]
    assert main([*again, "--backbone", "mobilenet_v2"]) == 0
    assert main([*again, "--crop", "24"]) == 2
    assert "backbone.crop" in error(capsys)


def test_written_settings_hold_the_backbone_in_full(images, tmp_path):
    options = ["--set", "backbone.weights=none", "--set", "size=32", "--set", "crop=32"]
    assert main(["run", "colours", "--out", "r", "--quiet", "--backbone", "resnet18", *options, *QUICK]) == 0
    config = parse_config(read_toml(tmp_path / "r" / "config.toml"), "config")
    assert (config.backbone.name, config.backbone.weights, config.backbone.crop) == ("resnet18", "none", 32)


def test_features_of_another_network_are_no_ood_rows(images, strange, capsys):
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 0
    other = ["--backbone", "mobilenet_v2", "--backbone-arg", "width_mult=0.1", "--weights", "none", "--size", "40"]
    assert main(["extract", "strange", "--out", "s.npz", "--quiet", *other]) == 0
    assert main(["run", "f.npz", "--ood", "s.npz", "--quiet", *QUICK]) == 2
    assert "another network" in error(capsys)
    assert main(["run", "f.npz", "--ood", "strange", "--quiet", *other, *QUICK]) == 2
    assert "another network" in error(capsys)


def test_ood_rows_of_another_width_are_refused_before_anything_is_written(images, tmp_path, capsys):
    rows = np.random.default_rng(0).random((6, 7))
    np.savez(tmp_path / "narrow.npz", X_train=rows, y_train=[0, 1] * 3, X_test=rows[:2], y_test=[0, 1])
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", "--ood", "narrow.npz", *BACKBONE]) == 2
    assert "7 features" in error(capsys)
    assert not (tmp_path / "f.npz").exists()


def test_ones_own_rows_are_no_ood_rows(images, strange, tmp_path, capsys):
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", *BACKBONE]) == 0
    assert main(["run", "f.npz", "--ood", "f.npz", "--quiet", *QUICK]) == 2
    assert "task's own rows" in error(capsys)
    assert main(["extract", "colours", "--out", "g.npz", "--quiet", "--ood", "f.npz", "strange", *BACKBONE]) == 0
    features = FeatureSet.load(tmp_path / "g.npz")
    own = {row.tobytes() for row in (*features.X_train, *features.X_test)}
    assert not own & {row.tobytes() for row in (*features.X_ood, *features.X_ood_test)}
    assert len(features.X_ood) + len(features.X_ood_test) == 8
    assert [entry["source"] for entry in json.loads(features.extraction)["ood"]] == [
        str(tmp_path / "f.npz"),
        str(strange),
    ]


def test_slips_are_found_before_images_are_read(images, tmp_path, capsys, monkeypatch):
    from moevoprune.features.extraction import Extractor

    monkeypatch.setattr(Extractor, "_extract", None)
    assert main(["run", "colours", "--quiet", *BACKBONE, "--objectives", "acuracy"]) == 2
    assert "accuracy" in error(capsys)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "front.csv").write_text("")
    assert main(["run", "colours", "--out", "taken", "--quiet", *BACKBONE]) == 2
    assert "--resume" in error(capsys)
    assert main(["extract", "colours/red", "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "class folders" in error(capsys)


def test_a_long_list_of_skipped_files_does_no_harm(images, tmp_path):
    for number in range(300):
        (images / "red" / f"{'long' * 40}{number}.png").write_text("x")
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", "--skip-bad", *BACKBONE]) == 0
    record = json.loads(FeatureSet.load(tmp_path / "f.npz").extraction)
    assert record["n_skipped"] == 300
    assert len(record["skipped"]) == 100
    with np.load(tmp_path / "f.npz") as archive:
        assert len(archive["skipped"]) == 300


def test_explain_finds_the_test_images_of_a_run_that_skipped_files(images, tmp_path, monkeypatch):
    from moevoprune.cli import explain

    for number in (3, 7):
        (images / "red" / f"{number:02}.png").write_text("x")
    assert main(["run", "colours", "--out", "r", "--quiet", "--skip-bad", *BACKBONE, *QUICK]) == 0
    assert main(["extract", "colours", "--out", "f.npz", "--quiet", "--skip-bad", *BACKBONE]) == 0
    pools = []
    pool = explain._pool

    def kept(found, record):
        pools.append([found.keys[index] for index in pool(found, record)])
        return pool(found, record)

    monkeypatch.setattr(explain, "_pool", kept)
    assert main(["explain", "r", "--images", "colours", "--skip-bad", "--top", "1", "--quiet"]) == 0
    with np.load(tmp_path / "f.npz") as archive:
        assert sorted(pools[0]) == sorted(archive["files_test"].tolist())


def test_a_renamed_folder_can_be_resumed(images, capsys):
    assert main(["run", "colours", "--out", "r", "--quiet", *BACKBONE, *QUICK]) == 0
    images.rename(images.parent / "moved")
    assert main(["run", "--out", "r", "--resume", "--quiet"]) == 2
    assert "colours" in error(capsys)
    again = ["run", "moved", "--out", "r", "--resume", "--quiet", *BACKBONE, *QUICK]
    assert main(again) == 0


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_current_folder(images, name, capsys):
    assert main(["extract", name, "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "empty" in error(capsys)
    assert main(["extract", "colours", "--ood", name, "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "empty" in error(capsys)


def test_a_folder_whose_name_is_no_text_is_said_before_any_work(images, capsys, monkeypatch):
    from moevoprune.features.extraction import Extractor

    monkeypatch.setattr(Extractor, "_extract", None)
    strange_name = os.fsdecode(b"caf\xe9")
    images.rename(images.parent / strange_name)
    assert main(["run", strange_name, "--out", "r", "--quiet", *BACKBONE, *QUICK]) == 2
    assert "UTF-8" in error(capsys)
    assert not Path("r").exists()


def test_relative_sources_in_a_problem_file_start_from_it(images, strange, tmp_path, monkeypatch):
    (tmp_path / "problems").mkdir()
    (tmp_path / "problems" / "mine.toml").write_text(
        '[data]\nimages = "../colours"\nood = "../strange"\n[backbone]\nname = "mobilenet_v2"\nweights = "none"\n'
        "size = 32\ncrop = 32\nargs = {width_mult = 0.1}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["run", "../problems/mine.toml", "--out", "r", "--quiet", *QUICK]) == 0
    assert "ood_auroc" in Front.load("r").test_columns


def test_explain_leaves_no_figures_of_an_earlier_call(images, tmp_path):
    assert main(["run", "colours", "--out", "r", "--quiet", *BACKBONE, *QUICK]) == 0
    assert main(["explain", "r", "--images", "colours", "--top", "1", "--quiet"]) == 0
    (tmp_path / "one").mkdir()
    (images / "red").rename(tmp_path / "one" / "blue")
    assert main(["explain", "r", "--images", "one", "--top", "1", "--quiet"]) == 0
    drawn = {path.name for path in (tmp_path / "r" / "explanation" / "figures").glob("explain_*")}
    assert drawn == {"explain_blue.png"}


def test_escape_codes_do_not_reach_the_terminal(images, capsys):
    assert main(["extract", "\x1b[31mred", "--out", "f.npz", "--quiet", *BACKBONE]) == 2
    assert "\x1b" not in error(capsys)


@pytest.mark.parametrize("text", ["not json", "[1]", "[" * 5000, '{"a": NaN}', "1"])
def test_a_forged_record_is_refused_at_once(images, tmp_path, text, capsys):
    rows = np.random.default_rng(0).random((20, 7))
    labels = [0, 1] * 10
    np.savez(tmp_path / "g.npz", X_train=rows, y_train=labels, X_test=rows, y_test=labels, extraction=text)
    assert main(["run", "g.npz", "--quiet", *QUICK]) == 2
    assert "extraction" in error(capsys)
