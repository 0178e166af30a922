"""What a filter pruning run found out: the front of a search, the scores of networks, and their files."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, printable
from moevoprune.features.decoding import UnreadableImageError, open_regular
from moevoprune.features.npz_files import open_archive, read_array, write_array
from moevoprune.files import atomic_path, read_text, write_text
from moevoprune.fronts.tables import csv_text
from moevoprune.search.archive import hypervolume
from moevoprune.search.choices import ThreeChoices, three_choices

if TYPE_CHECKING:
    from moevoprune.filters.finishing import FinishedNetwork
    from moevoprune.filters.problem import FilterPruningProblem
    from moevoprune.search.loop import SearchResult

__all__ = [
    "CHOSEN",
    "FilterFront",
    "NetworkScore",
    "PruningResult",
    "SearchCost",
    "read_scores",
    "write_scores",
]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

CHOSEN = ("heavy", "knee", "light")
"""What the three networks are called, in the order of :class:`~moevoprune.search.choices.ThreeChoices`."""

# beyond it integers do not become floating point
_LARGEST = 1e300
_ARRAYS = ("masks", "values", "losses", "costs", "whole")


@dataclass(frozen=True, eq=False)
class FilterFront:
    """All non-dominated masks of a search over filters.

    Attributes
    ----------
    objectives
        Names of the objectives; the first is ``"error"`` or ``"accuracy"``.
    masks
        Filters that stay, shape (members, n_bits), fewest first.
    values, losses
        Their objective values as they are, and minimised; shape (members, n_obj).
    costs
        Their FLOPs for one image, and parameters; shape (members, 2).
    whole
        FLOPs, parameters and validation error of the whole network, the latter measured as that of the members;
        shape (3,).
    cost_column
        Which objective is the cost that the three networks are chosen by.
    """

    objectives: tuple[str, ...]
    masks: Bits
    values: Values
    losses: Values
    costs: Values
    whole: Values
    cost_column: int

    @classmethod
    def of(cls, result: SearchResult, problem: FilterPruningProblem, cost_column: int) -> FilterFront:
        """Take the front of a search; the whole network is measured as the members were."""
        names = tuple(objective.name for objective in problem.objectives)
        everything = np.ones((1, problem.n_var), np.bool_)
        error = _errors(names, problem.values(everything))[0]
        whole = np.array([problem.costs.flops, problem.costs.parameters, error], np.float64)
        costs = problem.costs(result.masks)
        return cls(names, result.masks, result.values, result.losses, costs, whole, cost_column)

    @property
    def errors(self) -> Values:
        """Validation errors of the members, in [0, 1]."""
        return _errors(self.objectives, self.values)

    @property
    def flops_shares(self) -> Values:
        """FLOPs of the members as shares of the whole network's."""
        shares: Values = self.costs[:, 0] / self.whole[0]
        return shares

    @property
    def choices(self) -> ThreeChoices:
        """The three networks of DeepPruningES, as numbers of members."""
        return three_choices(self.losses, self.cost_column)

    @property
    def hypervolume(self) -> float:
        """Area that validation error and share of FLOPs dominate up to the corner (1, 1)."""
        return hypervolume(np.stack([self.errors, self.flops_shares], axis=1), np.ones(2))

    def save(self, path: Path) -> None:
        """Write it as an .npz file; the same front gives the same bytes."""
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name in _ARRAYS:
                write_array(archive, name, getattr(self, name))

    @classmethod
    def load(cls, path: Path, objectives: Sequence[str], cost_column: int) -> FilterFront:
        """Read what :meth:`save` wrote, for a run with these objectives.

        Raises
        ------
        InputError
            The file is damaged, or of a run with others.
        """
        try:
            with open_regular(path) as file, open_archive(file) as archive:
                missing = [name for name in _ARRAYS if f"{name}.npy" not in archive.namelist()]
                if missing:
                    raise InputError(f"has no array {missing[0]!r}")
                arrays = {name: read_array(archive, name) for name in _ARRAYS}
        except (InputError, UnreadableImageError) as error:
            raise InputError(f"{printable(str(path))}: {error}") from None
        # a single value has no rows, and fits none of the shapes below
        members = arrays["masks"].shape[0] if arrays["masks"].ndim == 2 else 0
        shapes = {
            "values": (members, len(objectives)),
            "losses": (members, len(objectives)),
            "costs": (members, 2),
        }
        wrong = [name for name, shape in {**shapes, "whole": (3,)}.items() if arrays[name].shape != shape]
        wrong += [name for name in _ARRAYS if name != "masks" and not _are_numbers(arrays[name])]
        wrong += [
            name for name in ("costs", "whole") if name not in wrong and not (arrays[name][..., :2] > 0).all()
        ]
        if wrong or arrays["masks"].dtype != np.bool_ or members == 0:
            raise InputError(
                f"{printable(str(path))}: is not the front of a run with {len(objectives)} objectives"
            )
        return cls(tuple(objectives), **arrays, cost_column=cost_column)

    def to_csv(self) -> str:
        """One row per member, with the role of the three networks that are chosen."""
        roles: dict[int, list[str]] = {}
        for role, member in zip(CHOSEN, self.choices, strict=True):
            roles.setdefault(member, []).append(role)
        header = ("member", "role", "filters", "flops", "flops_share", "parameters", "parameters_share")
        further = [(place, name) for place, name in enumerate(self.objectives) if name not in _COUNTED]
        rows = [
            (
                member,
                "+".join(roles.get(member, [])),
                int(self.masks[member].sum()),
                int(flops),
                float(flops / self.whole[0]),
                int(parameters),
                float(parameters / self.whole[1]),
                *(float(self.values[member, place]) for place, _ in further),
            )
            for member, (flops, parameters) in enumerate(self.costs)
        ]
        return csv_text((*header, *(name for _, name in further)), rows)


