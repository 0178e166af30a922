"""The formats of exported files: how each is written, and how it is read again without this package's heads."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.errors import InputError, nearest, words_of
from moevoprune.features.free_memory import check_whole_file
from moevoprune.files import ordered_safetensors
from moevoprune.fronts.export.modules import HeadModule
from moevoprune.heads.ensemble import HeadEnsemble

__all__ = ["FORMATS", "Predictor", "check_installed", "encode", "format_of", "open_exported"]

Floats = npt.NDArray[np.float32]
Predictor = Callable[[Floats], Floats]

FORMATS: dict[str, str] = {".safetensors": "safetensors", ".onnx": "ONNX", ".pt2": "PyTorch (torch.export)"}
"""What each ending stands for."""

_BATCH = "batch"
_METADATA_FILE = "metadata.json"
# what torch notes for debugging: source lines and paths of the machine that exported
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
# what protobuf, and with it ONNX, can hold in one file
_MOST_ONNX_BYTES = 2**31 - 1


def format_of(path: Path) -> str:
    """Ending of a file name, if it is one of :data:`FORMATS`.

    Raises
    ------
    InputError
        It is not.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise InputError(f"{path}: the ending chooses the format{nearest(ending, FORMATS)}: {', '.join(FORMATS)}")
    return ending


# imported, it would put a number for this machine and a database into the user's home, and report its use to its
# makers; who wants that says so in the environment
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def check_installed(ending: str) -> None:
    """Make sure that what writing a format takes is installed.

    Parameters
    ----------
    ending
        A key of :data:`FORMATS`.

    Raises
    ------
    InputError
        A package is missing.
    """
    if ending == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if not _is_installed(package):
                raise InputError(f"ONNX files need the package {package}: pip install 'moevoprune[onnx]'")


def encode(
    ending: str,
    module: nn.Module,
    example: Tensor,
    names: tuple[str, str],
    metadata: Mapping[str, str],
    advice: str = "export the head without its backbone",
) -> bytes:
    """Turn a module into the content of a file.

    Parameters
    ----------
    ending
        A key of :data:`FORMATS`.
    module
        In evaluation mode. A head or an ensemble for ``.safetensors``, anything torch can export otherwise.
    example
        An input of at least two rows; the file will take any number of rows.
    names
        What input and output are called, where a format names them.
    metadata
        Stored in the file.
    advice
        What a user can do about a module that torch cannot export.

    Raises
    ------
    InputError
        The module cannot be exported to this format.
    """
    if ending == ".safetensors":
        return _safetensors(module, metadata)
    with _silence():
        try:
            program = torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim(_BATCH)},), strict=False
            )
        except Exception as error:  # torch raises whatever an operation it cannot trace raises
            raise InputError(
                f"this model cannot be exported by PyTorch {torch.__version__} ({words_of(error)}): {advice}, or "
                "use a newer PyTorch"
            ) from None
        for node in program.graph.nodes:
            for key in _TRACES:
                node.meta.pop(key, None)
        return _pt2(program, metadata) if ending == ".pt2" else _onnx(program, names, metadata)


def open_exported(path: Path) -> Predictor:
    """Load an exported file as a function from rows (or images) to outputs, on one thread of the CPU.

    Parameters
    ----------
    path
        A file that :func:`encode` gave the content of.

    Raises
    ------
    InputError
        The file is missing, damaged or another kind of file; or, from the function, it does not take such rows.
    """
    ending = format_of(path)
    openers = {".onnx": _open_onnx, ".pt2": _open_pt2, ".safetensors": _open_safetensors}
    try:
        check_whole_file(path)
        predictor = openers[ending](path)
    except Exception as error:  # untrusted bytes: each library raises kinds of its own
        raise InputError(f"{path}: cannot be opened as {FORMATS[ending]} ({words_of(error)})") from None

    def predict(rows: Floats) -> Floats:
        try:
            return predictor(rows)
        except Exception as error:
            raise InputError(f"{path}: cannot take input of shape {rows.shape} ({words_of(error)})") from None

    return predict


def _safetensors(module: nn.Module, metadata: Mapping[str, str]) -> bytes:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    if isinstance(module, HeadModule):
        tensors["inputs"] = module.inputs
        if not module.folded:
            tensors |= {"mean": module.mean, "scale": module.scale}
        linear = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
        for number, layer in enumerate(linear):
            tensors[f"weight{number}"] = layer.weight.detach().T
            if layer.bias is not None:
                tensors[f"bias{number}"] = layer.bias.detach()
    elif isinstance(module, HeadEnsemble):
        tensors = {name.removeprefix("_"): tensor for name, tensor in module.state_dict().items()}
        metadata = {**metadata, "voting": module.voting, "n_members": str(module.n_members)}
    else:
        raise InputError(".safetensors holds the tensors of a head and no network: use .onnx or .pt2")
    content: bytes = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata))
    return ordered_safetensors(content)


