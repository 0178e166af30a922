"""Heat maps of all members: the same as captum's, one head after the other."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from moevoprune import FeatureSet, HeadSettings, InputError, PruningProblem, evolve
from moevoprune.features.preprocessing import Preprocessing
from moevoprune.fronts import member_maps as module
from moevoprune.fronts.heatmaps import heat_maps
from moevoprune.fronts.member_maps import MemberMaps, grad_cam_of_heads, load_member_maps, make_member_maps
from moevoprune.heads.head import TrainedHead

CHANNELS, FEATURES = 6, 6
KINDS = ["pooled", "in place", "flat"]


def make_head(hidden=(5,), inputs=(0, 2, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    widths = [len(inputs), *hidden, 3]
    return TrainedHead(
        task="classification",
        n_features=FEATURES,
        inputs=np.array(inputs, dtype=np.int64),
        weights=tuple(rng.normal(size=pair).astype(np.float32) for pair in itertools.pairwise(widths)),
        biases=tuple(rng.normal(size=width).astype(np.float32) for width in widths[1:]),
        mean=rng.normal(size=len(inputs)).astype(np.float32),
        scale=rng.uniform(0.5, 2, size=len(inputs)).astype(np.float32),
    )


HEADS = [
    make_head(),
    make_head((), seed=1),
    make_head((7, 4), seed=2),
    make_head(inputs=(1,), seed=3),
    make_head(inputs=(0, 1, 2, 3, 4, 5), seed=4),
]


def make_split(kind):
    """A convolution below the map; above it one of the ways that backbones go on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lower = torch.nn.Conv2d(3, CHANNELS, 4, stride=4)
        if kind == "pooled":
            upper = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        elif kind == "in place":
            pool = torch.nn.AdaptiveAvgPool2d(1)
            upper = torch.nn.Sequential(torch.nn.ReLU(inplace=True), pool, torch.nn.Flatten())
        else:
            upper = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(CHANNELS * 9, FEATURES))
    for part in (lower, upper):
        part.eval().requires_grad_(False)
    return lower, upper


class FakeBackbone:
    """Six features over a map of 3 x 3 places."""

    def __init__(self, kind="pooled"):
        self.settings = SimpleNamespace(name="fake")
        self.preprocessing = Preprocessing(resize=14, crop=12, mean=(0.5,) * 3, std=(0.25,) * 3)
        self.feature_size = FEATURES
        self.device = torch.device("cpu")
        self._parts = make_split(kind)

    def split_at_map(self):
        return self._parts


def make_images(n=4, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)) for _ in range(n)]


@pytest.fixture(scope="module")
def front():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = rng.normal(size=(60, FEATURES)) + np.eye(3, FEATURES)[labels] * 2
    data = FeatureSet(rows[:40], labels[:40], rows[40:], labels[40:])
    head = HeadSettings(hidden=(8,), epochs=5, batch_size=16)
    return evolve(PruningProblem(data, head=head, cv=2, seed=1), pop_size=6, n_gen=2, seed=1)


