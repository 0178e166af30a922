"""Run folders as commands read them: a front, a member, a run's settings and data.

Commands import this module for ``--help`` too, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moevoprune.errors import InputError, whole_number
from moevoprune.fronts.run_folder import SETTINGS, entry, read_record

if TYPE_CHECKING:
    from moevoprune.cli.config import RunConfig
    from moevoprune.features import FeatureSet
    from moevoprune.fronts.front import Front

__all__ = [
    "ensemble_options",
    "load_front",
    "load_fronts",
    "member_of",
    "run_features",
    "run_settings",
]

_MOST_MEMBERS = 100_000


def load_front(runs: Sequence[str | Path]) -> Front:
    """Load the front of a run, or those of several runs on the same data as one.

    Parameters
    ----------
    runs
        Run folders, at least one.

    Raises
    ------
    InputError
        A front cannot be read or has no members, or the runs are about different data or heads.
    """
    from moevoprune.fronts.front import Front

    fronts = load_fronts(runs)
    return fronts[0] if len(fronts) == 1 else Front.merge(fronts)


def load_fronts(runs: Sequence[str | Path]) -> list[Front]:
    """Load the fronts of several runs on the same data, each with members.

    Parameters
    ----------
    runs
        Run folders, at least one.

    Raises
    ------
    InputError
        A front cannot be read or has no members, or the runs are about different data or heads.
    """
    from moevoprune.fronts.front import Front

    fronts = [Front.load(run) for run in runs]
    hashes = [entry(read_record(run), "data", "sha256") for run in runs]
    for run, front, data in zip(runs, fronts, hashes, strict=True):
        if len(front) == 0:
            raise InputError(f"{run}: its front has no members: the search found no feasible mask")
        first = fronts[0]
        # Front.merge asks for equal problems, which may be about different data
        if (front.dense_head.widths, front.class_names) != (first.dense_head.widths, first.class_names) or (
            None not in (data, hashes[0]) and data != hashes[0]
        ):
            raise InputError(f"{run}: is about other data or another head than {runs[0]}: name runs on the same")
    return fronts


def member_of(front: Front, wanted: str) -> int:
    """Number of the member that an option ``--member`` names.

    Parameters
    ----------
    front
        With at least one member.
    wanted
        ``"knee"``, ``"best"`` (best quality on the folds; of equals fewest bits) or a number, as ``show`` prints
        them.

    Raises
    ------
    InputError
        It is none of these.
    """
    from moevoprune.fronts.explanation import quality_objective

    if wanted == "knee":
        return front.knee()
    if wanted == "best":
        return front.best(quality_objective(front))
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 10 and int(wanted) < len(front):
        return int(wanted)
    raise InputError(f"--member {wanted}: use knee, best or a number from 0 to {len(front) - 1}")


def ensemble_options(arguments: Namespace) -> dict[str, int]:
    """Return what ``--members`` and ``--max-features`` ask of an ensemble.

    Raises
    ------
    InputError
        One of them is out of range.
    """
    return {
        name: whole_number(f"--{name.replace('_', '-')}", value, 1, _MOST_MEMBERS)
        for name in ("members", "max_features")
        if (value := getattr(arguments, name)) is not None
    }


def run_features(
    run: str | Path, data: str | Path | None = None, say: Callable[[str], None] | None = None
) -> FeatureSet:
    """Load the data of a run again, and make sure that they are the same.

    Parameters
    ----------
    run
        The run folder.
    data
        An ``.npz`` of features to read instead of what ``config.toml`` names, e.g. since that has moved. Where the
        run added out-of-distribution rows to features that had none, they are added again.
    say
        Told of what happens while images are read; None to be quiet.

    Raises
    ------
    InputError
        The settings or the data cannot be read, or the data are not those of the run: their content has another
        SHA-256 than ``run.json`` says. A front that was saved from Python says nothing, and needs ``data``.
    """
    from moevoprune.cli.data import load_data
    from moevoprune.features import load_features

    run = Path(run)
    digest = entry(read_record(run), "data", "sha256")
    config = run_settings(run)
    if data is None and config is None:
        raise InputError(
            f"{run}: holds no {SETTINGS}, so there is no telling where its data are: add --data FILE.npz"
        )
    if data is None and config is not None:
        try:
            features = load_data(config, say)
        except InputError as error:
            raise InputError(f"{run}: its data: {error}; if they have moved, add --data FILE.npz") from None
    else:
        # a plain file, even one that is called as a built-in set is
        features = load_features(Path(str(data)), None if config is None else config.data.task)
        if config is not None and config.data.ood and features.content_hash != digest:
            there = config.data.model_copy(update={"features": str(Path(str(data)).absolute()), "images": None})
            features = load_data(config.model_copy(update={"data": there}), say)
    if digest is not None and features.content_hash != digest:
        source = f"its {SETTINGS} names" if data is None else f"{data} holds"
        raise InputError(
            f"{run}: the data that {source} are not those of the run: their SHA-256 is "
            f"{features.content_hash[:12]}..., not {str(digest)[:12]}...: name the run's own with --data FILE.npz"
        )
    return features


def run_settings(run: Path) -> RunConfig | None:
    """Settings of a run, with paths that hold anywhere; None where it has none."""
    from moevoprune.cli.building import configure
    from moevoprune.cli.config import exists, read_toml

    path = run / SETTINGS
    return None if not exists(path) else configure(read_toml(path), str(path), {}, [])
