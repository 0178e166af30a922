"""Saved and exported networks give what they gave before; files that are damaged say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from moevoprune.errors import InputError
from moevoprune.filters import saving
from moevoprune.filters.cutting import cut, trial_mask
from moevoprune.filters.finishing import FinishedNetwork
from moevoprune.filters.images import LabelledImages, Normalisation, to_tensor
from moevoprune.filters.networks import SmallCNN, build_network
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.filters.saving import export_network, export_saved, load_network, read_record, save_network
from moevoprune.filters.training import recalibrate
from moevoprune.fronts.export.formats import open_exported

USERS_OWN = """
from torch import nn

class Own(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6, n_classes)

    def forward(self, images):
        maps = self.first(images).relu()
        return self.last((maps + self.second(maps)).mean((2, 3)))

def build(n_classes):
    return Own(n_classes)
"""


def _images(channels: int, side: int, floating: bool = False) -> LabelledImages:
    rng = np.random.default_rng(side)
    pixels = rng.integers(0, 256, (48, side, side, channels), dtype=np.uint8)
    # classes that differ in brightness, so that a network's answers differ too
    labels = np.arange(48) % 4
    pixels = (pixels // 4 + 48 * labels[:, None, None, None]).astype(np.uint8)
    if floating:
        pixels = (pixels / 255).astype(np.float32)
    return LabelledImages("made up", pixels[:32], labels[:32], pixels[32:], labels[32:], ("a", "b", "c", "ü"))


def _finished(name: str, channels: int, side: int, n_recalibration: int = 32, **options):
    network = build_network(name, 4, channels, side, seed=1)
    return _pruned(network, _images(channels, side), n_recalibration, **options)


def _pruned(network: nn.Module, images: LabelledImages, n_recalibration: int = 32, **options):
    normalisation = Normalisation((0.4,) * images.shape[0], (0.3,) * images.shape[0])
    problem = FilterPruningProblem(
        network, images, normalisation=normalisation, n_recalibration=n_recalibration, **options
    )
    mask = trial_mask(problem.graph)
    smaller = cut(problem.graph, problem.fitness.network, mask)
    recalibrate([smaller], problem.fitness.recalibration)
    # the output of random networks hardly differs from image to image: what they have in common is taken away
    linear = [module for module in smaller.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        linear.bias -= smaller(problem.fitness.parts.images).mean(dim=0)
    return problem, FinishedNetwork("knee", smaller, mask, 1, 1, 1, 1.0, 1.0, 0.5, 0.5, None)


@pytest.fixture(scope="module")
def plain():
    return _finished("cnn", 1, 8)


@pytest.fixture
def saved(plain, tmp_path) -> Path:
    problem, finished = plain
    save_network(tmp_path / "knee.safetensors", finished, problem, "cnn")
    return tmp_path / "knee.safetensors"


def _equal(problem, finished, loaded: nn.Module) -> bool:
    images = to_tensor(problem.images.X_test, problem.normalisation)
    assert not any(module.training for module in loaded.modules())
    with torch.no_grad():
        return torch.equal(loaded(images), finished.network(images))


# --- saving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "side", "keep"),
    [("cnn", 1, 8, ["features.0"]), ("resnet20", 3, 16, []), ("densenet", 1, 8, [])],
)
def test_loaded_network_is_the_saved_one(tmp_path, name, channels, side, keep):
    problem, finished = _finished(name, channels, side, keep=keep)
    save_network(tmp_path / "n.safetensors", finished, problem, name)
    assert _equal(problem, finished, load_network(tmp_path / "n.safetensors"))
    record = read_record(tmp_path / "n.safetensors")
    assert np.array_equal(record.mask, finished.mask)
    assert record.normalisation == problem.normalisation
    assert (record.architecture, record.role, record.image_size) == (name, "knee", (side, side))
    assert record.class_names == ("a", "b", "c", "ü")
    assert record.keep == tuple(keep)


def test_users_own_file_is_run_again(tmp_path):
    (tmp_path / "own.py").write_text(USERS_OWN)
    name = f"{tmp_path / 'own.py'}:build"
    problem, finished = _finished(name, 1, 8)
    path = tmp_path / "n.safetensors"
    save_network(path, finished, problem, name)
    assert _equal(problem, finished, load_network(path))
    whole = build_network(name, 4, 1, 8)
    (tmp_path / "own.py").unlink()
    with pytest.raises(InputError, match="there is no Python file"):
        load_network(path)
    # with the network at hand nothing is run
    assert _equal(problem, finished, load_network(path, whole))


def test_network_without_a_name(tmp_path):
    network = SmallCNN(4, 1, channels=(5, 7))
    problem, finished = _pruned(network, _images(1, 8, floating=True))
    path = tmp_path / "n.safetensors"
    save_network(path, finished, problem, "a narrow CNN")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert _equal(problem, finished, load_network(path, network))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with pytest.raises(InputError, match=r"n\.safetensors: unknown network 'a narrow CNN'"):
        load_network(path)
    with pytest.raises(InputError, match="mask is for 24 filters, but a narrow CNN has 272"):
        load_network(path, SmallCNN(4, 1))


def _rewritten(path: Path, tensors=None, **changes) -> None:
    """Write a saved network again, with parts of its record or its tensors changed."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    about = json.dumps({**json.loads(metadata["about"]), **changes})
    save_file({**load_file(path), **(tensors or {})}, path, {**metadata, "about": about})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "densenet"}, "its mask is for 272 filters, but densenet has 260"),
        ({"architecture": "resnet"}, "holds none of the tensors of SmallResNet"),
        ({"architecture": "resnot20"}, "did you mean"),
        ({"architecture": 3}, "architecture"),
        ({"n_filters": 271}, "mask is for 271 filters, but cnn has 272"),
        ({"n_filters": 300}, "the mask has 272 bits for 300 filters"),
        ({"packed": "0" * 68}, "leaves no filter of features.0"),
        ({"packed": "f" * 68}, r"'features\.0\.weight' has the shape"),
        ({"packed": "zz"}, "packed"),
        ({"keep": ["nowhere"]}, "keep names no module"),
        ({"mean": []}, "give one for each channel"),
        ({"std": [0.0]}, "std of at least"),
        ({"mean": [0.1, 0.1], "std": [1.0, 1.0]}, "2 numbers for 1 channels"),
        ({"n_classes": 5}, "4 class names for 5 classes"),
        ({"n_classes": 10**9}, "n_classes"),
        ({"image_size": [10**6, 8]}, "no height and width"),
        ({"image_size": [1, 1]}, "does not take images"),
        ({"more": 1}, "more"),
        ({"tensors": {"extra": torch.zeros(1)}}, "also holds 'extra'"),
        ({"tensors": {"classifier.bias": torch.full((4,), torch.nan)}}, "not finite"),
    ],
)
def test_record_that_does_not_fit(saved, changes, message):
    _rewritten(saved, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_network(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files(saved, tmp_path):
    content = saved.read_bytes()
    for damaged in (b"", content[:100], content[:-10], content[8:], content.replace(b"about", b"abort")):
        (tmp_path / "bad.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match=r"bad\.safetensors: "):
            load_network(tmp_path / "bad.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    for name, message in (
        ("other.safetensors", "is no network that filter pruning has saved"),
        ("pickle.safetensors", "cannot be read"),
        ("absent.safetensors", "cannot be read"),
        ("knee.pt", "use a name that ends so"),
    ):
        with pytest.raises(InputError, match=message):
            load_network(tmp_path / name)


def test_what_cannot_be_saved(plain, tmp_path):
    problem, finished = plain
    for path, name, message in (
        (tmp_path / "n.pt", "cnn", "use a name that ends so"),
        (tmp_path / "n.safetensors", "\udcff.py:build", "cannot be saved"),
        (tmp_path / "n.safetensors", "", "cannot be saved"),
        (tmp_path / "no" / "n.safetensors", "cnn", "cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            save_network(path, finished, problem, name)
    assert not list(tmp_path.iterdir())


# --- exporting -------------------------------------------------------------------------------------


def _check_export(problem, finished, path: Path) -> None:
    exported = export_network(finished, path, problem)
    tests = problem.images.X_test
    assert (exported.n_images, exported.n_agreeing) == (len(tests), len(tests))
    assert exported.n_bytes == path.stat().st_size
    pixels = np.ascontiguousarray(tests.transpose(0, 3, 1, 2), dtype=np.float32) / 255
    probabilities = open_exported(path)(pixels[:5])
    with torch.no_grad():
        logits = finished.network(to_tensor(tests[:5], problem.normalisation)).double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert probabilities.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()
    assert np.abs(probabilities - expected).max() <= 1e-4
    # of networks that always give the same answer the labels would say nothing
    assert len(set(open_exported(path)(pixels).argmax(axis=1).tolist())) > 1


def test_pt2_gives_the_same_labels(plain, saved, tmp_path):
    problem, finished = plain
    _check_export(problem, finished, tmp_path / "a.pt2")
    # and so does what is exported later, from the saved network
    export_saved(saved, tmp_path / "b.pt2", problem.images.X_test)
    pixels = problem.images.X_test.transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert np.array_equal(open_exported(tmp_path / "a.pt2")(pixels), open_exported(tmp_path / "b.pt2")(pixels))
    with pytest.raises(InputError, match=r"give \(n, 8, 8, 1\)"):
        export_saved(saved, tmp_path / "c.pt2", pixels)


def test_exports_that_cannot_be(plain, tmp_path, monkeypatch):
    problem, finished = plain
    for name, message in (("n.safetensors", "save_network"), ("n.tflite", "the ending chooses the format")):
        with pytest.raises(InputError, match=message):
            export_network(finished, tmp_path / name, problem)
    # a file that answers otherwise does not get its name
    monkeypatch.setattr(
        saving, "open_exported", lambda path: lambda rows: np.full((len(rows), 4), 0.25, np.float32)
    )
    with pytest.raises(InputError, match=r"was not written: its probabilities would differ"):
        export_network(finished, tmp_path / "n.pt2", problem)
    monkeypatch.setattr("moevoprune.fronts.export.formats.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"pip install 'moevoprune\[onnx\]'"):
        export_network(finished, tmp_path / "n.onnx", problem)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "resnet20"])
def test_onnx_gives_the_same_labels(tmp_path, name):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    problem, finished = _finished(name, 3, 16)
    _check_export(problem, finished, tmp_path / "n.onnx")
    model = onnx.load(tmp_path / "n.onnx")
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert metadata["member"] == "knee"
    assert json.loads(metadata["class_names"]) == ["a", "b", "c", "ü"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "probabilities"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "mobilenet_v2"])
def test_networks_of_torchvision_as_onnx(tmp_path, name):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torchvision")
    problem, finished = _finished(name, 3, 64)
    _check_export(problem, finished, tmp_path / "n.onnx")
    save_network(tmp_path / "n.safetensors", finished, problem, name)
    assert _equal(problem, finished, load_network(tmp_path / "n.safetensors"))
