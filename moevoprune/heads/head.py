"""A trained head on its own: physically small, with everything it needs to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.trainer import HeadStack

if TYPE_CHECKING:
    import torch

__all__ = ["TrainedHead"]

Floats = npt.NDArray[np.float32]

# a row's last digits may depend on the others beside it: the same for rows in memory and on disk
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head that reads only its active features and holds only its active units.

    Attributes
    ----------
    task
        ``"classification"`` or ``"regression"``.
    n_features
        Width of the feature rows it is given.
    inputs
        Sorted indices of the features it reads, shape (inputs,).
    weights
        One array (inputs, units) per layer.
    biases
        One array (units,) per layer, or None.
    mean, scale
        Standardisation of the features it reads, shape (inputs,).
    target_mean, target_scale
        Standardisation of the targets, shape (outputs,); None for classification.
    """

    task: Literal["classification", "regression"]
    n_features: int
    inputs: npt.NDArray[np.int64]
    weights: tuple[Floats, ...]
    biases: tuple[Floats | None, ...]
    mean: Floats
    scale: Floats
    target_mean: Floats | None = None
    target_scale: Floats | None = None

    @classmethod
    def from_stack(cls, stack: HeadStack, index: int, scaling: Scaling) -> TrainedHead:
        """Take one head out of a stack that the population trainer trained."""
        inputs = stack.mask.inputs
        return cls(
            task="classification" if scaling.target_mean is None else "regression",
            n_features=len(scaling.mean),
            inputs=inputs,
            weights=tuple(w[index].float().cpu().numpy() for w in stack.weights),
            biases=tuple(None if b is None else b[index].float().cpu().numpy() for b in stack.biases),
            mean=scaling.mean[inputs],
            scale=scaling.scale[inputs],
            target_mean=scaling.target_mean,
            target_scale=scaling.target_scale,
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from the inputs to the outputs."""
        return (len(self.inputs), *(w.shape[1] for w in self.weights))

    @property
    def n_parameters(self) -> int:
        """Weights that are not zero, and biases."""
        weights = sum(int(np.count_nonzero(w)) for w in self.weights)
        return weights + sum(len(b) for b in self.biases if b is not None)

    def hidden(self, features: npt.NDArray[np.floating]) -> Floats:
        """Last hidden representation, shape (rows, units); the outputs where there is no hidden layer."""
        return self._forward(features)[1]

    def outputs(self, features: npt.NDArray[np.floating]) -> Floats:
        """Logits, or predicted targets in their own units; shape (rows, outputs).

        Parameters
        ----------
        features
            Rows as the backbone gives them, all of its features, shape (rows, n_features).

        Raises
        ------
        InputError
            The rows have another width.
        """
        return self._forward(features)[0]

    def predict(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.generic]:
        """Class labels, shape (rows,), or predicted targets, shape (rows, outputs)."""
        outputs = self.outputs(features)
        return outputs if self.task == "regression" else outputs.argmax(axis=1)

    def predict_proba(self, features: npt.NDArray[np.floating]) -> Floats:
        """Class probabilities, shape (rows, classes)."""
        if self.task == "regression":
            raise InputError("a regression head has no class probabilities: use predict")
        logits = self.outputs(features)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities

    def prepare(self, features: npt.NDArray[np.floating]) -> Floats:
        """Features as the first layer reads them, standardised; shape (rows, inputs).

        Parameters
        ----------
        features
            Rows as the backbone gives them, all of its features, shape (rows, n_features).

        Raises
        ------
        InputError
            The rows have another width.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise InputError(
                f"features have shape {features.shape}, but this head reads rows of {self.n_features} features"
            )
        # out-of-distribution rows may be too large for float32 once they are divided
        with np.errstate(over="ignore"):
            prepared: Floats = (features[:, self.inputs].astype(np.float32) - self.mean) / self.scale
        return prepared

    def to_module(self, prepared: bool = False) -> torch.nn.Sequential:
        """Return a plain torch module on the active features only, with the standardisation folded in.

        Its input has shape (rows, inputs): ``features[:, head.inputs]``.

        Parameters
        ----------
        prepared
            Leave the standardisation of the features out: the input is :meth:`prepare`'s.
        """
        import torch

        weights, biases = list(self.weights), list(self.biases)
        if not prepared:
            first_bias = biases[0]
            folded = weights[0] / self.scale[:, None]
            shift: Floats = (-(self.mean / self.scale) @ weights[0]).astype(np.float32)
            weights[0] = folded
            biases[0] = shift if first_bias is None else first_bias + shift
        if self.target_scale is not None and self.target_mean is not None:
            weights[-1] = weights[-1] * self.target_scale
            last_bias = biases[-1]
            last_bias = np.zeros(len(self.target_mean), np.float32) if last_bias is None else last_bias
            biases[-1] = last_bias * self.target_scale + self.target_mean
        modules: list[torch.nn.Module] = []
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            # made without content: the default start would draw from torch's global generator
            linear = torch.nn.Linear(1, 1, bias is not None, device="meta")
            linear.in_features, linear.out_features = weight.shape
            linear.weight = torch.nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight.T)))
            if bias is not None:
                linear.bias = torch.nn.Parameter(torch.from_numpy(bias.copy()))
            modules.append(linear)
            if layer < len(weights) - 1:
                modules.append(torch.nn.ReLU())
        return torch.nn.Sequential(*modules).eval()

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return plain named arrays, e.g. for safetensors; :meth:`from_arrays` reads them."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "n_features": np.array([self.n_features], dtype=np.int64),
            "inputs": self.inputs,
            "mean": self.mean,
            "scale": self.scale,
        }
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            arrays[f"weight{layer}"] = weight
            if bias is not None:
                arrays[f"bias{layer}"] = bias
        if self.target_mean is not None and self.target_scale is not None:
            arrays["target_mean"] = self.target_mean
            arrays["target_scale"] = self.target_scale
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> TrainedHead:
        """Rebuild a head from :meth:`to_arrays`.

        Raises
        ------
        InputError
            An array is missing or the shapes do not fit together.
        """
        missing = {"n_features", "inputs", "mean", "scale", "weight0"} - set(arrays)
        if missing:
            raise InputError(f"a stored head lacks the array {sorted(missing)[0]!r}: the file is incomplete")
        n_layers = sum(name.startswith("weight") for name in arrays)
        weights = [_float32(arrays, f"weight{i}") for i in range(n_layers)]
        _check_arrays(arrays, weights)
        return cls(
            task="regression" if "target_mean" in arrays else "classification",
            n_features=int(arrays["n_features"][0]),
            inputs=arrays["inputs"].astype(np.int64),
            weights=tuple(weight for weight in weights if weight is not None),
            biases=tuple(_float32(arrays, f"bias{i}") for i in range(n_layers)),
            mean=arrays["mean"].astype(np.float32),
            scale=arrays["scale"].astype(np.float32),
            target_mean=_float32(arrays, "target_mean"),
            target_scale=_float32(arrays, "target_scale"),
        )

    def _forward(self, features: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
        features = np.asarray(features)
        if features.ndim < 2:
            # refused with the words for it
            self.prepare(features)
        # rows on disk stay there, but for some
        pieces = [features[start : start + _ROWS_AT_ONCE] for start in range(0, len(features), _ROWS_AT_ONCE)]
        if len(pieces) < 2:
            return self._forward_piece(features)
        outputs, hidden = zip(*map(self._forward_piece, pieces), strict=True)
        return np.concatenate(outputs), np.concatenate(hidden)

    def _forward_piece(self, features: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
        values = self.prepare(features)
        hidden = values
        # a diverged head gives infinities and NaN; that is its answer, not a mistake to warn of
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                hidden = values
                values = values @ weight if bias is None else values @ weight + bias
                if layer < len(self.weights) - 1:
                    values = np.maximum(values, 0.0)
            outputs = values
            if self.target_scale is not None and self.target_mean is not None:
                outputs = values * self.target_scale + self.target_mean
        return outputs, hidden if len(self.weights) > 1 else outputs


def _float32(arrays: Mapping[str, npt.NDArray[np.generic]], name: str) -> Floats | None:
    return arrays[name].astype(np.float32) if name in arrays else None


def _check_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], weights: list[Floats | None]) -> None:
    """Refuse stored arrays that cannot be one head."""
    matrices = [weight for weight in weights if weight is not None and weight.ndim == 2]
    inputs = arrays["inputs"]
    fits = len(matrices) == len(weights) and inputs.ndim == 1 and arrays["n_features"].shape == (1,)
    if fits:
        n_features = int(arrays["n_features"][0])
        rising = np.diff(inputs.astype(np.int64), prepend=-1, append=max(n_features, 0))
        fits = bool((rising > 0).all())
        widths = [len(inputs), *(matrix.shape[1] for matrix in matrices)]
        fits &= all(matrix.shape[0] == width for matrix, width in zip(matrices, widths[:-1], strict=True))
        shapes = {"mean": widths[0], "scale": widths[0], "target_mean": widths[-1], "target_scale": widths[-1]}
        shapes.update({f"bias{i}": width for i, width in enumerate(widths[1:])})
        fits &= all(arrays[name].shape == (width,) for name, width in shapes.items() if name in arrays)
        fits &= ("target_mean" in arrays) == ("target_scale" in arrays)
    if not fits:
        raise InputError("a stored head's arrays do not fit together: the file is damaged")
