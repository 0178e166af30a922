"""``moevoprune run``: from a problem to a folder with a front."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moevoprune.cli.config import (
    RunConfig,
    absolute_source,
    changed_settings,
    parse_config,
    read_toml,
    set_value,
    to_toml,
)
from moevoprune.cli.problems import find_problem
from moevoprune.cli.table import front_table
from moevoprune.errors import InputError
from moevoprune.features import load_features
from moevoprune.files import remove_leftovers, write_text
from moevoprune.fronts.evolve import declare_front
from moevoprune.fronts.front import Front
from moevoprune.fronts.plots import save_figures
from moevoprune.search.loop import SearchResult, check_journal, run_search
from moevoprune.search.problem import PruningProblem

__all__ = ["run"]

CONFIG, JOURNAL, RUN = "config.toml", "evaluations.journal", "run.json"
_FILES = (CONFIG, JOURNAL, RUN, "front.csv", "front.npz", "heads.safetensors")
INTERRUPTED = 130


def run(arguments: Namespace) -> int:
    """Carry out ``moevoprune run``; returns the exit code."""
    say = _Voice(arguments.quiet)
    if arguments.out == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    out = Path(arguments.out) if arguments.out is not None else None
    if arguments.resume and out is None:
        raise InputError("--resume needs the folder of the run to continue: add --out DIR")
    config, problem = _build(_configure(arguments, out))
    name = Path(config.data.features).stem
    if out is None:
        out = _free_folder(Path("runs"), f"{name}-seed{config.seed}")
    resumed = _open_folder(out, config, problem, arguments.resume)

    features = problem.features
    say(
        f"{name}: {features.n_train} training and {features.n_test} test rows, {features.n_features} features; "
        f"{problem.n_var} bits ({problem.encoding.name}), scored on {problem.fitness.folds.description}, "
        f"on {problem.fitness.device.type}"
    )
    say(f"{'resuming' if resumed else 'writing to'} {out}")
    started = time.monotonic()
    result = run_search(
        problem,
        config.search.pop,
        config.search.gens,
        seed=config.seed,
        journal=out / JOURNAL,
        resume=resumed,
        progress=lambda generation: say(str(generation)),
    )
    if result.interrupted:
        say("interrupted: writing the front found so far (Ctrl-C again to leave that out)")
    go_on = f"to go on: moevoprune run --out {out} --resume"
    try:
        front = _write_results(out, config, problem, result, started, say)
    except KeyboardInterrupt:
        say(f"interrupted: the search is in the journal; {go_on}")
        return INTERRUPTED
    if result.interrupted:
        say(go_on)
        return INTERRUPTED
    if len(front) == 0:
        raise InputError(f"{out}: no mask within the bounds on active bits was found: widen them, or raise --gens")
    return 0


def _write_results(
    out: Path, config: RunConfig, problem: PruningProblem, result: SearchResult, started: float, say: _Voice
) -> Front:
    say(f"retraining the members ({len(result.masks)}) on all training rows and scoring them on the test rows")
    front = declare_front(problem, result)
    front.save(out)
    save_figures(front, out / "figures")
    write_text(out / RUN, _record(config, problem, result, front, time.monotonic() - started))
    say("")
    say(front_table(front, most=12))
    if problem.n_diverged:
        say(f"{problem.n_diverged} diverged masks were scored worst: a lower head.learning_rate helps")
    say(f"\nthe whole front: moevoprune show {out}   figures: {out / 'figures'}")
    return front


def _configure(arguments: Namespace, out: Path | None) -> RunConfig:
    """Settings of the problem file, changed by the options."""
    raw: dict[str, Any]
    if arguments.problem is None and arguments.resume and out is not None:
        if not _exists(out / CONFIG):
            raise InputError(
                f"{out}: holds no {CONFIG}, so there is no telling what to resume: name the PROBLEM too"
            )
        where, raw = str(out / CONFIG), read_toml(out / CONFIG)
    else:
        path = find_problem("digits" if arguments.problem is None else arguments.problem)
        where = str(path)
        raw = {"data": {"features": str(path.resolve())}} if path.suffix == ".npz" else read_toml(path)
    options = {
        "seed": ("--seed", arguments.seed),
        "search.pop": ("--pop", arguments.pop),
        "search.gens": ("--gens", arguments.gens),
        "problem.encoding": ("--encoding", arguments.encoding),
        "problem.objectives": ("--objectives", arguments.objectives),
        "problem.cv": ("--cv", arguments.cv),
        "compute.device": ("--device", arguments.device),
    }
    given = {key: name for key, (name, value) in options.items() if value is not None}
    for key in given:
        _put(raw, key, options[key][1])
    for assignment in arguments.set or []:
        key = set_value(raw, assignment)
        given[key] = "--set"
        if key == "data.features" and isinstance(raw["data"]["features"], str):
            raw["data"]["features"] = absolute_source(raw["data"]["features"], Path.cwd())
    return parse_config(raw, where, given)


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    target = raw.setdefault(section, {}) if section else raw
    if isinstance(target, dict):
        target[name] = value


def _build(config: RunConfig) -> tuple[RunConfig, PruningProblem]:
    """Load the data and make the problem; returns the settings with everything resolved that was left open."""
    features = load_features(config.data.features, config.data.task)
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
    )
    own_validation = features.X_val is not None and config.problem.cv is None
    resolved = {
        "data": {"features": config.data.features, "task": features.task},
        "problem": {
            **config.problem.model_dump(),
            "objectives": [objective.name for objective in problem.objectives],
            "cv": None if own_validation else len(problem.fitness.folds),
        },
        "compute": {**config.compute.model_dump(), "device": str(problem.fitness.device)},
    }
    return parse_config({**config.model_dump(), **resolved}, "settings"), problem


def _free_folder(parent: Path, name: str) -> Path:
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def _open_folder(out: Path, config: RunConfig, problem: PruningProblem, resume: bool) -> bool:
    """Make or check the run folder; returns whether there is a run in it to resume."""
    if any(_exists(out / name) for name in _FILES) and not resume:
        raise InputError(f"{out}: holds another run: add --resume to continue it, or choose another --out folder")
    if resume and _exists(out / CONFIG):
        changes = changed_settings(parse_config(read_toml(out / CONFIG), str(out / CONFIG)), config)
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise InputError(
                f"{out}: cannot resume, settings changed ({'; '.join(changes[:3])}{more}): "
                "give the same settings, or choose another --out folder"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}): choose another --out folder") from None
    if resume:
        check_journal(problem, out / JOURNAL, config.seed)
        remove_leftovers(out)
        remove_leftovers(out / "figures")
    if not _exists(out / CONFIG):
        write_text(out / CONFIG, to_toml(config))
    return resume


def _exists(path: Path) -> bool:
    """Whether something is there; a path that cannot exist is not."""
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return False


def _record(config: RunConfig, problem: PruningProblem, result: SearchResult, front: Front, seconds: float) -> str:
    import torch

    last = result.history[-1] if result.history else None
    device = problem.fitness.device
    record = {
        "moevoprune": version("moevoprune"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "pymoo", "scikit-learn", "torch")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": 1 if device.type == "cpu" else torch.get_num_threads(),
        "data": {"name": problem.features.name, "sha256": problem.features.content_hash},
        "seed": config.seed,
        "interrupted": result.interrupted,
        "evaluations": last.evaluations if last else 0,
        "cache_hits": last.cache_hits if last else 0,
        "diverged": problem.n_diverged,
        "seconds": round(seconds, 3),
        "members": len(front),
        "hypervolume": front.hypervolume(),
        "hypervolume_per_generation": [generation.hypervolume for generation in result.history],
    }
    return json.dumps(record, indent=2) + "\n"


class _Voice:
    """Prints lines to standard output until nobody listens any more."""

    def __init__(self, quiet: bool) -> None:
        self._silent = quiet

    def __call__(self, line: str) -> None:
        if self._silent:
            return
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # the reader went away (`| head`): the run goes on, and the interpreter's last flush must not fail
            self._silent = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
