"""Extraction: features of image folders, whatever was interrupted, copied, skipped or cached."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moevoprune import FeatureSet, InputError
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.backbones import load_backbone
from moevoprune.features.extraction import Extractor
from moevoprune.features.images import find_images

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

# random weights and small images: what is tested is the way of the rows, not their worth
TINY = BackboneSettings(name="mobilenet_v2", args={"width_mult": 0.1}, weights="none", size=32, crop=32)


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, 12 training and 6 test images."""
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("ant", "bee")):
            for number in range(count):
                picture(tmp_path / "insects" / part / name / f"{number}.png", 1000 * label + 100 * count + number)
    return tmp_path / "insects"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def one_by_one(folder: Path) -> dict[str, np.ndarray]:
    """The oracle: each image alone through the backbone."""
    backbone = load_backbone(TINY)
    images = find_images(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            key: backbone.features(backbone.preprocessing(images.open(i))[None])[0].numpy()
            for i, key in enumerate(images.keys)
        }
    finally:
        torch.set_num_threads(threads)


def test_rows_are_those_of_each_image_alone_in_the_order_of_the_files(folder, cache):
    extraction = Extractor(TINY, "cpu", batch_size=5, cache=cache).extract(folder)
    features = extraction.to_feature_set()
    alone = one_by_one(folder)
    expected = [alone[f"train/{name}/{number}.png"] for name in ("ant", "bee") for number in range(6)]
    np.testing.assert_allclose(features.X_train, expected, atol=1e-5)
    expected = [alone[f"test/{name}/{number}.png"] for name in ("ant", "bee") for number in range(3)]
    np.testing.assert_allclose(features.X_test, expected, atol=1e-5)
    assert features.class_names == ("ant", "bee")
    assert features.y_train.tolist() == [0] * 6 + [1] * 6
    assert features.y_test.tolist() == [0] * 3 + [1] * 3
    assert features.name == "insects"
    assert np.abs(features.X_train).max() > 0


def test_rows_do_not_depend_on_batches_workers_or_what_lies_beside_them(folder, cache, tmp_path):
    first = Extractor(TINY, "cpu", batch_size=32, cache=cache).extract(folder).to_feature_set()
    second = Extractor(TINY, "cpu", batch_size=3, cache=tmp_path / "other").extract(folder).to_feature_set()
    np.testing.assert_array_equal(first.X_train, second.X_train)
    shutil.rmtree(folder / "train" / "ant")
    picture(folder / "train" / "ant" / "0.png", 77)
    third = Extractor(TINY, "cpu", batch_size=4, cache=tmp_path / "third").extract(folder).to_feature_set()
    np.testing.assert_array_equal(first.X_train[6:], third.X_train[1:])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_decode_change_nothing(folder, cache, tmp_path):
    (folder / "train" / "bee" / "2.png").write_text("no picture")
    extractors = [
        Extractor(TINY, "cpu", batch_size=4, workers=workers, skip_bad=True, cache=tmp_path / f"cache{workers}")
        for workers in (0, 2)
    ]
    one, other = (extractor.extract(folder) for extractor in extractors)
    assert one.to_feature_set().content_hash == other.to_feature_set().content_hash
    assert one.skipped == other.skipped


def test_a_file_is_what_a_feature_set_would_have_saved(folder, cache, tmp_path):
    extraction = Extractor(TINY, "cpu", cache=cache).extract(folder)
    extraction.save(tmp_path / "f.npz")
    read = FeatureSet.load(tmp_path / "f.npz")
    assert read.content_hash == extraction.to_feature_set().content_hash
    assert json.loads(read.extraction) == json.loads(extraction.to_feature_set().extraction) == extraction.record
    with np.load(tmp_path / "f.npz") as archive:
        assert archive["files_train"].tolist()[:2] == ["train/ant/0.png", "train/ant/1.png"]
        assert archive["files_test"].shape == (6,)
        assert archive["X_train"].dtype == np.float32
    extraction.save(tmp_path / "g.npz")
    assert (tmp_path / "f.npz").read_bytes() == (tmp_path / "g.npz").read_bytes()
    extraction.save(tmp_path / "h.npz", dtype="float16")
    np.testing.assert_allclose(FeatureSet.load(tmp_path / "h.npz").X_train, read.X_train, rtol=1e-3, atol=1e-4)


