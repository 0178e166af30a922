"""Backbones: where networks are cut, which weights they get, and what is said when something does not fit."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn
from torchvision import models

from moevoprune.errors import InputError
from moevoprune.features import vision
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.backbones import Backbone, available_backbones, backbone_layers, load_backbone

ROOT = Path(__file__).resolve().parents[2]


def _settings(name: str = "resnet18", weights: str | Path = "none", **others: object) -> BackboneSettings:
    return BackboneSettings(name=name, weights=str(weights), **others)


def _images(side: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def _network(name: str, **args: object) -> nn.Module:
    """The network with the random weights that `weights = none` promises, built by torchvision alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(vision.SEED)
        if name in ("googlenet", "inception_v3"):
            args = {"init_weights": True, "transform_input": True, **args}
        return models.get_model(name, weights=None, **args).eval()


def _expected(name: str, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Pooled features, from what goes into the classifier (or into its pooling)."""
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(args[0].detach().clone())

    family = name.split("_")[0].rstrip("0123456789")
    if family in ("vgg", "alexnet"):
        reader = network.avgpool
    elif family == "squeezenet":
        reader = network.classifier[0]
    elif family == "maxvit":
        # in front of a normalisation and a hidden layer
        reader = network.classifier[2]
    elif family == "mobilenet":
        reader = network.classifier[0]
    elif family in ("efficientnet", "mnasnet", "convnext"):
        reader = network.classifier[-1]
    elif family == "densenet":
        reader = network.classifier
    elif family == "swin":
        reader = network.head
    elif family == "vit":
        reader = network.heads
    else:
        reader = network.fc
    handle = reader.register_forward_pre_hook(keep)
    with torch.no_grad():
        network(images)
    handle.remove()
    return seen[0].mean((2, 3)) if seen[0].dim() == 4 else seen[0]


# --- the cut ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("resnet18", 512, 64),
        ("squeezenet1_1", 512, 64),
        ("densenet121", 1024, 64),
        ("mobilenet_v3_small", 576, 64),
        ("shufflenet_v2_x0_5", 1024, 64),
        ("efficientnet_b0", 1280, 64),
        ("convnext_tiny", 768, 64),
        ("swin_t", 768, 64),
        ("mnasnet0_5", 1280, 64),
        ("regnet_x_400mf", 400, 64),
        ("googlenet", 1024, 64),
        ("alexnet", 256, 224),
        # maps of one place, which must not be taken for pooled ones
        ("resnet18", 512, 32),
        ("mobilenet_v2", 1280, 32),
    ],
)
def test_features_are_the_pooled_last_map(name, size, side):
    backbone = load_backbone(_settings(name, crop=side))
    images = _images(side)
    features = backbone.features(images)
    assert features.shape == (2, size) == (2, backbone.feature_size)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features, _expected(name, _network(name), images), rtol=1e-4, atol=1e-5)

    to_map, to_features = backbone.split_at_map()
    maps = to_map(images)
    assert maps.dim() == 4
    assert maps.shape[2] == maps.shape[3]
    kept = maps.clone()
    torch.testing.assert_close(to_features(maps), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps, kept, rtol=0, atol=0)
    assert backbone.feature_map in backbone_layers(_settings(name, crop=side))


def test_a_vision_transformer_gives_its_class_token():
    settings = _settings("vit_b_32", args={"image_size": 64, "num_layers": 2}, crop=64, size=64)
    # the number of layers is the builder's to fix
    with pytest.raises(InputError, match="num_layers"):
        load_backbone(settings)
    backbone = load_backbone(_settings("vit_b_32", args={"image_size": 64}, crop=64))
    network = _network("vit_b_32", image_size=64)
    images = _images(64)
    network.heads = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(backbone.features(images), network(images), rtol=1e-4, atol=1e-5)
    assert backbone.feature_map is None
    with pytest.raises(InputError, match="vit_b_32 ends in tokens, not in a feature map"):
        backbone.split_at_map()


def test_split_parts_let_gradients_pass_and_need_none():
    to_map, to_features = load_backbone(_settings(crop=32, layer="fc")).split_at_map()
    maps = to_map(_images(32)).detach().requires_grad_()
    to_features(maps).sum().backward()
    assert maps.grad is not None
    assert float(maps.grad.abs().sum()) > 0
    images = _images(32).requires_grad_()
    to_features(to_map(images)).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    for part in (to_map, to_features):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_only_used_modules_are_held():
    to_map, to_features = load_backbone(_settings("squeezenet1_1", crop=32)).split_at_map()
    held = sum(p.numel() for part in (to_map, to_features) for p in part.parameters())
    assert held == sum(p.numel() for p in _network("squeezenet1_1").features.parameters())


def test_layers_by_name():
    network = _network("resnet18")
    images = _images(64)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        maps = network.layer2(network.layer1(x))
        logits = network(images)
    backbone = load_backbone(_settings(crop=64, layer="layer2"))
    torch.testing.assert_close(backbone.features(images), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert backbone.layer == backbone.feature_map == "layer2.1.relu_1"
    torch.testing.assert_close(backbone.split_at_map()[0](images), maps, rtol=1e-4, atol=1e-5)
    # a layer before one that works in place
    inner = load_backbone(_settings(crop=64, layer="bn1")).features(images)
    with torch.no_grad():
        torch.testing.assert_close(inner, network.bn1(network.conv1(images)).mean((2, 3)), rtol=1e-4, atol=1e-5)
    last = load_backbone(_settings(crop=64, layer="fc"))
    torch.testing.assert_close(last.features(images), logits, rtol=1e-4, atol=1e-5)
    assert last.feature_map == "layer4.1.relu_1"


def test_layers_with_channels_last_and_tokens():
    network = _network("swin_t")
    images = _images(64)
    with torch.no_grad():
        maps = network.features[:4](images)
    assert maps.shape[1] == maps.shape[2]
    backbone = load_backbone(_settings("swin_t", crop=64, layer="features.3"))
    torch.testing.assert_close(backbone.features(images), maps.mean((1, 2)), rtol=1e-4, atol=1e-5)
    to_map, to_features = backbone.split_at_map()
    torch.testing.assert_close(to_map(images), maps.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(to_features(to_map(images)), backbone.features(images), rtol=1e-5, atol=1e-5)

    backbone = load_backbone(_settings("vit_b_32", args={"image_size": 64}, crop=64, layer="encoder.ln"))
    network = _network("vit_b_32", image_size=64)
    seen = []
    network.encoder.ln.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        network(images)
    torch.testing.assert_close(backbone.features(images), seen[0].mean(1), rtol=1e-4, atol=1e-5)
    assert backbone.feature_map is None


def test_layers_are_listed_and_the_nearest_is_suggested():
    layers = backbone_layers(_settings())
    assert layers[0] == "conv1"
    assert layers[-1] == "fc"
    with pytest.raises(InputError, match=r"no layer 'flaten'; did you mean 'flatten'\?.*backbone_layers"):
        load_backbone(_settings(layer="flaten"))
    with pytest.raises(InputError, match="no layer"):
        load_backbone(_settings(layer="layer"))
    with pytest.raises(InputError, match="gives no tensor"):
        load_backbone(_settings("vit_b_32", layer="getattr"))
    with pytest.raises(InputError, match=r"gives the shape \(2, 3, 224, 224\)"):
        load_backbone(_settings(layer="x"))


# --- what is asked for -----------------------------------------------------------------------------


def test_names_are_classification_models():
    names = available_backbones()
    assert {"resnet50", "vit_b_16", "squeezenet1_0"} <= set(names)
    with pytest.raises(InputError, match="unknown backbone 'resnet5'; did you mean 'resnet50'"):
        load_backbone(_settings("resnet5"))
    for name in ("fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18"):
        with pytest.raises(InputError, match=f"unknown backbone '{name}'"):
            load_backbone(_settings(name))
        with pytest.raises(InputError, match=f"unknown backbone '{name}'"):
            backbone_layers(_settings(name))


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("resnet18", {"widht": 2}, "widht"),
        ("mobilenet_v2", {"width_mult": "a"}, "width_mult='a'"),
        ("mobilenet_v2", {"inverted_residual_setting": [[1, 2]]}, "inverted_residual_setting"),
        ("resnext50_32x4d", {"groups": 4}, "groups=4"),
        ("resnet18", {"weights": "x"}, "use the setting 'weights'"),
    ],
)
def test_wrong_arguments(name, args, words):
    with pytest.raises(InputError, match=words) as caught:
        load_backbone(_settings(name, args=args))
    assert "\n" not in str(caught.value)


def test_wrong_sizes(capsys):
    with pytest.raises(InputError, match=r"vit_b_16 does not take images of 128 x 128 pixels .*image height"):
        load_backbone(_settings("vit_b_16", crop=128))
    with pytest.raises(InputError, match="does not take images of 8 x 8"):
        load_backbone(_settings("alexnet", size=8))
    with pytest.raises(InputError, match="does not take images of 100 x 100"):
        load_backbone(_settings("maxvit_t", crop=100))
    assert capsys.readouterr() == ("", "")
    backbone = load_backbone(_settings(crop=32))
    for shape in ((2, 3, 64, 64), (3, 32, 32), (2, 1, 32, 32)):
        with pytest.raises(InputError, match=r"do not fit resnet18: give \(n, 3, 32, 32\)"):
            backbone.features(torch.zeros(shape))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 5000},
        {"crop": 2.5},
        {"mean": [0.5, 0.5]},
        {"std": [0.5, 0.0, 0.5]},
        {"mean": [0.5, float("nan"), 0.5]},
        {"interpolation": "cubic"},
        {"weights": ""},
        {"layer": ""},
        {"weigths": "none"},
        {"args": {"a": {"b": 1}}},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        BackboneSettings(**wrong)


def test_settings_take_lists_and_come_back_from_json():
    settings = BackboneSettings(mean=[0.5, 0.5, 0.5], args={"width_mult": 0.35, "x": [1, [2.5]], "flag": True})
    assert settings.mean == (0.5, 0.5, 0.5)
    assert BackboneSettings(**json.loads(settings.model_dump_json())) == settings
    assert BackboneSettings().name == "resnet50"


# --- weights ---------------------------------------------------------------------------------------


def test_random_weights_are_repeatable_and_leave_the_global_state_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = load_backbone(_settings(crop=32))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = load_backbone(_settings(crop=32))
    assert torch.equal(first.features(_images(32)), second.features(_images(32)))
    assert first.weights_sha256 == second.weights_sha256
    (note,) = first.notes
    assert "random weights" in note


def test_the_record_is_plain_and_whole():
    backbone = load_backbone(_settings("mobilenet_v2", args={"width_mult": 0.35}, crop=32))
    record = json.loads(json.dumps(backbone.record()))
    assert record["name"] == "mobilenet_v2"
    assert record["args"] == {"width_mult": 0.35}
    assert record["weights"] == "none"
    assert record["layer"] == "flatten"
    assert record["feature_map"] == "features.18"
    assert record["feature_size"] == 1280
    assert record["preprocessing"]["crop"] == 32
    assert record["weights_sha256"] == backbone.weights_sha256
    assert len(backbone.weights_sha256) == 64


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """ResNet-18 with other weights than those of `none`, and statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = models.resnet18()
        network.train()
        network(torch.randn(4, 3, 32, 32))
        return network.eval()


def _pooled(network: nn.Module) -> torch.Tensor:
    return _expected("resnet18", network, _images(32))


def _save(content: object, folder: Path, name: str = "w.pth") -> Path:
    path = folder / name
    torch.save(content, path)
    return path


def _load(path: Path) -> Backbone:
    return load_backbone(_settings(weights=path, crop=32))


def test_weight_files_in_many_wrappings(small, tmp_path):
    from safetensors.torch import save_file

    state = small.state_dict()
    plain = _load(_save(state, tmp_path))
    torch.testing.assert_close(plain.features(_images(32)), _pooled(small), rtol=1e-4, atol=1e-5)
    assert plain.notes == ()

    four_classes = {**state, "fc.weight": torch.zeros(4, 512), "fc.bias": torch.zeros(4)}
    others = {
        "nested": {"state_dict": state, "epoch": 3},
        "model": {"model": {"state_dict": dict(state)}, "optimizer": {"lr": 0.1}},
        "prefix": {"module." + key: value for key, value in state.items()},
        "both": {"model_state_dict": {"module.model." + key: value for key, value in state.items()}},
        "four classes": four_classes,
        "no classifier": {key: value for key, value in state.items() if not key.startswith("fc")},
        "no counters": {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        "double": {key: value.double() for key, value in state.items()},
        "with a number": {**state, "epoch": 7},
        "parameters": dict(small.named_parameters()) | dict(small.named_buffers()),
    }
    for number, (kind, content) in enumerate(others.items()):
        backbone = _load(_save(content, tmp_path, f"{number}.pth"))
        assert backbone.weights_sha256 == plain.weights_sha256, kind
        assert torch.equal(backbone.features(_images(32)), plain.features(_images(32))), kind

    save_file(state, tmp_path / "w.safetensors")
    assert _load(tmp_path / "w.safetensors").weights_sha256 == plain.weights_sha256
    changed = {**state, "conv1.weight": state["conv1.weight"] + 1e-3}
    assert _load(_save(changed, tmp_path)).weights_sha256 != plain.weights_sha256
    changed = {**state, "fc.bias": state["fc.bias"] + 1e-3}
    assert _load(_save(changed, tmp_path)).weights_sha256 == plain.weights_sha256


def test_names_of_older_files(tmp_path):
    # what torchvision itself reads in its own old files
    network = _network("densenet121").state_dict()
    old = {}
    for key, value in network.items():
        for kind in ("norm", "conv"):
            for digit in "12":
                if "denselayer" in key:
                    key = key.replace(f".{kind}{digit}.", f".{kind}.{digit}.")
        old[key] = value
    assert set(old) != set(network)
    path = _save(old, tmp_path)
    assert (
        load_backbone(_settings("densenet121", path, crop=32)).weights_sha256
        == load_backbone(_settings("densenet121", crop=32)).weights_sha256
    )
    # MNASNet insists on a version beside the tensors, which not every tool keeps
    path = _save(dict(_network("mnasnet0_5").state_dict()), tmp_path)
    assert (
        load_backbone(_settings("mnasnet0_5", path, crop=32)).weights_sha256
        == load_backbone(_settings("mnasnet0_5", crop=32)).weights_sha256
    )


@pytest.mark.slow
def test_names_of_older_vision_transformers(tmp_path):
    state = _network("vit_b_32").state_dict()
    renamed = {
        k.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): state[k] for k in state
    }
    assert set(renamed) != set(state)
    path = _save(renamed, tmp_path)
    assert (
        load_backbone(_settings("vit_b_32", path)).weights_sha256
        == load_backbone(_settings("vit_b_32")).weights_sha256
    )


class _Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pwned"),))


def test_weight_files_that_are_refused(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = small.state_dict()

    def refused(content: object, *words: str, name: str = "w.pth", raw: bytes | None = None) -> None:
        path = tmp_path / name
        path.write_bytes(raw) if raw is not None else torch.save(content, path)
        with pytest.raises(InputError) as caught:
            _load(path)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        assert all(word in message for word in words), message
        assert len(message) < 600

    refused({"state_dict": _Attack()}, "no state dict can be read", "more than tensors")
    refused(None, "no state dict", raw=pickle.dumps(_Attack()))
    assert not (tmp_path / "pwned").exists()
    refused(small, "more than tensors", "model.state_dict()")
    refused(None, "no state dict", raw=b"")
    refused(None, "no state dict", "another kind of file", raw=b"hello")
    refused(None, "no state dict", raw=(tmp_path / "w.pth").read_bytes()[:3], name="w.safetensors")
    whole = _save(state, tmp_path, "whole.pth").read_bytes()
    refused(None, "no state dict", raw=whole[: len(whole) // 2])
    for content in ([1, 2], {"a": 1}, {}, torch.zeros(3), {1: torch.zeros(2)}):
        refused(content, "is no state dict")

    refused({"a": torch.zeros(2), "b": torch.zeros(1)}, "none of the tensors", "'a'", "conv1.weight")
    without = {key: value for key, value in state.items() if key != "layer1.0.bn1.running_mean"}
    refused(without, "has no 'layer1.0.bn1.running_mean'", "--backbone-arg")
    other = {**state, "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    refused(other, "'layer1.0.conv1.weight'", "(64, 64, 1, 1)", "(64, 64, 3, 3)", "--backbone-arg")
    refused(models.resnet50().state_dict(), "layer1.0.conv1.weight", "(64, 64, 1, 1)")
    broken = state["conv1.weight"].clone()
    broken[0, 0, 0, 0] = float("nan")
    refused({**state, "conv1.weight": broken}, "'conv1.weight'", "not finite")
    refused({**state, "conv1.weight": broken.to(torch.complex64)}, "complex")
    refused({**state, "conv1.weight": broken.to_sparse()}, "sparse")


def test_weights_that_do_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"does not exist as a file.*default, none, IMAGENET1K_V1"):
        load_backbone(_settings(weights=tmp_path / "none.pth"))
    with pytest.raises(InputError, match="did you mean 'IMAGENET1K_V1'"):
        load_backbone(_settings(weights="IMAGENET1K_V3"))
    with pytest.raises(InputError, match="is not a file"):
        load_backbone(_settings(weights=tmp_path))
    for impossible in ("a\0b", "~nobody-of-this-name/w.pth", "x" * 5000):
        with pytest.raises(InputError, match="does not exist"):
            load_backbone(_settings(weights=impossible))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of downloads, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def fail(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvisions_own_weights(small, hub, tmp_path):
    torch.save(small.state_dict(), hub / "resnet18-f37072fd.pth")
    for word in ("default", "IMAGENET1K_V1"):
        backbone = load_backbone(_settings(weights=word, crop=32))
        torch.testing.assert_close(backbone.features(_images(32)), _pooled(small), rtol=1e-4, atol=1e-5)
        assert backbone.record()["weights"] == word
        assert backbone.weights_name == "ResNet18_Weights.IMAGENET1K_V1"
        assert backbone.notes == ()
    assert backbone.weights_sha256 == _load(_save(small.state_dict(), tmp_path)).weights_sha256
    # a head for other classes does not matter, other widths do
    load_backbone(_settings(weights="default", crop=32, args={"num_classes": 7}))
    torch.save(small.state_dict(), hub / "wide_resnet50_2-9ba9bcbe.pth")
    with pytest.raises(InputError, match="does not fit wide_resnet50_2"):
        load_backbone(_settings("wide_resnet50_2", "default", crop=32))


def test_downloads_that_fail(hub):
    with pytest.raises(InputError, match=r"resnet50 cannot be downloaded .*no route.*--weights FILE.*none"):
        load_backbone(_settings("resnet50", "default"))
    (hub / "resnet18-f37072fd.pth").write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"resnet18 cannot be downloaded .*: delete .*resnet18-f37072fd.pth"):
        load_backbone(_settings("resnet18", "default"))


@pytest.mark.slow
def test_named_weights_bring_their_own_preprocessing(hub):
    network = _network("vit_b_16", image_size=384)
    torch.save(network.state_dict(), hub / "vit_b_16_swag-9ac1b537.pth")
    backbone = load_backbone(_settings("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"))
    assert backbone.preprocessing.crop == 384
    assert backbone.preprocessing.interpolation == "bicubic"
    assert load_backbone(_settings("vit_b_16")).preprocessing.crop == 224


def test_a_broken_torchvision_is_said_in_one_line():
    code = (
        "import sys\n"
        "sys.modules['torchvision'] = None\n"
        "from moevoprune.features.backbones import *\n"
        "from moevoprune.errors import InputError\n"
        "assert 'torch' not in sys.modules\n"
        "for call in (available_backbones, lambda: load_backbone(BackboneSettings())):\n"
        "    try: call()\n"
        "    except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("need a working torchvision" in line and "matching versions" in line for line in lines)


# --- real data, all networks, CUDA -----------------------------------------------------------------


def test_features_of_real_images(shared_data):
    settings = _settings(
        "mobilenet_v2",
        shared_data / "backbones" / "mobilenet_v2_035_imagenet.pth",
        args={"width_mult": 0.35},
        size=256,
        mean=[0.5] * 3,
        std=[0.5] * 3,
    )
    backbone = load_backbone(settings)
    paths = sorted((shared_data / "images" / "leaves_citrus" / "test").glob("*/*.jpg"))
    rows = list(range(0, len(paths), 19))
    images = torch.stack([backbone.preprocessing(Image.open(paths[row])) for row in rows])
    with np.load(shared_data / "features" / "leaves_citrus.npz") as stored:
        expected = stored["X_test"][rows].astype(np.float32)
    np.testing.assert_allclose(backbone.features(images).numpy(), expected, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(models.list_models(module=models)))
def test_every_network(name):
    generator = np.random.default_rng(4)
    pictures = [Image.fromarray(generator.integers(0, 256, (30, 20, 3), dtype=np.uint8)) for _ in range(2)]
    try:
        backbone = load_backbone(_settings(name))
        images = torch.stack([backbone.preprocessing(picture) for picture in pictures])
        features = backbone.features(images)
        assert features.shape == (2, backbone.feature_size)
        assert bool(torch.isfinite(features).all())
        assert not torch.equal(features[0], features[1])
        assert (backbone.feature_map is None) == name.startswith("vit")
        if backbone.feature_map is not None:
            to_map, to_features = backbone.split_at_map()
            with torch.no_grad():
                maps = to_map(images)
                torch.testing.assert_close(to_features(maps), features, rtol=1e-5, atol=1e-5)
            assert min(maps.shape[2:]) > 1
            del to_map, to_features, maps
        side = backbone.preprocessing.crop
        del backbone
        gc.collect()
        args = {"image_size": side} if name.startswith("vit") else {}
        expected = _expected(name, _network(name, **args), images)
        assert features.shape == expected.shape
        scale = float(expected.abs().max())
        torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4 * scale)
    finally:
        gc.collect()


@pytest.mark.gpu
def test_cuda_gives_the_same_features():
    settings = _settings("mobilenet_v3_small", crop=64)
    images = _images(64, count=8)
    expected = load_backbone(settings).features(images)
    backbone = load_backbone(settings, "cuda")
    torch.testing.assert_close(backbone.features(images).cpu(), expected, rtol=1e-2, atol=1e-3)
    mixed = backbone.features(images, mixed_precision=True)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.cpu(), expected, rtol=5e-2, atol=2e-2)
