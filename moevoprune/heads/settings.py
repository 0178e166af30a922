"""How a head is built and trained: one frozen, validated object and its presets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moevoprune.errors import preset_of

__all__ = ["PRESETS", "HeadSettings"]

# beyond this a typing mistake is likelier than a wish
_LARGEST_WIDTH = 65_536

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # EvoPruneDeepTL (arXiv 2202.03844) and MO-EvoPruneDeepTL (arXiv 2302.10253): one hidden layer of 512
    # ReLU units without bias, raw features, Keras' SGD with Nesterov momentum and early stopping.
    "paper": {
        "hidden": (512,),
        "bias": False,
        "start": "dense",
        "standardise": False,
        "optimiser": "sgd",
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "nesterov": True,
        "learning_rate_decay": 1e-6,
        "schedule": "constant",
        "epochs": 600,
        "batch_size": 32,
        "early_stop": "training",
        "patience": 10,
        "min_delta": 1e-5,
    },
}


class HeadSettings(BaseModel):
    """Architecture and training of a head.

    The defaults are the ``default`` preset; ``HeadSettings.preset("paper")`` is the published protocol.

    Parameters
    ----------
    hidden
        Widths of the hidden ReLU layers: none, one or two.
    bias
        Whether hidden layers have a bias. The output layer always has one, so that a head without a single
        active feature still learns the class prior.
    start
        Uniform Glorot start weights, with the fan-in counted over the ``"active"`` connections of the masked
        head, or over the ``"dense"`` head's as the papers do.
    standardise
        Subtract the training mean and divide by the training standard deviation, per feature (and per target
        in regression). The statistics become part of the trained head.
    optimiser
        ``"sgd"`` or ``"adam"``.
    learning_rate
        Step size, > 0.
    momentum
        SGD momentum in [0, 1).
    nesterov
        Nesterov's form of the momentum.
    weight_decay
        L2 penalty on all weights and biases, >= 0 (added to the gradient, as ``torch.optim`` does).
    learning_rate_decay
        Time-based decay of Keras: step ``t`` uses ``learning_rate / (1 + learning_rate_decay * t)``.
    schedule
        ``"constant"``, or ``"cosine"``: the learning rate falls to 0 along half a cosine over all epochs.
    epochs
        Passes over the training rows, at most.
    batch_size
        Rows per step; the last batch of an epoch may be smaller.
    early_stop
        ``"none"``, ``"training"`` (the running training loss) or ``"validation"`` (the loss on a stratified
        tenth of the head's own training rows, which are then not trained on; never the rows that score it).
    patience
        Epochs without a gain of ``min_delta`` before training stops. The best epoch's weights are restored.
    min_delta
        Smallest decrease of the loss that counts as a gain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hidden: tuple[int, ...] = (64,)
    bias: bool = True
    start: Literal["active", "dense"] = "dense"
    standardise: bool = True
    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    learning_rate_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["constant", "cosine"] = "cosine"
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=128, ge=1)
    early_stop: Literal["none", "training", "validation"] = "none"
    patience: int = Field(default=10, ge=1)
    min_delta: float = Field(default=1e-5, ge=0, allow_inf_nan=False)

    @field_validator("hidden", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        # TOML knows lists only, and one layer is often written as a bare number
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("hidden")
    @classmethod
    def _check_hidden(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) > 2:
            raise ValueError("give at most two hidden widths")
        if any(not 1 <= width <= _LARGEST_WIDTH for width in value):
            raise ValueError(f"give hidden widths between 1 and {_LARGEST_WIDTH}")
        return value

    @classmethod
    def preset(cls, name: str, **changes: Any) -> HeadSettings:
        """Build the settings of a preset, with some of them changed.

        Parameters
        ----------
        name
            ``"default"`` or ``"paper"``.
        **changes
            Settings that differ from the preset.

        Raises
        ------
        InputError
            The preset or a setting is unknown, or a value is out of range.
        """
        return preset_of(cls, PRESETS, "head", name, changes)

    def learning_rates(self, steps_per_epoch: int) -> list[float]:
        """Step sizes of all steps of all epochs, in order."""
        import math

        total = self.epochs * steps_per_epoch
        rates = []
        for step in range(total):
            rate = self.learning_rate / (1.0 + self.learning_rate_decay * step)
            if self.schedule == "cosine":
                rate *= 0.5 * (1.0 + math.cos(math.pi * step / total))
            rates.append(rate)
        return rates
