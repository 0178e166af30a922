"""Write a head as a file, read it again, and say what it costs."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from moevoprune.device import reproducible
from moevoprune.errors import InputError, words_of
from moevoprune.files import atomic_path
from moevoprune.fronts.export.formats import FORMATS, Predictor, check_installed, encode, format_of, open_exported
from moevoprune.fronts.export.measuring import latencies
from moevoprune.fronts.export.modules import (
    FusedModule,
    Inputs,
    compact_head,
    count_multiply_adds,
    module_of,
    multiply_adds,
    with_folded_norms,
)
from moevoprune.heads.ensemble import HeadEnsemble, head_is_sound
from moevoprune.heads.head import TrainedHead

if TYPE_CHECKING:
    from moevoprune.features.backbones import Backbone

__all__ = ["TOLERANCE", "Exported", "Numbers", "export_head", "random_rows"]

Head = TrainedHead | HeadEnsemble
Floats = npt.NDArray[np.float32]

TOLERANCE = 1e-5
"""Largest difference between an exported file and the head it was made from."""

# A deep network in float32 rounds, differently under each runtime: the probabilities of a MobileNetV2 under
# PyTorch are 4e-6 off 64-bit arithmetic, and 8e-6 with the same images in another memory layout. A file with a
# backbone may differ from the original by this many times what the original itself is off, where that is more
# than the tolerance, but never by more than the cap.
_ROUNDINGS, _CAP = 4, 1e-4

_FORMAT = "moevoprune-export-1"


@dataclass(frozen=True)
class Numbers:
    """What an exported head costs.

    Attributes
    ----------
    parameters
        Weights of the head that are not zero, and biases.
    multiply_adds
        Multiplications with addition in the head's matrix products, for one row.
    n_bytes
        Size of the file.
    latency
        Median seconds of one call on one thread, by number of rows (or images) in it.
    """

    parameters: int
    multiply_adds: int
    n_bytes: int
    latency: Mapping[int, float]


@dataclass(frozen=True)
class Exported:
    """An exported file, checked.

    Attributes
    ----------
    path
        The file.
    format
        What its ending stands for.
    n_inputs, n_features
        How many features the head reads, of how many.
    difference
        Largest difference from the original on the rows of the check: in probabilities, or in predictions relative
        to the largest of that output.
    rounding
        In the same unit, how far the original's own float32 is from 64-bit arithmetic, for a file with a backbone:
        differences of this size say nothing about the export. None without a backbone.
    n_rows, n_agreeing
        Rows (or images) of the check, and how many of them get the same class; None in regression.
    head
        What it costs.
    dense
        What the dense head costs, exported in the same way and measured in turn with it; None where not given.
    backbone_parameters, backbone_multiply_adds
        Of the network in front of the head, for one image; None where there is none in the file.
    """

    path: Path
    format: str
    n_inputs: int
    n_features: int
    difference: float
    rounding: float | None
    n_rows: int
    n_agreeing: int | None
    head: Numbers
    dense: Numbers | None
    backbone_parameters: int | None = None
    backbone_multiply_adds: int | None = None


def export_head(
    head: Head,
    path: str | Path,
    rows: npt.NDArray[np.floating[Any]],
    *,
    inputs: Inputs = "all",
    dense: TrainedHead | None = None,
    backbone: Backbone | None = None,
    class_names: Sequence[str] = (),
    member: str = "",
    batches: Sequence[int] = (1, 256),
) -> Exported:
    """Write a head, or an ensemble of heads, as a small file of its own.

    The file takes a batch of any size, in float32. It gives class probabilities, shape (rows, classes), called
    ``probabilities``, or with hard voting shares of votes; for regression heads predicted targets in their own
    units, shape (rows, outputs), called ``predictions``. It is read again and compared with the head before it
    gets its name.

    Parameters
    ----------
    head
        What to export.
    path
        Its ending chooses the format: ``.safetensors``, ``.onnx`` or ``.pt2``. Its folder must exist.
    rows
        What the file is checked and timed with, at least one: feature rows as the backbone gives them, shape
        (rows, n_features); with `backbone`, images as the file is to take them, see there.
    inputs
        ``"all"``: the file takes rows of all features, called ``features``. ``"active"``: it takes the columns
        ``head.inputs`` alone, shape (rows, inputs).
    dense
        The unpruned head, to compare with: exported in the same way to a file that is not kept.
    backbone
        On the CPU. The file then holds it in front of the head and takes ``images``: RGB, resized and cropped as
        its preprocessing does, values in [0, 1], shape (images, 3, crop, crop). They are normalised in the file.
    class_names
        Stored in the file.
    member
        What the head is called, stored in the file.
    batches
        Numbers of rows to measure the latency with, about a second each; none to leave that out.

    Returns
    -------
    Exported
        The file, and what it costs.

    Raises
    ------
    InputError
        The format is unknown or lacks a package; the head has diverged; the rows do not fit; the file cannot be
        written; or it does not give what the head gives.
    """
    path = Path(path)
    ending = format_of(path)
    check_installed(ending)
    if backbone is not None and ending == ".safetensors":
        raise InputError(f"{path}: .safetensors holds tensors and no network: use .onnx or .pt2 with a backbone")
    if inputs == "active" and ending == ".safetensors":
        raise InputError(
            f"{path}: .safetensors holds tensors, whatever rows they are applied to: leave inputs out"
        )
    if inputs == "active" and backbone is not None:
        raise InputError(f"{path}: a file with its backbone takes images: leave inputs out")
    # an ensemble has no members that are not
    if isinstance(head, TrainedHead) and not head_is_sound(head):
        raise InputError("this head has diverged, its weights are not finite: export another member")
    # a copy, since those of a FeatureSet are read-only, which torch warns of
    rows = np.array(rows, dtype=np.float32, order="C")
    task = _Task(ending, inputs, backbone, rows, tuple(class_names), tuple(batches))
    task.check_rows(head)
    small = compact_head(head) if isinstance(head, TrainedHead) else head
    expected, rounding = _expected(head, rows, backbone)
    allowed = TOLERANCE if rounding is None else max(TOLERANCE, min(_ROUNDINGS * rounding, _CAP))
    given = task.given(small)

    with atomic_path(path) as temporary, tempfile.TemporaryDirectory() as folder:
        predictor, n_bytes = task.write(small, temporary, member)
        obtained = _outputs(predictor, given)
        difference = _difference(obtained, expected, head.task)
        if not difference <= allowed:
            raise InputError(
                f"{path}: was not written: it would differ from the head by {difference:.2g} on the rows of the "
                f"check, more than {allowed:.2g}: use another format"
                + ("" if backbone is None else ", or export the head without its backbone")
            )
        predictors, measured = [predictor], [given]
        if dense is not None:
            dense_predictor, dense_bytes = task.write(dense, Path(folder) / f"dense{ending}", "dense")
            predictors.append(dense_predictor)
            measured.append(task.given(dense))
        times = {
            batch: latencies(predictors, [np.resize(array, (batch, *array.shape[1:])) for array in measured])
            for batch in task.batches
        }

    def numbers(index: int, of: Head, size: int) -> Numbers:
        return Numbers(of.n_parameters, multiply_adds(of), size, {n: times[n][index] for n in times})

    return Exported(
        path=path,
        format=FORMATS[ending],
        n_inputs=len(small.inputs),
        n_features=head.n_features,
        difference=difference,
        rounding=rounding,
        n_rows=len(rows),
        n_agreeing=None
        if head.task == "regression"
        else int((obtained.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        head=numbers(0, small, n_bytes),
        dense=None if dense is None else numbers(1, dense, dense_bytes),
        backbone_parameters=None if backbone is None else _count_parameters(backbone.to_module()),
        backbone_multiply_adds=None
        if backbone is None
        else count_multiply_adds(backbone.to_module(), torch.from_numpy(rows[:1])),
    )


def random_rows(head: TrainedHead, count: int, generator: np.random.Generator) -> Floats:
    """Draw feature rows that are distributed about as those that a head was trained on.

    Parameters
    ----------
    head
        Whose means and deviations are used; features that it does not read are standard normal.
    count
        How many rows.
    generator
        Source of randomness.

    Returns
    -------
    ndarray, shape (count, n_features)
    """
    rows = generator.standard_normal((count, head.n_features), dtype=np.float32)
    rows[:, head.inputs] = rows[:, head.inputs] * head.scale + head.mean
    return rows


@dataclass(frozen=True, eq=False)
class _Task:
    """What is the same for the head and the dense head beside it."""

    ending: str
    inputs: Inputs
    backbone: Backbone | None
    rows: Floats
    class_names: tuple[str, ...]
    batches: tuple[int, ...]

    def check_rows(self, head: Head) -> None:
        wanted: tuple[int, ...] = (head.n_features,)
        if self.backbone is not None:
            wanted = (3, *(self.backbone.preprocessing.crop,) * 2)
            if self.backbone.feature_size != head.n_features:
                raise InputError(
                    f"the backbone gives {self.backbone.feature_size} features, but the head reads rows of "
                    f"{head.n_features}"
                )
        if self.rows.shape[1:] != wanted or len(self.rows) == 0:
            shape = ", ".join(str(length) for length in wanted)
            raise InputError(f"rows of the check have shape {self.rows.shape}: give (n, {shape}), n at least 1")

    def given(self, head: Head) -> Floats:
        """What the file is given for the rows of the check."""
        return np.ascontiguousarray(self.rows[:, head.inputs]) if self.inputs == "active" else self.rows

    def write(self, head: Head, path: Path, member: str) -> tuple[Predictor, int]:
        """Write a file, whole, and open it; returns its size too."""
        module: nn.Module = module_of(head, self.inputs)
        if self.backbone is not None:
            network = self.backbone.to_module()
            if self.ending == ".onnx":
                network = with_folded_norms(network)
            module = FusedModule(network, self.backbone.preprocessing, module).eval()
        # a batch of one would be taken for a constant
        example = torch.from_numpy(np.resize(self.given(head), (2, *self.given(head).shape[1:])))
        names = (
            "features" if self.backbone is None else "images",
            "probabilities" if head.task == "classification" else "predictions",
        )
        content = encode(self.ending, module, example, names, self._metadata(head, member, names))
        path.write_bytes(content)
        return open_exported(path), len(content)

    def _metadata(self, head: Head, member: str, names: tuple[str, str]) -> dict[str, str]:
        metadata = {
            "format": _FORMAT,
            "task": head.task,
            "member": member,
            "input": names[0],
            "output": names[1],
            "n_features": str(head.n_features),
            "inputs": json.dumps(head.inputs.tolist()),
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
        }
        if self.backbone is not None:
            record = self.backbone.record()
            # not where the weights lie on this machine
            kept = {key: record[key] for key in ("name", "args", "weights_sha256", "layer", "preprocessing")}
            metadata["backbone"] = json.dumps(kept, ensure_ascii=False)
            metadata["input_is"] = "RGB images in [0, 1], resized and cropped, (images, 3, crop, crop)"
        elif self.inputs == "active":
            metadata["input_is"] = "the columns 'inputs' of the feature rows, in that order"
        else:
            metadata["input_is"] = "whole feature rows, (rows, n_features)"
        return metadata


def _expected(head: Head, rows: Floats, backbone: Backbone | None) -> tuple[Floats, float | None]:
    """What the head itself gives, and with a backbone how far that is from 64-bit arithmetic."""
    if backbone is None:
        return _predicted(head, rows), None
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    with reproducible(torch.device("cpu")):
        expected = _predicted(head, backbone.features(torch.from_numpy((rows - mean) / std)).cpu().numpy())
        exact = copy.deepcopy(backbone.to_module()).double()
        try:
            features = exact(torch.from_numpy((rows.astype(np.float64) - mean) / std)).numpy()
        except RuntimeError:  # a network that computes in float32 whatever it is given
            return expected, 0.0
    return expected, _difference(expected, _predicted(head, features.astype(np.float32)), head.task)


def _predicted(head: Head, rows: Floats) -> Floats:
    outputs: Floats = np.asarray(head.predict(rows) if head.task == "regression" else head.predict_proba(rows))
    return outputs


def _outputs(predictor: Predictor, rows: Floats) -> Floats:
    """Outputs of a file, for all rows at once and for the first alone."""
    try:
        with reproducible(torch.device("cpu")):
            outputs = predictor(rows)
            single = predictor(rows[:1])
    except Exception as error:  # whatever a runtime raises for a model it cannot run
        raise InputError(f"the exported file does not run ({words_of(error)}): use another format") from None
    if single.shape != outputs[:1].shape:
        raise InputError("the exported file does not take one row alone: use another format")
    return np.concatenate([single, outputs[1:]])


def _difference(obtained: Floats, expected: Floats, task: str) -> float:
    if obtained.shape != expected.shape:
        return float("inf")
    sizes = np.abs(obtained.astype(np.float64) - expected)
    if task == "regression":
        sizes /= np.maximum(np.abs(expected).max(axis=0), np.finfo(np.float32).tiny)
    return float(sizes.max())


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