def test_out_of_distribution_rows_are_saved_too(folder, cache, tmp_path):
    extraction = Extractor(TINY, "cpu", cache=cache).extract(folder)
    rows = np.random.default_rng(1).random((5, extraction.n_features), dtype=np.float32)
    extraction.save(tmp_path / "f.npz", ood=(rows[:3], rows[3:]))
    read = FeatureSet.load(tmp_path / "f.npz")
    np.testing.assert_array_equal(read.X_ood, rows[:3])
    np.testing.assert_array_equal(read.X_ood_test, rows[3:])


def test_the_record_says_how_the_features_were_made(folder, cache):
    record = Extractor(TINY, "cpu", cache=cache).extract(folder).record
    assert record["backbone"]["name"] == "mobilenet_v2"
    assert BackboneSettings.model_validate_json(json.dumps(record["backbone"]["settings"])) == TINY
    assert record["backbone"]["preprocessing"]["crop"] == 32
    assert record["split"] == "as given"
    assert record["skipped"] == []
    assert set(record["versions"]) == {"moevoprune", "pillow", "torch", "torchvision"}
    json.dumps(record)


def test_what_was_extracted_before_is_not_computed_again(folder, cache, tmp_path):
    assert Extractor(TINY, "cpu", cache=cache).extract(folder).n_computed == 18
    again = Extractor(TINY, "cpu", cache=cache).extract(folder)
    assert again.n_computed == 0
    # also from elsewhere, under other names, with another split
    flat = tmp_path / "flat"
    for path in sorted(folder.rglob("*.png")):
        target = flat / path.parent.name / f"{path.parent.parent.name}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    moved = Extractor(TINY, "cpu", cache=cache).extract(flat)
    assert moved.n_computed == 0
    picture(flat / "ant" / "new.png", 5)
    assert Extractor(TINY, "cpu", cache=cache).extract(flat).n_computed == 1


@pytest.mark.parametrize("change", [{"mean": (0.1, 0.1, 0.1)}, {"crop": 33, "size": 33}, {"layer": "features.3"}])
def test_another_preprocessing_or_layer_is_another_extraction(folder, cache, change):
    first = Extractor(TINY, "cpu", cache=cache).extract(folder).to_feature_set()
    other = Extractor(TINY.model_copy(update=change), "cpu", cache=cache).extract(folder)
    assert other.n_computed == 18
    assert other.to_feature_set().content_hash != first.content_hash


def test_equal_images_are_computed_once(folder, cache):
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "train" / "ant" / "copy.png")
    extraction = Extractor(TINY, "cpu", cache=cache).extract(folder)
    assert extraction.n_computed == 18
    features = extraction.to_feature_set()
    np.testing.assert_array_equal(features.X_train[0], features.X_train[6])


def test_copies_in_two_parts_are_told(folder, cache):
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "test" / "ant" / "copy.png")
    (note,) = Extractor(TINY, "cpu", cache=cache).extract(folder).notes
    assert "train/ant/0.png" in note
    assert "test/ant/copy.png" in note


def test_a_folder_without_parts_is_split_by_seed(folder, cache):
    pairs = [
        Extractor(TINY, "cpu", cache=cache).extract(folder / "train", test_fraction=1 / 3, split_seed=seed)
        for seed in (0, 0, 1)
    ]
    sets = [pair.to_feature_set() for pair in pairs]
    assert (sets[0].n_train, sets[0].n_test) == (8, 4)
    assert sets[0].content_hash == sets[1].content_hash != sets[2].content_hash
    assert pairs[0].record["split"] == {"test_fraction": 1 / 3, "split_seed": 0}


def test_a_bad_file_stops_with_its_name_and_what_was_done_stays(folder, cache):
    bad = folder / "train" / "bee" / "2.png"
    bad.write_text("no picture")
    with pytest.raises(InputError, match=r"train/bee/2\.png.*--skip-bad"):
        Extractor(TINY, "cpu", batch_size=4, cache=cache).extract(folder)
    picture(bad, 9)
    # keys are in order of their parts: two batches of four came before
    assert Extractor(TINY, "cpu", batch_size=4, cache=cache).extract(folder).n_computed <= 18 - 4


