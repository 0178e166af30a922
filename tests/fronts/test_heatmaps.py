"""Heat maps: held to Grad-CAM's closed form, and to what real leaves look like."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from PIL import Image
from sklearn.linear_model import LogisticRegression

from moevoprune.errors import InputError
from moevoprune.fronts import heatmaps as module
from moevoprune.fronts.heatmaps import (
    HeatMaps,
    Shown,
    draw_heat_maps,
    enlarge,
    file_names,
    heat_maps,
    plain_text,
    save_heat_maps,
)
from moevoprune.heads.head import TrainedHead

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
CHANNELS, FEATURES = 6, 6


def make_head(hidden=(5,), outputs=3, inputs=(0, 2, 3, 5), regression=False, seed=0):
    rng = np.random.default_rng(seed)
    widths = [len(inputs), *hidden, outputs]
    return TrainedHead(
        task="regression" if regression else "classification",
        n_features=FEATURES,
        inputs=np.array(inputs, dtype=np.int64),
        weights=tuple(rng.normal(size=pair).astype(np.float32) for pair in itertools.pairwise(widths)),
        biases=tuple(rng.normal(size=width).astype(np.float32) for width in widths[1:]),
        mean=rng.normal(size=len(inputs)).astype(np.float32),
        scale=rng.uniform(0.5, 2, size=len(inputs)).astype(np.float32),
        target_mean=np.full(outputs, 20, np.float32) if regression else None,
        target_scale=np.full(outputs, 7, np.float32) if regression else None,
    )


def make_split(kind="pooled", seed=0):
    """A convolution below the map; above it one of the ways that backbones go on."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lower = torch.nn.Conv2d(3, CHANNELS, 4, stride=4)
        if kind == "pooled":
            upper = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        elif kind == "in place":
            upper = torch.nn.Sequential(
                torch.nn.ReLU(inplace=True), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
            )
        else:
            upper = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(CHANNELS * 12, FEATURES))
    return lower.eval(), upper.eval()


