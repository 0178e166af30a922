"""All settings of a filter pruning run, as a file can hold them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moevoprune.errors import InputError, describe_validation_error, nearest
from moevoprune.filters.networks import FAMILIES
from moevoprune.filters.objectives import DEFAULT_FILTER_OBJECTIVES
from moevoprune.filters.training import TuningSettings
from moevoprune.search.algorithms import ALGORITHMS, DEFAULT_ALGORITHM

__all__ = ["DEFAULT_BUDGET", "PruningSettings"]

DEFAULT_BUDGET = 200
"""Evaluations of each search where nothing else is asked for."""

_LARGEST_SEED = 2**31 - 1
_QUALITIES = ("error", "accuracy")
_COSTS = ("flops", "parameters", "latency")


class PruningSettings(BaseModel):
    """What a filter pruning run depends on, besides the content of its files.

    Parameters
    ----------
    data
        What :func:`moevoprune.filters.images.load_images` takes.
    size, root, skip_bad
        Of folders and data sets, as there.
    networks
        Names for :func:`moevoprune.filters.networks.build_network`, all different.
    weights
        File of the weights of the one network; None to train the networks from random weights.
    mean, std
        What the network's inputs were normalised by, a number for each channel; None for the training images' own.
    objectives
        As for :class:`~moevoprune.filters.problem.FilterPruningProblem`, by name: first ``error`` or ``accuracy``,
        then others, among them at least one of ``flops``, ``parameters`` and ``latency``.
    algorithms
        Searches by name, all different.
    budget, gens
        Evaluations of each search, or its generations; without either 200 evaluations.
    pop
        Individuals per generation; None for each search's own.
    search_epochs, search_images
        Training of candidates before they are scored: epochs, of which 0 leaves new batch-norm statistics only;
        and images, of which 0 stands for all that do not score them.
    epochs
        Final training of the networks chosen, of the originals and of the baselines.
    learning_rate
        First step size of both.
    augment
        Of the final training, as there.
    distil
        Whether what is trained is also taught the original network's answers.
    baselines
        Whether magnitude pruning is set beside the knee.
    keep
        Modules whose filters are kept whole.
    seed, seeds
        The first seed, and how many.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    export
        ``"onnx"``, ``"pt2"`` or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: str = "digits"
    size: int | None = Field(default=None, ge=1)
    root: str | None = None
    skip_bad: bool = False
    networks: tuple[str, ...] = Field(default=tuple(FAMILIES), min_length=1)
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    objectives: tuple[str, ...] = DEFAULT_FILTER_OBJECTIVES
    algorithms: tuple[str, ...] = Field(default=(DEFAULT_ALGORITHM,), min_length=1)
    budget: int | None = Field(default=None, ge=1, le=1_000_000_000)
    gens: int | None = Field(default=None, ge=1, le=10_000_000)
    pop: int | None = Field(default=None, ge=4, le=100_000)
    search_epochs: int = Field(default=1, ge=0)
    search_images: int = Field(default=256, ge=0)
    epochs: int = Field(default=10, ge=0)
    learning_rate: float = Field(default=0.02, gt=0, allow_inf_nan=False)
    augment: Literal["none", "shift", "flip"] = "none"
    distil: bool = False
    baselines: bool = True
    keep: tuple[str, ...] = ()
    seed: int = Field(default=1, ge=0, le=_LARGEST_SEED)
    seeds: int = Field(default=1, ge=1, le=1000)
    device: str = "auto"
    export: Literal["onnx", "pt2"] | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> PruningSettings:
        for what, names in (("network", self.networks), ("algorithm", self.algorithms)):
            twice = [name for number, name in enumerate(names) if name in names[:number]]
            if twice:
                raise ValueError(f"the {what} {twice[0]!r} is named twice: name it once")
        for name in self.algorithms:
            if name not in ALGORITHMS:
                hint = nearest(name, ALGORITHMS)
                raise ValueError(f"unknown algorithm {name!r}{hint}: use one of {', '.join(ALGORITHMS)}")
        if self.budget is not None and self.gens is not None:
            raise ValueError("budget and gens both end the searches: give one of them")
        if self.weights is not None and len(self.networks) > 1:
            raise ValueError("weights are those of one network: name one network, with its weights")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both or neither")
        if self.objectives[:1] not in [(name,) for name in _QUALITIES] or not set(_COSTS) & set(self.objectives):
            raise ValueError(
                f"the objectives {','.join(self.objectives)} do not weigh error against cost: name error (or "
                f"accuracy) first, and at least one of {', '.join(_COSTS)}"
            )
        return self

    @classmethod
    def checked(cls, values: dict[str, Any]) -> PruningSettings:
        """Make settings of plain values.

        Raises
        ------
        InputError
            One of them cannot be used; the message says which and why.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "value_error" and not first["loc"]:
                raise InputError(str(first["ctx"]["error"])) from None
            raise InputError(describe_validation_error(error, "settings", lambda _: cls.model_fields)) from None

    @property
    def cost_column(self) -> int:
        """Which objective is the cost: FLOPs, where they are among them."""
        return self.objectives.index(next(name for name in _COSTS if name in self.objectives))

    @property
    def end(self) -> dict[str, int | None]:
        """Generations and evaluations after which a search ends, as ``run_search`` takes them."""
        budget = DEFAULT_BUDGET if self.gens is None and self.budget is None else self.budget
        return {"n_gen": self.gens, "budget": budget}

    @property
    def search_tuning(self) -> TuningSettings:
        """How candidates are trained."""
        return TuningSettings(epochs=self.search_epochs, learning_rate=self.learning_rate)

    @property
    def final_tuning(self) -> TuningSettings:
        """How the networks chosen, the originals and the baselines are trained."""
        return TuningSettings(epochs=self.epochs, learning_rate=self.learning_rate, augment=self.augment)