def _open_onnx(path: Path) -> Predictor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # errors only
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(rows: Floats) -> Floats:
        outputs: Floats = session.run(None, {name: rows})[0]
        return outputs

    return run


def _open_pt2(path: Path) -> Predictor:
    with _silence():
        loaded = torch.export.load(str(path)).module()
    return _on_arrays(loaded)


def _open_safetensors(path: Path) -> Predictor:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    t = load_file(str(path))
    classifies = metadata["task"] == "classification"
    reads_all = "inputs" in t and len(t["inputs"]) == int(metadata["n_features"])

    # the loaders of docs/export.md
    def head(features: Tensor) -> Tensor:
        x = features if reads_all else features[:, t["inputs"]]
        if "mean" in t:
            x = (x - t["mean"]) / t["scale"]
        layer = 0
        while f"weight{layer}" in t:
            x = x.relu() if layer else x
            x = x @ t[f"weight{layer}"] + t.get(f"bias{layer}", 0)
            layer += 1
        return x.softmax(dim=1) if classifies else x

    def ensemble(features: Tensor) -> Tensor:
        members = int(metadata["n_members"])
        x = (features[:, t["read"]] - t["centre"]) / t["spread"]
        x = x @ t["weight0"] + t["bias0"]
        x = nn.functional.pad(x, (0, 1))[:, t["places"]].reshape(len(x), members, -1).transpose(0, 1)
        layer = 1
        while f"weight{layer}" in t:
            x = x.relu() @ t[f"weight{layer}"] + t[f"bias{layer}"]
            layer += 1
        if not classifies:
            return (t["shares"] * x).sum(dim=0)
        probabilities: Tensor = (t["shares"] * x.softmax(dim=2)).sum(dim=0)
        if metadata["voting"] == "soft":
            return probabilities
        votes: Tensor = (t["shares"] * nn.functional.one_hot(x.argmax(dim=2), x.shape[2])).sum(dim=0)
        tied = votes >= votes.amax(dim=1, keepdim=True) - 1e-6
        winner = torch.where(tied, probabilities, -1.0).argmax(dim=1)
        return (votes + 1e-6 * nn.functional.one_hot(winner, votes.shape[1])) / (1 + 1e-6)

    return _on_arrays(ensemble if "voting" in metadata else head)


def _on_arrays(forward: Callable[[Tensor], Tensor]) -> Predictor:
    def run(rows: Floats) -> Floats:
        outputs: Floats = forward(torch.from_numpy(rows)).numpy()
        return outputs

    return run


def _pt2(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    try:
        # the example would be stored, as a pickle
        program.example_inputs = None
    except Exception:  # older versions insist on one
        pickled = ["its example input"]
    else:
        torch.export.save(
            program, buffer, extra_files={_METADATA_FILE: json.dumps(dict(metadata), ensure_ascii=False)}
        )
        pickled = _pickles_in(buffer.getvalue())
    if pickled:
        raise InputError(
            f"PyTorch {torch.__version__} would put a pickle into a .pt2 file ({pickled[0]}), which can run code "
            "when it is loaded: update PyTorch, or use .onnx or .safetensors"
        )
    return buffer.getvalue()


def _pickles_in(content: bytes) -> list[str]:
    """Names of the pickles in an archive, and of the archives in it, which torch keeps pickles in."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [
            name
            for name in archive.namelist()
            if name.endswith(".pkl") or archive.read(name).startswith(b"PK\x03\x04")
        ]


def _onnx(program: torch.export.ExportedProgram, names: tuple[str, str], metadata: Mapping[str, str]) -> bytes:
    import onnx

    converted = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=[names[0]],
        output_names=[names[1]],
        verbose=False,
        external_data=False,
        optimize=True,
    )
    try:
        model = converted.model_proto  # type: ignore[union-attr]
        if model.ByteSize() > _MOST_ONNX_BYTES:
            raise ValueError
    except ValueError:
        raise InputError("the model is larger than the 2 GB that one ONNX file can hold: use .pt2") from None
    _clean(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    model.producer_name = "moevoprune"
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _clean(graph: Any) -> None:
    """Remove notes for debugging, which are half of a small file."""
    del graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a specification
        return False


@contextmanager
def _silence(loggers: Sequence[str] = ("torch", "onnxscript", "onnx_ir")) -> Iterator[None]:
    """Keep what torch says while it exports from the terminal: progress, advice to developers, deprecations."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