@pytest.fixture(scope="module")
def made(front):
    return make_member_maps(front, FakeBackbone(), make_images(), [0, 2, -1, 1], ["a.png", "b\x1b.png", "é", "d"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [2**24, 100])
def test_the_same_as_captum(kind, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    lower, upper = make_split(kind)
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3, 12, 12)).astype(np.float32))
    maps = lower(images)
    before = maps.clone()
    heat, outputs = grad_cam_of_heads(upper, HEADS, maps)
    assert heat.shape == (5, 5, 3, 3)
    assert (heat > 0).any(axis=(1, 2, 3)).all()
    for number, head in enumerate(HEADS):
        expected = heat_maps((lower, upper), head, [], [images], (0, 0, 0), (1, 1, 1))
        np.testing.assert_allclose(heat[number], expected.prediction, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(outputs[number], expected.outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps, before, rtol=0, atol=0)


def test_a_head_that_reads_nothing_has_no_heat():
    lower, upper = make_split("pooled")
    heat, outputs = grad_cam_of_heads(upper, [make_head(inputs=())], lower(torch.ones(2, 3, 12, 12)))
    assert not heat.any()
    np.testing.assert_array_equal(outputs[0, 0], outputs[0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_a_front(front, kind):
    backbone, images = FakeBackbone(kind), make_images()
    maps = make_member_maps(front, backbone, images, [0, 2, -1, 1], list("abcd"))
    heads = [*front.heads, front.dense_head]
    assert maps.heat.shape == (len(front) + 1, 4, 3, 3)
    assert (len(maps), maps.n_members) == (4, len(front))
    np.testing.assert_array_equal(maps.labels, [0, 2, -1, 1])
    pixels = torch.stack([backbone.preprocessing(image) for image in images])
    lower, upper = backbone.split_at_map()
    with torch.no_grad():
        features = upper(lower(pixels)).numpy()
    for number, head in enumerate(heads):
        np.testing.assert_array_equal(maps.predicted[number], head.predict(features))
        np.testing.assert_allclose(maps.confidence[number], head.predict_proba(features).max(axis=1), atol=2e-3)
        heat = heat_maps((lower, upper), head, [], [pixels], (0, 0, 0), (1, 1, 1)).prediction
        for of_image, whole in zip(heat, maps.heat[number], strict=True):
            limit = of_image.max() if of_image.any() else 1
            np.testing.assert_allclose(whole, 255 * of_image / limit, atol=0.51)
    for thumbnail, image in zip(maps.thumbnails, images, strict=True):
        with Image.open(io.BytesIO(thumbnail)) as small:
            assert (small.format, small.size) == ("JPEG", (12, 12))
            crop = np.asarray(backbone.preprocessing.cropped(image)).astype(int)
            assert np.abs(np.asarray(small).mean() - crop.mean()) < 6


def test_thumbnails_are_small(front):
    backbone = FakeBackbone()
    backbone.preprocessing = Preprocessing(resize=400, crop=400)
    backbone._parts = (torch.nn.Conv2d(3, CHANNELS, 200, stride=200), make_split("pooled")[1])
    maps = make_member_maps(front, backbone, make_images(1), [0], ["a"])
    with Image.open(io.BytesIO(maps.thumbnails[0])) as small:
        assert small.size == (160, 160)


def test_a_diverged_head(front):
    head = front.dense_head
    broken = replace(head, weights=(head.weights[0] * np.float32("nan"), *head.weights[1:]))
    maps = make_member_maps(
        replace(front, dense_head=broken), FakeBackbone(), make_images(), [0] * 4, list("abcd")
    )
    assert (maps.predicted[-1] == -1).all()
    assert (maps.predicted[:-1] >= 0).all()
    assert not maps.heat[-1].any()
    assert not maps.confidence[-1].any()


def test_save_and_load(made, tmp_path):
    assert load_member_maps(tmp_path) is None
    path = made.save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] == ["member_maps.npz"]
    with np.load(path, allow_pickle=False) as archive:
        assert not any(archive[name].dtype.hasobject for name in archive.files)
    loaded = load_member_maps(tmp_path)
    assert isinstance(loaded, MemberMaps)
    assert loaded.keys == made.keys == ("a.png", "b?.png", "é", "d")
    assert loaded.thumbnails == made.thumbnails
    for name in ("labels", "heat", "predicted", "confidence"):
        array = getattr(loaded, name)
        np.testing.assert_array_equal(array, getattr(made, name))
        assert array.dtype == getattr(made, name).dtype
    assert (loaded.heat.dtype, loaded.confidence.dtype) == (np.uint8, np.float16)


@pytest.mark.parametrize(
    "change",
    [
        {"format": np.array(2)},
        {"heat": None},
        {"heat": np.zeros((2, 3, 3), np.uint8)},
        {"heat": np.zeros((0, 4, 3, 3), np.uint8)},
        {"labels": np.zeros(3, np.int64)},
        {"labels": np.full(4, -2)},
        {"predicted": np.zeros(4, np.int64)},
        {"confidence": np.zeros(4)},
        {"thumbnail_ends": np.array([5, 3, 8, 9])},
        {"thumbnail_ends": np.zeros(4, np.int64)},
        {"keys": np.arange(4)},
        {"keys": np.array(["x", None], dtype=object)},
    ],
)
def test_files_that_do_not_fit_together(made, tmp_path, change):
    path = made.save(tmp_path)
    with np.load(path) as archive:
        arrays = {**archive, **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=r"member_maps\.npz: is damaged"):
        load_member_maps(tmp_path)


def test_thumbnails_that_are_no_small_pictures(made, tmp_path):
    wide = io.BytesIO()
    Image.new("L", (4000, 4)).save(wide, "JPEG")
    other = io.BytesIO()
    Image.new("L", (4, 4)).save(other, "PNG")
    for content in (b"", b"no picture", made.thumbnails[0][:-80], wide.getvalue(), other.getvalue()):
        replace(made, thumbnails=(content, *made.thumbnails[1:])).save(tmp_path)
        with pytest.raises(InputError, match="is damaged"):
            load_member_maps(tmp_path)
    replace(made, heat=made.heat[:, :, :0, :0]).save(tmp_path)
    with pytest.raises(InputError, match="is damaged"):
        load_member_maps(tmp_path)


def test_damaged_files(made, tmp_path):
    content = made.save(tmp_path).read_bytes()
    for damaged in (b"", b"no", content[:-30], content[:400] + b"\0\0\0\0" + content[404:]):
        (tmp_path / "member_maps.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged"):
            load_member_maps(tmp_path)
    (tmp_path / "member_maps.npz").unlink()
    (tmp_path / "member_maps.npz").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_member_maps(tmp_path)


def test_what_cannot_be_explained(front):
    images = make_images(2)
    with pytest.raises(InputError, match="at least one image"):
        make_member_maps(front, FakeBackbone(), [], [], [])
    with pytest.raises(InputError, match="a label for each"):
        make_member_maps(front, FakeBackbone(), images, [0], ["a", "b"])
    regression = replace(front, dense_head=replace(front.dense_head, task="regression"))
    with pytest.raises(InputError, match="need classes"):
        make_member_maps(regression, FakeBackbone(), images, [0, 0], ["a", "b"])
    backbone = FakeBackbone()
    backbone.feature_size = 7
    with pytest.raises(InputError, match="6 features, but fake gives 7"):
        make_member_maps(front, backbone, images, [0, 0], ["a", "b"])