def test_bad_files_are_skipped_and_listed(folder, cache):
    (folder / "train" / "bee" / "2.png").write_text("no picture")
    whole = (folder / "test" / "ant" / "1.png").read_bytes()
    (folder / "test" / "ant" / "1.png").write_bytes(whole[: len(whole) // 2])
    extraction = Extractor(TINY, "cpu", batch_size=4, skip_bad=True, cache=cache).extract(folder)
    features = extraction.to_feature_set()
    assert (features.n_train, features.n_test) == (11, 5)
    assert sorted(line.split(":")[0] for line in extraction.skipped) == ["test/ant/1.png", "train/bee/2.png"]
    assert extraction.record["skipped"] == list(extraction.skipped)
    assert features.y_train.tolist() == [0] * 6 + [1] * 5


def test_a_class_of_bad_files_is_left_out_whole(folder, cache):
    for number in range(3):
        picture(folder / "train" / "cat" / f"{number}.png", 40 + number)
        (folder / "train" / "ant" / f"{number}.png").write_text("x")
        (folder / "train" / "ant" / f"{number + 3}.png").write_text("x")
    extraction = Extractor(TINY, "cpu", skip_bad=True, cache=cache).extract(folder)
    assert extraction.images.class_names == ("bee", "cat")
    features = extraction.to_feature_set()
    assert features.y_train.tolist() == [0] * 6 + [1] * 3
    reference = Extractor(TINY, "cpu", cache=cache)
    alone = reference.extract_ood(folder / "train" / "bee").rows()
    np.testing.assert_array_equal(features.X_train[:6], alone)


def test_images_without_classes_are_for_out_of_distribution_only(folder, cache):
    extractor = Extractor(TINY, "cpu", cache=cache)
    with pytest.raises(InputError, match="class folders"):
        extractor.extract(folder / "train" / "ant")
    assert extractor.extract_ood(folder / "train" / "ant").as_ood().rows.shape == (
        6,
        extractor.backbone.feature_size,
    )


def test_out_of_distribution_images_that_are_not_are_left_out(folder, cache, tmp_path):
    extractor = Extractor(TINY, "cpu", cache=cache)
    inside = extractor.extract(folder)
    strange = tmp_path / "strange"
    picture(strange / "a" / "0.png", 501)
    picture(strange / "b" / "0.png", 502)
    shutil.copy(folder / "test" / "ant" / "0.png", strange / "a" / "1.png")
    outside = extractor.extract_ood(strange, beside=inside)
    assert len(outside.images) == len(outside.rows()) == 2
    assert "left out 1" in outside.notes[0]
    rows = outside.as_ood()
    assert rows.groups.tolist() == [0, 1]
    with pytest.raises(InputError, match="all of its images"):
        extractor.extract_ood(folder, beside=inside)


def test_features_that_are_not_finite_are_refused(folder, cache, monkeypatch):
    extractor = Extractor(TINY, "cpu", cache=cache)
    broken = lambda images, mixed: torch.full((len(images), extractor.backbone.feature_size), float("nan"))  # noqa: E731
    monkeypatch.setattr(extractor.backbone, "features", broken)
    with pytest.raises(InputError, match="not finite"):
        extractor.extract(folder)


def test_global_random_state_and_threads_are_left_alone(folder, cache):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    Extractor(TINY, "cpu", cache=cache).extract(folder)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_progress_is_told(folder, cache):
    seen = []
    Extractor(TINY, "cpu", batch_size=4, cache=cache, progress=lambda *told: seen.append(told)).extract(folder)
    assert seen[0] == ("reading", 0, 18)
    assert [done for stage, done, _ in seen if stage == "extracting"] == [0, 4, 8, 12, 16, 18]


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"workers": -1}, {"device": "tpu"}])
def test_settings_out_of_range(settings, cache):
    with pytest.raises(InputError):
        Extractor(TINY, **{"device": "cpu", "cache": cache, **settings})


COMMAND = [sys.executable, "-m", "moevoprune", "extract"]
OPTIONS = ["--backbone", "mobilenet_v2", "--backbone-arg", "width_mult=0.1", "--weights", "none", "--size", "32"]


