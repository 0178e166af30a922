"""Exported heads: small, exact, readable without this package."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from moevoprune import FeatureSet, HeadSettings, InputError, PruningProblem, TrainedHead, evolve
from moevoprune.features.backbones import BackboneSettings, load_backbone
from moevoprune.fronts.export import (
    compact_head,
    export_head,
    exporting,
    format_of,
    formats,
    multiply_adds,
    random_rows,
)
from moevoprune.fronts.export.measuring import latencies
from moevoprune.fronts.export.modules import HeadModule, with_folded_norms
from moevoprune.heads.ensemble import HeadEnsemble

ENDINGS = [".safetensors", ".pt2", ".onnx"]
# the latency takes a second for each number of rows
BATCHES = ()
NAMES = ("<b>", "$x$", "健\n")


def needs(ending):
    if ending == ".onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")


def make_head(
    n_features=20, inputs=(1, 4, 5, 11, 19), hidden=(7,), outputs=3, seed=0, bias=True, regression=False
):
    rng = np.random.default_rng(seed)
    widths = (len(inputs), *hidden, outputs)
    layers = range(len(widths) - 1)
    return TrainedHead(
        task="regression" if regression else "classification",
        n_features=n_features,
        inputs=np.array(inputs, np.int64),
        weights=tuple(rng.normal(size=(widths[i], widths[i + 1])).astype(np.float32) for i in layers),
        biases=tuple(rng.normal(size=widths[i + 1]).astype(np.float32) if bias else None for i in layers),
        mean=rng.normal(size=len(inputs)).astype(np.float32),
        scale=rng.uniform(0.5, 2, size=len(inputs)).astype(np.float32),
        target_mean=np.array([100.0, -3.0], np.float32)[:outputs] if regression else None,
        target_scale=np.array([20.0, 0.1], np.float32)[:outputs] if regression else None,
    )


def oracle(head, rows):
    """Outputs unit by unit, in float64."""
    result = []
    for row in np.asarray(rows, np.float64):
        values = [
            (row[i] - float(m)) / float(s) for i, m, s in zip(head.inputs, head.mean, head.scale, strict=True)
        ]
        for layer, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
            sums = []
            for unit in range(weight.shape[1]):
                total = 0.0 if bias is None else float(bias[unit])
                total += sum(value * float(w) for value, w in zip(values, weight[:, unit], strict=True))
                sums.append(max(total, 0.0) if layer < len(head.weights) - 1 else total)
            values = sums
        if head.task == "regression":
            values = np.array(values) * head.target_scale.astype(float) + head.target_mean.astype(float)
        else:
            values = np.exp(np.array(values) - max(values))
            values /= values.sum()
        result.append(values)
    return np.array(result)


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(5).normal(size=(30, 20)).astype(np.float32)


# --- compact heads ---------------------------------------------------------------------------------------------


def test_compact_head_removes_what_takes_no_part(rows):
    head = make_head(hidden=(6, 5), seed=3)
    first, second, third = (weight.copy() for weight in head.weights)
    first[2] = 0  # nobody reads input 5
    first[:, 1] = 0  # a constant: its bias below is positive
    first[:, 4] = 0  # a constant 0
    second[5] = 0  # nobody reads unit 5
    third[3] = 0  # nobody reads unit 3 of the second layer
    biases = [bias.copy() for bias in head.biases]
    biases[0][1], biases[0][4] = 0.7, -0.7
    sparse = replace(head, weights=(first, second, third), biases=tuple(biases))
    compact = compact_head(sparse)
    assert compact.widths == (4, 3, 4, 3)
    np.testing.assert_array_equal(compact.inputs, [1, 4, 11, 19])
    np.testing.assert_allclose(oracle(compact, rows), oracle(sparse, rows), atol=1e-6)
    # a constant unit was all that a unit of the second layer read: that one is a constant too
    second[:, 0] = 0
    second[1, 0] = 2.0
    chained = compact_head(replace(sparse, weights=(first, second, third)))
    assert chained.widths == (4, 3, 3, 3)
    np.testing.assert_allclose(
        oracle(chained, rows), oracle(replace(sparse, weights=(first, second, third)), rows), atol=1e-6
    )


def test_compact_head_without_biases(rows):
    head = make_head(bias=False)
    weight = head.weights[0].copy()
    weight[:, 2] = 0
    sparse = replace(head, weights=(weight, head.weights[1]))
    compact = compact_head(sparse)
    assert compact.widths == (5, 6, 3)
    assert compact.biases == (None, None)
    np.testing.assert_allclose(oracle(compact, rows), oracle(sparse, rows), atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_compact_head_keeps_a_unit_of_every_layer(rows, layer):
    head = make_head(hidden=(4, 3), seed=2)
    weights = list(head.weights)
    weights[layer] = np.zeros_like(weights[layer])
    constant = replace(head, weights=tuple(weights))
    compact = compact_head(constant)
    assert min(compact.widths) >= 1
    assert len(compact.inputs) == 1
    np.testing.assert_allclose(oracle(compact, rows), oracle(constant, rows), atol=1e-6)


@pytest.mark.parametrize(("inputs", "hidden"), [((), (4,)), ((1, 3), (0,)), ((1, 3), (4, 0)), ((), (0, 0))])
def test_layers_without_units(rows, inputs, hidden, tmp_path):
    head = make_head(inputs=inputs, hidden=hidden)
    assert min(compact_head(head).widths) == 1
    np.testing.assert_allclose(oracle(compact_head(head), rows), oracle(head, rows), atol=1e-7)
    assert export_head(head, tmp_path / "head.pt2", rows, batches=BATCHES).n_agreeing == len(rows)


def test_compact_head_leaves_a_dense_head_alone():
    head = make_head(hidden=(6, 5))
    compact = compact_head(head)
    for one, other in zip((*head.weights, *head.biases), (*compact.weights, *compact.biases), strict=True):
        np.testing.assert_array_equal(one, other)


def test_pruned_connections(small_features, tmp_path):
    problem = PruningProblem(
        small_features, "connections", head=HeadSettings(hidden=(6,), epochs=3, batch_size=16), cv=2, seed=1
    )
    front = evolve(problem, pop_size=8, n_gen=2, seed=1)
    sizes = set()
    for member, head in enumerate(front.heads):
        exported = export_head(head, tmp_path / "head.safetensors", small_features.X_test, batches=BATCHES)
        assert exported.n_agreeing == len(small_features.X_test), member
        assert exported.head.parameters <= head.n_parameters
        sizes.add(exported.head.multiply_adds)
    # what the mask empties is gone
    assert min(sizes) < multiply_adds(front.dense_head)


def test_multiply_adds():
    head = make_head(hidden=(7, 4))
    assert multiply_adds(head) == 5 * 7 + 7 * 4 + 4 * 3
    # the stack of an ensemble: the union of 6 inputs times all units, then batched
    other = make_head(inputs=(0, 1, 4, 5), hidden=(7, 4), seed=1)
    assert multiply_adds(HeadEnsemble([head, other])) == 6 * 14 + 2 * (7 * 4 + 4 * 3)


# --- files -----------------------------------------------------------------------------------------------------


def run_file(path, rows):
    """What a file gives, by means of its runtime alone."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        return session.run(None, {entry.name: rows})[0]
    if path.suffix == ".pt2":
        return torch.export.load(str(path)).module()(torch.from_numpy(rows)).numpy()
    from safetensors.numpy import load_file

    tensors = load_file(str(path))
    values = rows[:, tensors["inputs"]]
    if "mean" in tensors:
        values = (values - tensors["mean"]) / tensors["scale"]
    for layer in range(sum(name.startswith("weight") for name in tensors)):
        values = np.maximum(values, 0) if layer else values
        values = values @ tensors[f"weight{layer}"] + tensors.get(f"bias{layer}", 0)
    return values if len(values[0]) == 2 else np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)


