"""How a network is constructed: one frozen, validated object."""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moevoprune.construction.network import Training
from moevoprune.construction.variability import DEFAULT_MEASURE, MEASURES
from moevoprune.errors import InputError, describe_validation_error, nearest
from moevoprune.heads.batches import n_steps

__all__ = ["DECAYS", "EPSILONS", "ConstructionSettings"]

EPSILONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Thresholds that are tried, where none is given."""

DECAYS = (0.001, 0.01, 0.1, 1.0)
"""Weight decays that are tried, where none is given."""

_LARGEST_WIDTH = 65_536
# what trained well on sets of 15 to 1,347 rows: small ones need more epochs, not fewer steps
_STEPS, _FEWEST_EPOCHS = 600, 30
_RETRAINED_SHARE = 2
# fewer rows are split into folds twice, so that one row counts less
_REPEATED_BELOW, _REPEATS = 200, 2


class ConstructionSettings(BaseModel):
    """Shape and training of the large network, and how the small one is chosen.

    Parameters
    ----------
    hidden
        Widths of the large network's hidden layers, at least one.
    epsilons
        Thresholds of the variability that cross-validation chooses from, rising; one alone is not chosen but used.
    measure
        Measure of variability, see :data:`moevoprune.construction.variability.MEASURES`.
    epochs
        Passes over the rows that train the large network. None: as many as make 600 steps, at least 30.
    retrain_epochs
        Passes that retrain the small one. None: half of ``epochs``.
    learning_rate
        First step size of Adam, for training and retraining.
    weight_decay
        L2 penalty of training and retraining; None: the strongest of :data:`DECAYS` whose cross-validated score of
        the large network is at most ``tolerance`` below the best one's.
    batch_size
        Rows per step.
    cv
        Folds inside the training part; 1 for a hold-out of 25 %.
    repeats
        How often the rows are split into folds anew. None: 2 below 200 rows, else 1.
    tolerance
        The smallest network is chosen whose cross-validated score is at most this much below the best one's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hidden: tuple[int, ...] = (128, 128)
    epsilons: tuple[float, ...] = EPSILONS
    measure: str = DEFAULT_MEASURE
    epochs: int | None = Field(default=None, ge=1)
    retrain_epochs: int | None = Field(default=None, ge=0)
    learning_rate: float = Field(default=3e-3, gt=0, allow_inf_nan=False)
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    batch_size: int = Field(default=32, ge=1, le=1_000_000_000)
    cv: int = Field(default=5, ge=1)
    repeats: int | None = Field(default=None, ge=1)
    tolerance: float = Field(default=0.005, ge=0, allow_inf_nan=False)

    @field_validator("hidden")
    @classmethod
    def _check_hidden(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(not 1 <= width <= _LARGEST_WIDTH for width in value):
            raise ValueError(f"give one width or more, between 1 and {_LARGEST_WIDTH}")
        return value

    @field_validator("epsilons")
    @classmethod
    def _check_epsilons(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        rising = all(low < high for low, high in itertools.pairwise(value))
        if not value or not rising or not all(0 <= epsilon < float("inf") for epsilon in value):
            raise ValueError("give numbers of at least 0, rising")
        return value

    @field_validator("measure")
    @classmethod
    def _check_measure(cls, value: str) -> str:
        if value not in MEASURES:
            raise ValueError(f"unknown measure{nearest(value, MEASURES)}: use one of {', '.join(MEASURES)}")
        return value

    @classmethod
    def checked(cls, **settings: Any) -> ConstructionSettings:
        """Build settings of what a user gave; None stands for the default.

        Raises
        ------
        InputError
            A setting is unknown or out of range.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise InputError(
                describe_validation_error(error, "construction settings", lambda _: cls.model_fields)
            ) from None

    def n_epochs(self, n_rows: int) -> int:
        """Epochs of the large network on so many rows."""
        enough = -(-_STEPS // n_steps(n_rows, self.batch_size))
        return max(_FEWEST_EPOCHS, enough) if self.epochs is None else self.epochs

    def n_retrain_epochs(self, n_rows: int) -> int:
        """Epochs of the retraining on so many rows."""
        return self.n_epochs(n_rows) // _RETRAINED_SHARE if self.retrain_epochs is None else self.retrain_epochs

    def n_repeats(self, n_rows: int) -> int:
        """How often so many rows are split into folds."""
        if self.repeats is not None:
            return self.repeats
        return _REPEATS if n_rows < _REPEATED_BELOW else 1

    def training(self, n_rows: int, weight_decay: float) -> Training:
        """Training of the large network."""
        return self._training(self.n_epochs(n_rows), weight_decay)

    def retraining(self, n_rows: int, weight_decay: float) -> Training:
        """Retraining of a small network."""
        return self._training(self.n_retrain_epochs(n_rows), weight_decay)

    def longest_training(self, n_rows: int, weight_decay: float) -> Training:
        """Training with the epochs of the large network's training and of the retraining together."""
        return self._training(self.n_epochs(n_rows) + self.n_retrain_epochs(n_rows), weight_decay)

    def _training(self, epochs: int, weight_decay: float) -> Training:
        return Training(epochs, self.learning_rate, weight_decay, self.batch_size)