def run(folder: Path, out: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(folder), "--out", str(out), *OPTIONS, *more],
        env={**os.environ, "MOEVOPRUNE_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_a_killed_extraction_goes_on_and_gives_the_same_file(tmp_path):
    folder, cache = tmp_path / "many", tmp_path / "cache"
    for number in range(200):
        picture(folder / f"class{number % 3}" / f"{number}.png", number)
    process = run(folder, tmp_path / "whole.npz", tmp_path / "reference")
    assert process.wait(timeout=240) == 0

    done = 0
    kills = 0
    for _ in range(20):
        process = run(folder, tmp_path / "f.npz", cache, "--batch-size", "8")
        deadline = time.monotonic() + 60
        while process.poll() is None and stored(cache) < done + 72 and time.monotonic() < deadline:
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        # nothing that was stored is lost
        assert stored(cache) >= done
        done = stored(cache)
        assert not (tmp_path / "f.npz").exists()
    assert process.returncode == 0
    assert kills >= 2
    # every image was computed once: whatever was in flight when the process died had not been stored
    assert stored(cache) == 200
    assert digest(tmp_path / "f.npz") == digest(tmp_path / "whole.npz")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


PEAK = """
import resource, sys
from moevoprune.cli.main import main
code = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    peaks = {}
    for count in (200, 20_000):
        folder = tmp_path / str(count)
        for label in range(4):
            (folder / f"class{label}").mkdir(parents=True)
        pixels = np.zeros((16, 16, 3), dtype=np.uint8)
        for number in range(count):
            pixels[0, 0] = number % 256, number // 256 % 256, number // 65536
            pixels[8:, 8:] = 80 * (number % 4)
            Image.fromarray(pixels).save(folder / f"class{number % 4}" / f"{number}.png", compress_level=0)
        command = [
            sys.executable,
            "-c",
            PEAK,
            "extract",
            str(folder),
            "--out",
            str(tmp_path / f"{count}.npz"),
            *OPTIONS,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "MOEVOPRUNE_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        peaks[count] = int(done.stdout.split("peak")[1])
        with np.load(tmp_path / f"{count}.npz") as archive:
            assert archive["X_train"].shape[0] + archive["X_test"].shape[0] == count
    assert peaks[20_000] - peaks[200] < 200, peaks


def stored(cache: Path) -> int:
    logs = list(cache.glob("extractions/*/batches.jsonl"))
    if not logs:
        return 0
    return sum(line.count('", "') + 1 for line in logs[0].read_text().splitlines())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["leaves_citrus", "hymenoptera"])
def test_real_images_give_the_features_of_the_reference_files(shared_data, cache, name):
    settings = BackboneSettings(
        name="mobilenet_v2",
        args={"width_mult": 0.35},
        weights=str(shared_data / "backbones" / "mobilenet_v2_035_imagenet.pth"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    features = Extractor(settings, "cpu", cache=cache).extract(shared_data / "images" / name).to_feature_set()
    reference = FeatureSet.load(shared_data / "features" / f"{name}.npz")
    assert features.class_names == reference.class_names
    for array in ("X_train", "y_train", "X_test", "y_test"):
        np.testing.assert_allclose(getattr(features, array), getattr(reference, array), atol=0.01)


def test_a_file_that_changes_while_it_is_read_stops_the_extraction(folder, cache, monkeypatch):
    extractor = Extractor(TINY, "cpu", cache=cache)
    digests = extractor._digests

    def changed_after(images):
        found = digests(images)
        shutil.copy(folder / "test" / "ant" / "0.png", folder / "train" / "bee" / "3.png")
        return found

    monkeypatch.setattr(extractor, "_digests", changed_after)
    with pytest.raises(InputError, match=r"train/bee/3\.png: was changed"):
        extractor.extract(folder)


def test_files_of_other_formats_and_rows_that_do_not_fit_are_refused(folder, cache, tmp_path):
    extraction = Extractor(TINY, "cpu", cache=cache).extract(folder)
    with pytest.raises(InputError, match="float64"):
        extraction.save(tmp_path / "f.npz", dtype="float64")
    with pytest.raises(InputError, match="out-of-distribution"):
        extraction.save(tmp_path / "f.npz", ood=(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)))
    assert not list(tmp_path.glob("*f.npz"))