HEAD = make_head(hidden=(7, 4))
DENSE = make_head(inputs=range(20), hidden=(16, 8), seed=9)


@pytest.fixture(scope="module")
def exported_as(rows, tmp_path_factory):
    """A file of that head for each ending, alone in its folder, made once: to read, not to change."""

    @cache
    def export(ending):
        needs(ending)
        path = tmp_path_factory.mktemp("exported") / f"head{ending}"
        batches = (1, 4) if ending == ".pt2" else BATCHES
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporting, "latencies", partial(latencies, seconds=0.02))
            return export_head(
                HEAD, path, rows, dense=DENSE, class_names=NAMES, member="head 3 (knee)", batches=batches
            )

    return export


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_give_what_the_head_gives(ending, rows, exported_as):
    exported = exported_as(ending)
    head, path = HEAD, exported.path
    for count in (1, 2, 3, 30):
        outputs = run_file(path, rows[:count])
        assert outputs.shape == (count, 3)
        np.testing.assert_allclose(outputs, oracle(head, rows[:count]), atol=1e-6)
    assert exported.difference <= 1e-5
    assert (exported.n_rows, exported.n_agreeing, exported.rounding) == (30, 30, None)
    assert (exported.n_inputs, exported.n_features) == (5, 20)
    assert exported.head.parameters == 5 * 7 + 7 + 7 * 4 + 4 + 4 * 3 + 3
    assert exported.dense.multiply_adds == 20 * 16 + 16 * 8 + 8 * 3
    assert exported.head.n_bytes == path.stat().st_size < exported.dense.n_bytes
    assert set(exported.head.latency) == set(exported.dense.latency) == ({1, 4} if ending == ".pt2" else set())
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def nothing_said_and_nothing_changed(capfd):
    levels = {name: logging.getLogger(name).level for name in ("torch", "onnxscript", "onnx_ir")}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    assert capfd.readouterr() == ("", "")
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("nothing_said_and_nothing_changed")
@pytest.mark.parametrize("ending", ENDINGS)
def test_regression(ending, rows, tmp_path):
    needs(ending)
    head = make_head(outputs=2, regression=True)
    exported = export_head(head, tmp_path / f"head{ending}", rows, batches=BATCHES)
    assert exported.n_agreeing is None
    np.testing.assert_allclose(run_file(exported.path, rows), oracle(head, rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_active_inputs_alone(ending, rows, tmp_path):
    needs(ending)
    head = make_head()
    exported = export_head(head, tmp_path / f"head{ending}", rows, inputs="active", batches=BATCHES)
    np.testing.assert_allclose(run_file(exported.path, rows[:, head.inputs]), oracle(head, rows), atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
def test_ensembles(ending, rows, tmp_path):
    needs(ending)
    heads = [make_head(), make_head(inputs=(0, 4, 7), hidden=(5,), seed=1), make_head(seed=2)]
    ensemble = HeadEnsemble(heads, [1, 2, 3])
    exported = export_head(ensemble, tmp_path / f"head{ending}", rows, batches=BATCHES)
    assert (exported.n_agreeing, exported.n_inputs) == (30, 7)
    assert exported.head.parameters == sum(head.n_parameters for head in heads)
    if ending != ".safetensors":
        expected = sum(weight * oracle(head, rows) for weight, head in zip([1, 2, 3], heads, strict=True)) / 6
        np.testing.assert_allclose(run_file(exported.path, rows), expected, atol=1e-6)
        active = export_head(ensemble, tmp_path / f"active{ending}", rows, inputs="active", batches=BATCHES)
        np.testing.assert_allclose(run_file(active.path, rows[:, ensemble.inputs]), expected, atol=1e-6)


@pytest.mark.parametrize("ending", [".safetensors", ".pt2"])
def test_other_ensembles(ending, rows, tmp_path):
    heads = [make_head(seed=seed) for seed in range(4)]
    hard = export_head(HeadEnsemble(heads, voting="hard"), tmp_path / f"hard{ending}", rows, batches=BATCHES)
    assert hard.n_agreeing == 30
    lines = [make_head(outputs=2, regression=True, seed=seed) for seed in range(3)]
    mean = export_head(HeadEnsemble(lines), tmp_path / f"mean{ending}", rows, batches=BATCHES)
    assert mean.difference <= 1e-5


def test_features_far_from_zero_keep_their_digits(tmp_path):
    # folded into float32 weights, a mean of 20,000 deviations would cost all but two digits
    head = replace(make_head(), mean=np.full(5, 2e4, np.float32))
    rows = random_rows(head, 40, np.random.default_rng(1))
    assert not HeadModule(head).folded
    assert HeadModule(make_head()).folded
    exported = export_head(head, tmp_path / "head.safetensors", rows, batches=BATCHES)
    assert exported.difference <= 1e-5
    np.testing.assert_allclose(run_file(exported.path, rows), oracle(head, rows), atol=1e-5)


def test_random_rows_look_like_the_training_rows():
    head = make_head()
    rows = random_rows(head, 4000, np.random.default_rng(2))
    np.testing.assert_array_equal(rows, random_rows(head, 4000, np.random.default_rng(2)))
    np.testing.assert_allclose(rows[:, head.inputs].mean(axis=0), head.mean, atol=0.1)
    np.testing.assert_allclose(rows[:, head.inputs].std(axis=0), head.scale, rtol=0.05)


def test_metadata(exported_as):
    needs(".onnx")
    import onnx
    from safetensors import safe_open

    paths = {ending: exported_as(ending).path for ending in ENDINGS}
    with safe_open(str(paths[".safetensors"]), framework="np") as file:
        stored = [file.metadata()]
    stored.append({prop.key: prop.value for prop in onnx.load(paths[".onnx"]).metadata_props})
    extra = {"metadata.json": ""}
    torch.export.load(str(paths[".pt2"]), extra_files=extra)
    stored.append(json.loads(extra["metadata.json"]))
    for metadata in stored:
        assert tuple(json.loads(metadata["class_names"])) == NAMES
        assert json.loads(metadata["inputs"]) == HEAD.inputs.tolist()
        assert (metadata["member"], metadata["input"], metadata["output"]) == (
            "head 3 (knee)",
            "features",
            "probabilities",
        )


def test_onnx_file_is_plain(exported_as):
    needs(".onnx")
    import onnx

    path = exported_as(".onnx").path
    model = onnx.load(path)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["features", "probabilities"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [node.op_type for node in model.graph.node] == ["Gather", *["Gemm", "Relu"] * 2, "Gemm", "Softmax"]
    # nothing of the machine that wrote it
    assert b".py" not in path.read_bytes()


def test_pt2_holds_no_pickle(exported_as):
    with zipfile.ZipFile(exported_as(".pt2").path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not name.endswith(".pkl")
            assert not zipfile.is_zipfile(io.BytesIO(content)), name
            if name.endswith(".pt"):
                assert content == b""
            assert b".py" not in content, name


def test_a_pickle_would_be_found(rows, tmp_path, monkeypatch):
    def save(program, buffer, extra_files):
        pickled = io.BytesIO()
        torch.save([1], pickled)
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("data/sample_inputs/model.pt", pickled.getvalue())

    monkeypatch.setattr(torch.export, "save", save)
    with pytest.raises(InputError, match="would put a pickle"):
        export_head(make_head(), tmp_path / "head.pt2", rows)
    assert list(tmp_path.iterdir()) == []


def test_an_example_that_stays_would_be_a_pickle(rows, tmp_path, monkeypatch):
    # as in older versions of torch
    def refuse(program, value):
        raise ValueError("Example inputs should be a tuple")

    example = property(lambda program: program._example_inputs, refuse)
    monkeypatch.setattr(torch.export.ExportedProgram, "example_inputs", example)
    with pytest.raises(InputError, match=r"a pickle into a \.pt2 file \(its example input\)"):
        export_head(make_head(), tmp_path / "head.pt2", rows)
    assert list(tmp_path.iterdir()) == []


LOADERS = {
    ".onnx": "import onnxruntime; head = onnxruntime.InferenceSession('head.onnx')\n"
    "labels = head.run(None, {'features': features})[0].argmax(1)\n"
    "assert 'torch' not in sys.modules",
    ".pt2": "import torch; head = torch.export.load('head.pt2').module()\n"
    "labels = head(torch.from_numpy(features)).argmax(1)",
}


def test_loaded_without_this_package(rows, exported_as, tmp_path):
    endings = list(LOADERS) if find_spec("onnxscript") and find_spec("onnxruntime") else [".pt2"]
    lines = ["import sys; sys.modules['moevoprune'] = None", "import numpy as np; features = np.load('rows.npy')"]
    for ending in endings:
        shutil.copy(exported_as(ending).path, tmp_path)
        lines += [LOADERS[ending], "print(*np.asarray(labels).tolist())"]
    lines.append("assert not any(name.startswith('moevoprune.') for name in sys.modules)")
    np.save(tmp_path / "rows.npy", rows)
    # one interpreter for both: starting it, and importing torch, is most of the time
    code = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels = " ".join(str(label) for label in oracle(HEAD, rows).argmax(axis=1))
    assert done.stdout.splitlines() == [labels] * len(endings)


# --- with a backbone -------------------------------------------------------------------------------------------


def first_blocks(count):
    """MobileNetV2, cut early."""
    layer = f"features.{count}"
    return load_backbone(
        BackboneSettings(name="mobilenet_v2", args={"width_mult": 0.35}, weights="none", layer=layer, crop=32)
    )


@pytest.fixture(scope="module")
def backbone():
    return first_blocks(1)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_image_in_class_out(ending, backbone, tmp_path):
    needs(ending)
    images = np.random.default_rng(3).random((4, 3, 32, 32), dtype=np.float32)
    head = make_head(n_features=backbone.feature_size, inputs=(0, 2, 3, 7))
    exported = export_head(head, tmp_path / f"fused{ending}", images, backbone=backbone, batches=BATCHES)
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    features = backbone.features(torch.from_numpy(((images - mean) / std).astype(np.float32))).numpy()
    for count in (1, 3):
        np.testing.assert_allclose(
            run_file(exported.path, images[:count]), oracle(head, features[:count]), atol=1e-5
        )
    assert exported.n_agreeing == 4
    assert exported.rounding < 1e-5
    assert exported.backbone_parameters == sum(p.numel() for p in backbone.to_module().parameters())
    # the first convolution alone: 3 x 3 x 3 weights for each of 16 x 16 places and 16 channels
    assert exported.backbone_multiply_adds > 27 * 16 * 16 * 16


def test_rounding_of_the_backbone_is_allowed_for(backbone, tmp_path, monkeypatch):
    images = np.random.default_rng(3).random((2, 3, 32, 32), dtype=np.float32)
    head = make_head(n_features=backbone.feature_size, inputs=(0, 2, 3, 7))
    # features that hardly vary, stretched to a deviation of 1: the logits see the rounding
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    features = backbone.features((torch.from_numpy(images) - mean) / std).numpy()[:, head.inputs]
    head = replace(head, mean=features.mean(axis=0), scale=features.std(axis=0))
    opened, contents = formats.open_exported, []

    def encode(*arguments):
        # the same three times
        contents.append(contents[0] if contents else formats.encode(*arguments))
        return contents[-1]

    monkeypatch.setattr(exporting, "encode", encode)

    def export(error):
        def slightly_off(path):
            predictor = opened(path)
            return lambda rows: predictor(rows) + error

        monkeypatch.setattr(exporting, "open_exported", slightly_off)
        return export_head(head, tmp_path / "fused.pt2", images, backbone=backbone, batches=BATCHES)

    # two convolutional blocks round by much less than that
    with pytest.raises(InputError, match="or export the head without its backbone"):
        export(np.float32(3e-5))
    # a network that rounds by more, up to the cap
    monkeypatch.setattr(exporting, "_ROUNDINGS", 1e9)
    assert export(np.float32(3e-5)).difference == pytest.approx(3e-5, rel=0.1)
    with pytest.raises(InputError, match=r"more than 0\.0001"):
        export(np.float32(2e-4))


def test_folded_norms_compute_the_same():
    network = first_blocks(3).to_module()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tuple(buffer.shape))))
        images = torch.from_numpy(rng.normal(size=(2, 3, 32, 32)).astype(np.float32))
        folded = with_folded_norms(network)
        torch.testing.assert_close(folded(images), network(images), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_a_backbone_of_another_width(backbone, tmp_path):
    images = np.zeros((1, 3, 32, 32), np.float32)
    with pytest.raises(InputError, match="the backbone gives"):
        export_head(make_head(), tmp_path / "head.pt2", images, backbone=backbone)
    head = make_head(n_features=backbone.feature_size)
    with pytest.raises(InputError, match=r"give \(n, 3, 32, 32\)"):
        export_head(head, tmp_path / "head.pt2", images[:, :, 1:], backbone=backbone)
    for ending, inputs, words in ((".safetensors", "all", "no network"), (".pt2", "active", "takes images")):
        with pytest.raises(InputError, match=words):
            export_head(head, tmp_path / f"head{ending}", images, backbone=backbone, inputs=inputs)


# --- what cannot be exported -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pt2", ".safetensors"])
def test_a_file_that_differs_is_not_written(ending, rows, tmp_path, monkeypatch):
    path = tmp_path / f"head{ending}"
    path.write_text("earlier")
    opened = formats.open_exported

    def slightly_off(path):
        predictor = opened(path)
        return lambda rows: predictor(rows) + np.float32(3e-5)

    monkeypatch.setattr(exporting, "open_exported", slightly_off)
    with pytest.raises(InputError, match=r"would differ from the head by 3e-05"):
        export_head(make_head(), path, rows)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(exporting, "open_exported", lambda path: lambda rows: np.full((len(rows), 3), np.nan))
    with pytest.raises(InputError, match="would differ"):
        export_head(make_head(), path, rows)


def test_without_the_extra(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'moevoprune\[onnx\]'"):
        export_head(make_head(), tmp_path / "head.onnx", rows)


@pytest.mark.parametrize("name", ["head", "head.onx", "head.pt", "head.tflite"])
def test_unknown_endings(name, tmp_path):
    with pytest.raises(InputError, match="the ending chooses the format"):
        format_of(tmp_path / name)


def test_what_does_not_fit(rows, tmp_path):
    head = make_head()
    path = tmp_path / "head.safetensors"
    for wrong in (rows[:, 1:], rows[:0], rows[0]):
        with pytest.raises(InputError, match=r"give \(n, 20\)"):
            export_head(head, path, wrong, batches=BATCHES)
    with pytest.raises(InputError, match="leave inputs out"):
        export_head(head, path, rows, inputs="active")
    with pytest.raises(InputError, match="has diverged"):
        export_head(replace(head, weights=(head.weights[0] * np.nan, head.weights[1])), path, rows)
    with pytest.raises(InputError, match="cannot be written"):
        export_head(head, tmp_path / "nowhere" / "head.safetensors", rows)
    assert list(tmp_path.iterdir()) == []


def test_latencies_are_medians_of_each_model_in_turn():
    calls = []
    times = latencies(
        [lambda rows: calls.append("a") or rows, lambda rows: calls.append("b") or rows],
        [np.zeros((1, 1), np.float32)] * 2,
        seconds=0.01,
    )
    assert len(times) == 2
    assert min(times) > 0
    # neither is done before the other has begun
    assert calls.index("b") < len(calls) - 1 - calls[::-1].index("a")


# --- for real --------------------------------------------------------------------------------------------------


def test_fewer_parameters_in_proportion_to_the_active_features(small_features, quick_head, tmp_path):
    assert isinstance(small_features, FeatureSet)
    front = evolve(PruningProblem(small_features, head=quick_head, cv=2, seed=1), pop_size=8, n_gen=2, seed=1)
    knee = front.knee()
    exported = export_head(
        front.heads[knee],
        tmp_path / "head.safetensors",
        small_features.X_test,
        dense=front.dense_head,
        batches=BATCHES,
    )
    assert exported.n_inputs == front.active[knee]
    # 8 hidden units and 3 outputs stay
    fixed = 8 + 8 * 3 + 3
    assert (exported.head.parameters - fixed) / (exported.dense.parameters - fixed) == front.active[knee] / 14
