"""From what a user typed to a problem: what all commands that train have in common."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moevoprune.cli.config import RunConfig, image_settings, parse_config, read_toml, set_value
from moevoprune.cli.data import from_here, load_data, locate_images
from moevoprune.cli.problems import find_problem, shipped_problems
from moevoprune.device import resolve_device, usable_cores
from moevoprune.errors import InputError, printable_lines
from moevoprune.features import FeatureSet
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.feature_folder import is_feature_folder
from moevoprune.search.engines import Engine, EngineMaker
from moevoprune.search.fitness import FitnessEvaluator
from moevoprune.search.problem import PruningProblem

__all__ = [
    "INTERRUPTED",
    "Voice",
    "alone",
    "asked_folder",
    "build_problem",
    "configure",
    "free_folder",
    "read_problem",
]

INTERRUPTED = 130


def read_problem(source: str) -> tuple[str, dict[str, Any]]:
    """Read the raw settings of a shipped problem, a TOML file, features (a file or a folder) or a set of images.

    Returns
    -------
    where, raw
        What to call them in a message, and the settings.

    Raises
    ------
    InputError
        The source is none of these, or cannot be read.
    """
    path = find_problem(source)
    if path is None:
        return source, {"data": {"images": source}}
    if is_feature_folder(path):
        return source, {"data": {"features": str(path.resolve())}}
    if path.is_dir():
        return source, {"data": {"images": str(path.resolve())}}
    if path.suffix == ".npz":
        return source, {"data": {"features": str(path.resolve())}}
    # nobody puts images beside the installed package
    return str(path), read_toml(path, Path.cwd() if source in shipped_problems() else None)


def configure(
    raw: dict[str, Any], where: str, options: Mapping[str, tuple[str, Any]], assignments: Sequence[str]
) -> RunConfig:
    """Check raw settings, changed by the options of the command line.

    Parameters
    ----------
    raw
        Settings as read; changed in place.
    where
        What to call them in a message.
    options
        By dotted key: the option's name and its value, None (or False, of a flag) where it was not given.
    assignments
        The ``key=value`` of every ``--set``.

    Raises
    ------
    InputError
        A setting cannot be used.
    """
    given = {key: name for key, (name, value) in options.items() if value is not None and value is not False}
    before = dict(raw["search"]) if isinstance(raw.get("search"), dict) else {}
    for key in given:
        _put(raw, key, options[key][1])
    for assignment in assignments:
        key = set_value(raw, assignment)
        given[key] = "--set"
        section, _, name = key.rpartition(".")
        if isinstance(typed := raw.get(section, {}).get(name), str):
            # what is typed is relative to here, what is written down must hold anywhere
            raw[section][name] = from_here(key, typed)
    search = raw.get("search")
    if isinstance(search, dict):
        # every written config.toml has one of the two: the one asked for now replaces it
        for key, other in (("gens", "budget"), ("budget", "gens")):
            if f"search.{key}" in given and f"search.{other}" not in given and other in before:
                search.pop(other)
    data = raw.get("data")
    if isinstance(data, dict):
        locate_images(data, where)
        idle = image_settings(given) if data.get("images") is None and not data.get("ood") else []
        if idle and isinstance(data.get("features"), str):
            raise InputError(
                f"{given[idle[0]]} is about images, but {data['features']} holds features: leave it out, or name "
                "a folder of images"
            )
    return parse_config(raw, where, given)


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    target = raw.setdefault(section, {}) if section else raw
    if isinstance(target, dict):
        target[name] = value


def build_problem(
    config: RunConfig, features: FeatureSet | None = None, say: Callable[[str], None] | None = None
) -> tuple[RunConfig, PruningProblem]:
    """Load the data and make the problem.

    Parameters
    ----------
    config
        The settings.
    features
        The data, where they have been loaded already.
    say
        Told of what happens while images are read; None to be quiet.

    Returns
    -------
    config, problem
        The settings with everything resolved that was left open, and the problem.

    Raises
    ------
    InputError
        The data or a setting cannot be used.

    Notes
    -----
    The caller closes the problem: its engine may hold processes and machines.
    """
    if config.compute.engine == "ray":
        # before images are read, which may take hours
        from moevoprune.search.ray_engine import import_ray

        import_ray()
    if features is None:
        features = load_data(config, say)
    problem = PruningProblem(
        features,
        config.problem.encoding,
        config.problem.objectives,
        config.head,
        config.problem.cv,
        config.seed,
        config.compute.device,
        config.problem.min_active,
        config.problem.max_active,
        config.problem.noise,
        config.compute.chunk,
        config.problem.repeats,
        config.problem.odin_epsilon,
        _engine(config),
        _jobs(config),
    )
    own_validation = features.X_val is not None and config.problem.cv is None
    resolved = {
        "data": {**config.data.model_dump(), "task": features.task},
        "problem": {
            **config.problem.model_dump(),
            "objectives": [objective.name for objective in problem.objectives],
            "cv": None if own_validation else len(problem.fitness.folds) // config.problem.repeats,
        },
        "search": config.search.resolved(),
        "compute": {**config.compute.model_dump(), "device": str(problem.fitness.device)},
    }
    if config.data.images is not None:
        resolved["backbone"] = (config.backbone or BackboneSettings()).model_dump()
    return parse_config({**config.model_dump(), **resolved}, "settings"), problem


def alone(config: RunConfig) -> RunConfig:
    """Settings of the same run in one process of this machine, for one of several that run side by side."""
    alone = {"engine": "local", "address": None, "actors": None, "jobs": 1}
    return config.model_copy(update={"compute": config.compute.model_copy(update=alone)})


def _engine(config: RunConfig) -> str | EngineMaker:
    compute = config.compute
    if compute.engine == "local":
        return compute.engine

    def ray_engine(fitness: FitnessEvaluator) -> Engine:
        from moevoprune.search.ray_engine import RayEngine

        return RayEngine(fitness, compute.address, compute.actors, compute.chunk)

    return ray_engine


def _jobs(config: RunConfig) -> int:
    if config.compute.jobs is not None:
        return config.compute.jobs
    return usable_cores() if resolve_device(config.compute.device).type == "cpu" else 1


def asked_folder(arguments: Namespace, kind: str) -> Path | None:
    """Folder of ``--out``, None where none was asked for.

    Parameters
    ----------
    arguments
        With ``out`` and ``resume``.
    kind
        What the folder holds, for a message.

    Raises
    ------
    InputError
        The name is empty, or there is none and something is to be resumed.
    """
    if arguments.out == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    if arguments.resume and arguments.out is None:
        raise InputError(f"--resume needs the folder of the {kind} to continue: add --out DIR")
    return None if arguments.out is None else Path(arguments.out)


def free_folder(parent: Path, name: str) -> Path:
    """Name a folder that does not exist yet: ``parent/name``, or the first free ``parent/name-N``."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


class Voice:
    """Prints lines to standard output until nobody listens any more.

    Parameters
    ----------
    quiet
        Print nothing from the start.
    """

    def __init__(self, quiet: bool) -> None:
        self._silent = quiet

    def __call__(self, line: str) -> None:
        """Print a line, or several; names of others in it must not steer the terminal."""
        if self._silent:
            return
        try:
            print(printable_lines(line), flush=True)
        except BrokenPipeError:
            # the reader went away (`| head`): the run goes on, and the interpreter's last flush must not fail
            self._silent = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