def _are_numbers(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and not np.isnan(array).any()


# of the objectives, those that are columns anyway
_COUNTED = ("flops", "parameters")


def _errors(objectives: Sequence[str], values: Values) -> Values:
    first = values[:, 0]
    return first if objectives[0] == "error" else 1.0 - first


@dataclass(frozen=True)
class SearchCost:
    """What a search took.

    Attributes
    ----------
    evaluations
        Masks that the algorithm asked for, also repeated ones.
    seconds
        Over all its sessions, where it was interrupted.
    """

    evaluations: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> SearchCost:
        """Read what :meth:`save` wrote; nothing where there is no such file, or a damaged one."""
        try:
            stored = json.loads(read_text(path))
            cost = cls(int(stored["evaluations"]), float(stored["seconds"]))
            return cost if cost.evaluations >= 0 and 0 <= cost.seconds < math.inf else cls()
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return cls()


@dataclass(frozen=True)
class NetworkScore:
    """One network after the final training.

    Attributes
    ----------
    role
        ``"original"``, ``"original, tuned"``, ``"heavy"``, ``"knee"``, ``"light"``, ``"uniform L1"`` or
        ``"global magnitude"``.
    flops, parameters
        For one image, and in all.
    bytes
        Of its weights as a file.
    latency, latency_batch
        Seconds for one image, and for a batch of 64; medians.
    test_error, test_error_before
        Of the test images, in [0, 1]; after and before the final training.
    validation_error
        During the search; None for networks that no search found.
    """

    role: str
    flops: int
    parameters: int
    bytes: int
    latency: float
    latency_batch: float
    test_error: float
    test_error_before: float
    validation_error: float | None = None

    @classmethod
    def of(cls, finished: FinishedNetwork) -> NetworkScore:
        """Take the numbers of a finished network."""
        return cls(**{field.name: getattr(finished, field.name) for field in fields(cls)})


def write_scores(path: Path, scores: Iterable[NetworkScore]) -> None:
    """Write scores as JSON."""
    write_text(path, json.dumps([asdict(score) for score in scores], indent=1) + "\n")


def read_scores(path: Path) -> tuple[NetworkScore, ...]:
    """Read what :func:`write_scores` wrote.

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    try:
        stored = json.loads(read_text(path))
        scores = tuple(NetworkScore(**one) for one in stored)
        roles = [score.role for score in scores]
        whole = roles[:1] == ["original"] and set(CHOSEN) <= set(roles) and all(map(_is_whole, scores))
    except (OSError, ValueError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{printable(str(path))}: is missing or damaged")
    return scores


def _is_whole(score: NetworkScore) -> bool:
    numbers: list[Any] = [value for name, value in asdict(score).items() if name != "role" and value is not None]
    # shares of the first five are formed
    return (
        all(type(number) in (int, float) and 0 <= number < _LARGEST for number in numbers) and 0 not in numbers[:5]
    )


@dataclass(frozen=True, eq=False)
class PruningResult:
    """One network, pruned by one search with one seed.

    Attributes
    ----------
    network
        Name for tables.
    algorithm
        Name of the search.
    seed
        Of training, split and search.
    front, cost
        What the search found, and what it took.
    scores
        The networks after the final training.
    """

    network: str
    algorithm: str
    seed: int
    front: FilterFront
    cost: SearchCost
    scores: tuple[NetworkScore, ...]

    def score(self, role: str) -> NetworkScore | None:
        """The network of a role; None where there is none."""
        return next((score for score in self.scores if score.role == role), None)