def make_images(n=5, seed=1):
    """Rows of 12 x 16 pixels: a map of 3 x 4."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3, 12, 16)).astype(np.float32))


def closed_form(maps, kind, upper, head, chosen):
    """Grad-CAM in numpy: heat of the predicted class (or the first target), then of the chosen features."""
    n, c, h, w = maps.shape
    if kind == "flat":
        matrix = upper[1].weight.detach().numpy().astype(np.float64)
        shift = upper[1].bias.detach().numpy().astype(np.float64)
        features = maps.reshape(n, -1) @ matrix.T + shift
        # mean over space of each feature's gradient, shape (n, features, c)
        slopes = np.broadcast_to(matrix.reshape(FEATURES, c, h * w).mean(axis=2), (n, FEATURES, c))
    elif kind == "pooled":
        features = maps.mean(axis=(2, 3))
        slopes = np.broadcast_to(np.eye(c) / (h * w), (n, c, c))
    else:
        features = np.maximum(maps, 0).mean(axis=(2, 3))
        slopes = np.eye(c) / (h * w) * (maps > 0).mean(axis=(2, 3))[:, None, :]
    values = (features[:, head.inputs] - head.mean) / head.scale
    jacobian = np.eye(len(head.inputs)) / head.scale
    jacobian = np.broadcast_to(jacobian, (n, *jacobian.shape))
    for layer, (weights, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
        values = values @ weights.astype(np.float64) + bias
        jacobian = jacobian @ weights.astype(np.float64)
        if layer < len(head.weights) - 1:
            jacobian = jacobian * (values > 0)[:, None, :]
            values = np.maximum(values, 0)
    if head.task == "regression":
        values, jacobian = values * head.target_scale + head.target_mean, jacobian * head.target_scale
    explained = values.argmax(axis=1) if head.task == "classification" else np.zeros(n, int)
    of_output = np.zeros((n, FEATURES))
    of_output[:, head.inputs] = np.take_along_axis(jacobian, explained[:, None, None], axis=2)[:, :, 0]
    weights = np.concatenate([np.einsum("nf,nfc->nc", of_output, slopes)[:, None], slopes[:, chosen]], axis=1)
    return np.maximum(np.einsum("nkc,nchw->nkhw", weights, maps), 0), values


def explain(kind="pooled", head=None, chosen=(1, 4, 2), images=None, batch=2):
    images = make_images() if images is None else images
    return heat_maps(make_split(kind), head or make_head(), chosen, images.split(batch), MEAN, STD)


# --- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pooled", "in place", "flat"])
@pytest.mark.parametrize(
    "head",
    [
        make_head(),
        make_head(()),
        make_head((7, 4)),
        make_head(regression=True),
        make_head(outputs=1, regression=True),
    ],
    ids=["hidden", "linear", "deep", "regression", "one target"],
)
def test_heat_is_the_closed_form(kind, head):
    lower, upper = make_split(kind)
    chosen = [1, 4, 2]
    with torch.no_grad():
        maps = lower(make_images()).numpy().astype(np.float64)
    expected, outputs = closed_form(maps, kind, upper, head, chosen)
    found = explain(kind, head, chosen)
    np.testing.assert_allclose(found.prediction, expected[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.features, expected[:, 1:], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.outputs, outputs, rtol=1e-4, atol=1e-4)
    assert found.prediction.any()


def test_a_pooled_features_heat_is_its_channels_positive_part():
    lower, _ = make_split()
    found = explain(chosen=np.arange(FEATURES))
    with torch.no_grad():
        maps = lower(make_images()).numpy()
    np.testing.assert_allclose(found.features * 12, np.maximum(maps, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.values, maps.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)


def test_a_prediction_lights_up_where_its_evidence_is():
    # one channel that sees red, and a head whose first class is red's
    lower = torch.nn.Conv2d(3, FEATURES, 4, stride=4, bias=False)
    torch.nn.init.zeros_(lower.weight)
    with torch.no_grad():
        lower.weight[2, 0] = 1.0
    head = make_head((), 2, (2,))
    head.weights[0][:] = [[1.0, -1.0]]
    head.biases[0][:] = 0.0
    head.mean[:] = 0.0
    image = torch.zeros(1, 3, 12, 16)
    image[:, 0, 4:8, 8:12] = 1.0
    found = heat_maps((lower, make_split()[1]), head, [], [image], MEAN, STD)
    expected = np.zeros((3, 4))
    expected[1, 2] = found.prediction.max()
    np.testing.assert_array_equal(found.prediction[0], expected)
    fine = enlarge(found.prediction, 12, 16)[0]
    assert np.unravel_index(fine.argmax(), fine.shape)[0] in range(4, 8)
    assert np.unravel_index(fine.argmax(), fine.shape)[1] in range(8, 12)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 2**24])
def test_batches_change_nothing(batch, chunk, monkeypatch):
    whole = explain(batch=5)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    found = explain(batch=batch)
    for name in ("images", "prediction", "features", "values", "outputs"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-6)


def test_nothing_is_left_behind():
    lower, upper = make_split()
    state = torch.random.get_rng_state()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        first = heat_maps((lower, upper), make_head(), [0], [make_images()], MEAN, STD)
    assert not caught
    second = explain(chosen=[0], batch=5)
    np.testing.assert_array_equal(first.prediction, second.prediction)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in lower.parameters())
    assert all(parameter.requires_grad for parameter in lower.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in (*lower.modules(), *upper.modules()))


def test_images_are_shown_as_the_network_sees_them():
    picture = np.random.default_rng(3).integers(0, 256, (2, 3, 12, 16))
    scale, shift = np.array(STD)[:, None, None], np.array(MEAN)[:, None, None]
    tensor = torch.from_numpy(((picture / 255 - shift) / scale).astype(np.float32))
    np.testing.assert_array_equal(explain(images=tensor).images, picture.transpose(0, 2, 3, 1))
    assert explain(images=tensor * 100).images.dtype == np.uint8


def test_edges():
    blind = make_head(inputs=())
    found = explain(head=blind)
    assert not found.prediction.any()
    assert explain(chosen=[]).features.shape == (5, 0, 3, 4)
    assert explain(chosen=[]).scales().shape == (0,)
    diverged = make_head()
    diverged.weights[0][:] = np.nan
    found = explain(head=diverged)
    assert not found.prediction.any()
    assert found.features.any()
    with pytest.raises(InputError, match="no image"):
        heat_maps(make_split(), make_head(), [0], [], MEAN, STD)


def test_enlarge_is_bilinear_and_never_exceeds_the_strongest():
    maps = np.random.default_rng(0).random((3, 2, 5))
    fine = enlarge(maps, 20, 50)
    assert fine.shape == (3, 20, 50)
    assert fine.max() <= maps.max()
    # in the middle of a coarse cell stands its own value
    np.testing.assert_allclose(enlarge(maps, 6, 15)[:, 1::3, 1::3], maps, atol=1e-6)
    np.testing.assert_allclose(enlarge(np.full((1, 1, 1), 0.5), 3, 3), 0.5)


# --- names -----------------------------------------------------------------------------------------------------

HOSTILE = [
    "../../etc/passwd",
    "",
    "a/b",
    "a_b",
    "A?B",
    "..",
    "<script>alert(1)</script>",
    "\x1b[31mred\n",
    "$\\frac{1}{0}$",
    "ж" * 300,
    "健康",
    "CON",
    "a" * 300,
    "\udcff",
]


def test_file_names_are_safe_and_unique():
    names = file_names(HOSTILE)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name.startswith("explain_")
        assert name.endswith(".png")
        assert len(name.encode()) < 200
        assert not set(name) & set('/\\:*?"<>|$\x1b\n ')
    assert file_names(["black_spot", "canker"]) == ["explain_black_spot.png", "explain_canker.png"]
    assert file_names(["images", "Images"]) == ["explain_images.png", "explain_Images-2.png"]


def test_plain_text():
    assert plain_text("a\n\x1b[31mb") == "a??[31mb"
    assert plain_text("x" * 30 + ".jpg", 14) == "xxxxxx...x.jpg"
    assert plain_text("short", 14) == "short"


# --- figures ---------------------------------------------------------------------------------------------------


def pictures(figure):
    return [ax for ax in figure.axes if ax.images and ax.images[0].get_array().shape[1] == 16]


def drawn_texts(figure):
    return [text.get_text() for text in figure.texts]


def test_a_row_per_image_and_a_column_per_heat_map():
    maps = explain()
    rows = [Shown(f"{i}.jpg", f"says {i}", [None, True, False][i % 3]) for i in range(5)]
    figure = draw_heat_maps(maps, rows, "title", ["one", "two", "three"])
    panels = pictures(figure)
    assert len(panels) == 5 * 5
    np.testing.assert_array_equal(panels[5].images[0].get_array(), maps.images[1])
    texts = drawn_texts(figure)
    assert texts.count("one") == 1
    assert texts.count("wrong") == 1
    assert "says 4" in texts
    assert not Gcf.figs


@pytest.mark.parametrize("word", ["a rather long name {}", "W" * 40 + "{}", "健" * 40, "0123456789" * 4])
def test_no_two_texts_overlap(word):
    rows = [Shown(f"{word.format(i)}.jpg", f"{word.format(i)}, .98", False) for i in range(5)]
    figure = draw_heat_maps(explain(), rows, "W" * 200, ["feature 1000\nread by 100 %"] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [ax.bbox for ax in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            along = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(across, along) <= 1


def test_heat_is_laid_over_a_grey_picture():
    heat = np.array([[[0.0, 0.5], [1.0, 0.0]]], np.float32)
    image = np.full((1, 2, 2, 3), (200, 40, 90), np.uint8)
    maps = HeatMaps(image, heat, np.stack([heat, 0 * heat], axis=1), np.zeros((1, 2)), np.zeros((1, 3)))
    figure = draw_heat_maps(maps, [Shown("a", "b")], "", ["x", "y"], np.array([2.0, 1.0]))
    _, prediction, feature, nothing = [np.asarray(ax.images[0].get_array(), int) for ax in figure.axes[:4]]
    grey = round(0.299 * 200 + 0.587 * 40 + 0.114 * 90)
    # no heat leaves the picture, but grey
    assert (prediction[0, 0] == grey).all()
    assert (nothing == grey).all()
    # the prediction has its own scale, the feature the one it is given: half as strong here
    assert np.ptp(prediction[1, 0]) > np.ptp(feature[1, 0]) > 0
    np.testing.assert_array_equal(prediction[0, 1], feature[1, 0])
    says = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert says == ["no heat"]


def test_what_does_not_fit_is_refused():
    rows = [Shown("a", "b")] * 5
    with pytest.raises(InputError, match="give one each"):
        draw_heat_maps(explain(), rows[:4], "", ["x"] * 3)
    with pytest.raises(InputError, match="give one each"):
        draw_heat_maps(explain(), rows, "", ["x"] * 2)
    with pytest.raises(InputError, match="give one each"):
        draw_heat_maps(explain().part(slice(0)), [], "", ["x"] * 3)


def test_hostile_names_are_drawn_as_they_are(tmp_path, monkeypatch):
    # few pixels: only whether it works, and without a warning
    monkeypatch.setattr(module, "_DPI", 30)
    maps = explain(images=make_images(1))
    for name in HOSTILE:
        path = save_heat_maps(tmp_path / "a.png", maps, [Shown(name, name, False)], name, ["$x$", "x_$", "<b>"])
        assert path.stat().st_size > 1000
    figure = draw_heat_maps(maps, [Shown("$a$", "$b$")], "$c^2$", ["$x$"] * 3)
    assert all(text.get_parse_math() is False for text in figure.texts)


def test_same_maps_same_bytes(tmp_path):
    arguments = (explain(), [Shown("a", "b")] * 5, "t", ["x"] * 3)
    first, second = (save_heat_maps(tmp_path / name, *arguments).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert b"Software" not in first
    with pytest.raises(InputError, match="cannot be written"):
        save_heat_maps(tmp_path / "absent" / "a.png", *arguments)


# --- real leaves -----------------------------------------------------------------------------------------------


def test_a_real_backbone_looks_at_the_leaf(shared_data):
    from moevoprune.features.backbone_settings import BackboneSettings
    from moevoprune.features.backbones import load_backbone

    half = (0.5, 0.5, 0.5)
    weights = str(shared_data / "backbones" / "mobilenet_v2_035_imagenet.pth")
    backbone = load_backbone(
        BackboneSettings(name="mobilenet_v2", args={"width_mult": 0.35}, weights=weights, mean=half, std=half)
    )
    files = sorted((shared_data / "images" / "leaves_citrus" / "test" / "canker").iterdir())[:24]
    tensors = torch.stack([backbone.preprocessing(Image.open(path)) for path in files])

    # a linear classifier of all features: no search
    with np.load(shared_data / "features" / "leaves_citrus.npz") as data:
        rows, labels, names = data["X_train"], data["y_train"], data["class_names"].tolist()
    scale = rows.std(axis=0) + 1e-3
    fitted = LogisticRegression(C=0.01).fit((rows - rows.mean(axis=0)) / scale, labels)
    head = TrainedHead(
        task="classification",
        n_features=1280,
        inputs=np.arange(1280),
        weights=(fitted.coef_.T.astype(np.float32),),
        biases=(fitted.intercept_.astype(np.float32),),
        mean=rows.mean(axis=0),
        scale=scale,
    )
    found = heat_maps(backbone.split_at_map(), head, [0], [tensors], half, half)
    np.testing.assert_allclose(found.values, backbone.features(tensors)[:, :1].numpy(), rtol=1e-4, atol=1e-5)
    assert np.mean(found.outputs.argmax(axis=1) == names.index("canker")) > 0.8
    heat = enlarge(found.prediction, 224, 224)
    # the background is bluish white
    pixels = found.images.astype(np.float64)
    leaf = pixels[..., :2].max(axis=3) - pixels[..., 2] > 15
    assert 0.25 < leaf.mean() < 0.6
    density = [h[part].mean() / h.mean() for h, part in zip(heat, leaf, strict=True)]
    # 1 would be heat that does not care for the leaf; 2.7 all heat on it, which 7 x 7 places cannot give
    assert np.mean(density) > 1.4
