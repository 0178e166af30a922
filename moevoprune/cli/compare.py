"""``moevoprune compare``: every method on every data set with every seed, in worker processes."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from moevoprune.cli.building import (
    INTERRUPTED,
    Voice,
    alone,
    asked_folder,
    build_problem,
    configure,
    free_folder,
    read_problem,
)
from moevoprune.cli.config import RunConfig, exists, set_value
from moevoprune.cli.data import image_options
from moevoprune.cli.processes import features_of, free_name, run_tasks
from moevoprune.cli.table import comparison_lines
from moevoprune.device import usable_cores
from moevoprune.errors import InputError, whole_number
from moevoprune.files import make_folder, read_text, remove_leftovers, write_text
from moevoprune.fronts.comparison import (
    DEFAULT_METHODS,
    METHODS,
    MethodResult,
    check_methods,
    run_method,
    score,
)
from moevoprune.fronts.comparison_tables import (
    comparison_table,
    members_csv,
    scores_csv,
    summarise,
)
from moevoprune.fronts.plots import save_comparison
from moevoprune.locks import only_writer
from moevoprune.search.problem import LARGEST_SEED

__all__ = ["compare"]

SETTINGS, TABLE, SCORES, MEMBERS, CELLS, FIGURES = (
    "compare.json",
    "compare.md",
    "compare.csv",
    "members.csv",
    "cells",
    "figures",
)
_FORMAT = 1
_DEFAULT_SEEDS, _DEFAULT_BUDGET = 3, 600
_MOST_SEEDS = 100_000
# settings that are other options of a comparison
_INSTEAD = {
    "seed": "--seeds",
    "data.features": "DATA",
    "data.images": "DATA",
    **dict.fromkeys(("compute.engine", "compute.address", "compute.actors", "compute.jobs"), "--jobs"),
}


@dataclass(frozen=True)
class _Data:
    """One data set of a comparison: its name, its resolved settings and what its results depend on."""

    name: str
    source: str
    config: RunConfig
    rows: int
    features: int
    bits: int
    identity: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class _Plan:
    """All that is to be run."""

    data: tuple[_Data, ...]
    methods: tuple[str, ...]
    seeds: int
    budget: int
    options: tuple[str, ...]

    @property
    def command(self) -> str:
        sources = [one.source for one in self.data]
        methods = ["--methods", ",".join(self.methods)]
        numbers = ["--seeds", str(self.seeds), "--budget", str(self.budget)]
        return shlex.join(["moevoprune", "compare", *sources, *methods, *numbers, *self.options])

    def cells(self) -> list[_Cell]:
        """All cells in the order of the tables."""
        return [
            _Cell(one, method, seed, self.budget)
            for one in self.data
            for method in self.methods
            for seed in range(1, self.seeds + 1)
        ]


@dataclass(frozen=True)
class _Cell:
    """One method on one data set with one seed."""

    data: _Data
    method: str
    seed: int
    budget: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data.name, self.method, self.seed

    @property
    def file(self) -> str:
        return f"{self.data.name}-{self.method}-{self.seed}.json"

    @property
    def size(self) -> int:
        return self.data.rows * self.data.features


def compare(arguments: Namespace) -> int:
    """Carry out ``moevoprune compare``; returns the exit code."""
    with ExitStack() as held:
        return _compare(arguments, held)


def _compare(arguments: Namespace, held: ExitStack) -> int:
    say = Voice(arguments.quiet)
    out = asked_folder(arguments, "comparison")
    held.enter_context(only_writer(out))
    stored = _read_settings(out) if out is not None and arguments.resume and exists(out / SETTINGS) else None
    plan = _plan(arguments, out, stored, None if arguments.quiet else say)
    jobs = _jobs(arguments.jobs, plan)
    if out is None:
        names = [one.name for one in plan.data]
        more = f"-and-{len(names) - 3}-more" if len(names) > 3 else ""
        out = free_folder(Path("comparisons"), "-".join(names[:3])[:100] + more)
        held.enter_context(only_writer(out))
    _open_folder(out, plan, arguments.resume)

    cells = plan.cells()
    finished = _finished(out, cells, say)
    todo = sorted((cell for cell in cells if cell.key not in finished), key=_longest_first)
    say(
        f"data sets: {len(plan.data)}, methods: {len(plan.methods)}, seeds: {plan.seeds}; {len(todo)} of "
        f"{len(cells)} cells to run, {jobs} at a time, into {out}"
    )
    go_on = f"to go on: moevoprune compare --out {shlex.quote(str(out))} --resume"
    progress = _Progress(say, cells, finished, jobs)
    try:
        with closing(run_tasks(_run_cell, todo, jobs)) as done:
            for cell, result in done:
                write_text(out / CELLS / cell.file, result.to_json())
                progress(cell, result)
        _write_results(out, plan, [finished[cell.key] for cell in cells], say)
    except KeyboardInterrupt:
        say(f"interrupted: {len(finished)} of {len(cells)} cells are finished; {go_on}")
        return INTERRUPTED
    except BrokenProcessPool:
        raise InputError(
            f"a worker process ended unexpectedly (not enough memory?): {len(finished)} of {len(cells)} cells are "
            f"finished; {go_on}, perhaps with fewer --jobs"
        ) from None
    if not exists(out / TABLE):
        # figures make their folder, and those above it
        raise InputError(f"{out}: was removed while it was written to: give the same command again")
    say(f"\nthe whole comparison: {out / TABLE}   figures: {out / FIGURES}")
    return 0


def _plan(arguments: Namespace, out: Path | None, stored: dict[str, Any] | None, say: Voice | None) -> _Plan:
    """What the options ask for, together with what the folder holds of it already."""
    for assignment in arguments.set or []:
        key = set_value({}, assignment)
        if key == "seed" or key.startswith("search.") or key in _INSTEAD:
            instead = _INSTEAD.get(key, "--budget")
            raise InputError(f"--set {assignment}: a comparison does not take {key}; use {instead}")
    given = None
    if arguments.methods is not None:
        given = check_methods([name.strip() for name in arguments.methods.split(",") if name.strip()])
    old_methods, old_seeds, old_budget = (), 0, _DEFAULT_BUDGET
    if stored is not None:
        old_methods, old_seeds, old_budget = stored["methods"], stored["seeds"], stored["budget"]
    methods = check_methods([*old_methods, *(given or (() if stored else DEFAULT_METHODS))])
    seeds = arguments.seeds if arguments.seeds is not None else old_seeds or _DEFAULT_SEEDS
    seeds = max(whole_number("--seeds", seeds, 1, min(_MOST_SEEDS, LARGEST_SEED)), old_seeds)
    budget = old_budget if arguments.budget is None else whole_number("--budget", arguments.budget, 1)
    options = {
        "problem.objectives": ("--objectives", arguments.objectives),
        "problem.cv": ("--cv", arguments.cv),
        "compute.device": ("--device", arguments.device),
        **image_options(arguments),
    }
    words = [word for option, value in options.values() for word in _words(option, value)]
    words += [word for assignment in arguments.set or [] for word in ("--set", assignment)]
    if stored is not None and not arguments.data:
        sources = [(one["source"], f"{SETTINGS}, {one['name']}", one["settings"]) for one in stored["data"]]
        words = [*stored["options"], *words]
    elif arguments.resume and stored is None and not arguments.data:
        raise InputError(f"{out}: holds no {SETTINGS}, so there is no telling what to resume: name the DATA too")
    else:
        sources = [(source, *read_problem(source)) for source in arguments.data or ["digits"]]
    names: list[str] = []
    data = []
    for source, where, raw in sources:
        # also case aside: there are file systems that do not tell names apart by it
        names.append(free_name(source, {name.casefold() for name in names}))
        config = configure(raw, where, options, arguments.set or [])
        # it divides the work by methods and seeds
        data.append(_load(names[-1], source, alone(config), say))
    plan = _Plan(tuple(data), methods, seeds, budget, tuple(words))
    if stored is not None:
        _check_settings(out, stored, plan)
    return plan


def _words(option: str, value: Any) -> list[str]:
    """An option as it is typed; nothing where it was not given."""
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if isinstance(value, dict):
        return [word for key, entry in value.items() for word in (option, f"{key}={entry}")]
    return [option, *(str(entry) for entry in (value if isinstance(value, list) else [value]))]


def _load(name: str, source: str, config: RunConfig, say: Voice | None) -> _Data:
    config, problem = build_problem(config.model_copy(update={"seed": 1}), say=say)
    features = problem.features
    # fails here, before anything is written, and not in the first worker
    if problem.column(problem.quality) is None:
        raise InputError(f"{name}: methods are compared by {problem.quality}: add it to the objectives")
    objectives = [objective.name for objective in problem.objectives]
    identity = {key: str(value) for key, value in problem.identity().items() if key != "seed"}
    # the file may have moved
    identity |= {"data": features.content_hash[:16], "objectives": ",".join(objectives)}
    identity["moevoprune"] = version("moevoprune")
    return _Data(
        name,
        source,
        config,
        features.n_train,
        features.n_features,
        problem.n_var,
        identity,
        features.content_hash,
    )


def _jobs(asked: int | None, plan: _Plan) -> int:
    if asked is not None:
        return whole_number("--jobs", asked, 1, 1024)
    if any(one.config.compute.device.startswith("cuda") for one in plan.data):
        return 1
    return max(1, min(usable_cores(), len(plan.cells())))


def _read_settings(out: Path) -> dict[str, Any]:
    try:
        stored = json.loads(read_text(out / SETTINGS))
        whole = (
            stored["format"] == _FORMAT
            and all(type(stored[key]) is int for key in ("seeds", "budget"))
            and all(isinstance(word, str) for key in ("methods", "options") for word in stored[key])
            and all(
                isinstance(one[key], kind)
                for one in stored["data"]
                for key, kind in (("name", str), ("source", str), ("settings", dict), ("identity", dict))
            )
        )
    except OSError as error:
        raise InputError(f"{out / SETTINGS}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        whole, stored = False, {}
    if not whole:
        raise InputError(f"{out / SETTINGS}: is damaged: choose another --out folder")
    return dict(stored)


def _check_settings(out: Path | None, stored: dict[str, Any], plan: _Plan) -> None:
    """Refuse a plan whose results could not stand beside those that the folder holds."""
    changes = []
    before, after = [one["name"] for one in stored["data"]], [one.name for one in plan.data]
    if before != after:
        changes.append(f"DATA: {' '.join(before)} → {' '.join(after)}")
    else:
        for old, new in zip(stored["data"], plan.data, strict=True):
            was = old["identity"]
            keys = [key for key in {**was, **new.identity} if was.get(key) != new.identity.get(key)]
            changes += [f"{new.name}, {key}: {was.get(key)} → {new.identity.get(key)}" for key in keys]
    if stored["budget"] != plan.budget:
        changes.append(f"budget: {stored['budget']} → {plan.budget}")
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise InputError(
            f"{out}: cannot resume, settings changed ({'; '.join(changes[:3])}{more}): "
            "give the same settings, or choose another --out folder"
        )


def _holds_comparison(out: Path) -> bool:
    """Whether there is something to lose; one killed before its settings were there has left an empty folder."""
    cells = out / CELLS
    begun = any(cells.iterdir()) if cells.is_dir() else exists(cells)
    return begun or any(exists(out / name) for name in (SETTINGS, TABLE, SCORES, MEMBERS))


def _open_folder(out: Path, plan: _Plan, resume: bool) -> None:
    if not resume and _holds_comparison(out):
        raise InputError(
            f"{out}: holds another comparison: add --resume to continue it, or choose another --out folder"
        )
    try:
        make_folder(out / CELLS)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}): choose another --out folder") from None
    for folder in (out, out / CELLS, out / FIGURES):
        remove_leftovers(folder)
    record = {
        "format": _FORMAT,
        "moevoprune": version("moevoprune"),
        "command": plan.command,
        "methods": list(plan.methods),
        "seeds": plan.seeds,
        "budget": plan.budget,
        "options": list(plan.options),
        "data": [
            {
                "name": one.name,
                "source": one.source,
                "sha256": one.sha256,
                "rows": one.rows,
                "features": one.features,
                "bits": one.bits,
                "identity": one.identity,
                "settings": one.config.model_dump(mode="json", exclude_none=True),
            }
            for one in plan.data
        ],
    }
    write_text(out / SETTINGS, json.dumps(record, indent=2) + "\n")


def _finished(out: Path, cells: Sequence[_Cell], say: Voice) -> dict[tuple[str, str, int], MethodResult]:
    """Read the cells that are there; a damaged one counts as missing."""
    finished = {}
    for cell in cells:
        path = out / CELLS / cell.file
        if not exists(path):
            continue
        try:
            result = MethodResult.from_json(read_text(path))
            whole = (result.data, result.method, result.seed) == cell.key and result.n_bits == cell.data.bits
        except (InputError, OSError, UnicodeDecodeError):
            whole = False
        if whole:
            finished[cell.key] = result
        else:
            say(f"{path}: is damaged and will be run again")
    return finished


def _longest_first(cell: _Cell) -> tuple[int, int, int, int]:
    # a long cell that starts last leaves the other cores idle at the end
    leading = ("reference", "guided")
    searches = leading.index(cell.method) if cell.method in leading else len(leading)
    return -cell.size, searches, METHODS.index(cell.method), cell.seed


def _run_cell(cell: _Cell) -> MethodResult:
    config = cell.data.config
    features = features_of(config, cell.data.sha256)
    # one thread, as in the trainer: results must not depend on the threads, nor seconds on the other workers
    with threadpool_limits(1):
        _, problem = build_problem(config.model_copy(update={"seed": cell.seed}), features)
        return replace(run_method(problem, cell.method, cell.seed, cell.budget), data=cell.data.name)


class _Progress:
    """Says a line per finished cell, with the time left as the finished cells suggest."""

    def __init__(
        self, say: Voice, cells: Sequence[_Cell], finished: dict[tuple[str, str, int], MethodResult], jobs: int
    ) -> None:
        self._say = say
        self._cells = cells
        self._finished = finished
        self._jobs = jobs

    def __call__(self, cell: _Cell, result: MethodResult) -> None:
        self._finished[cell.key] = result
        volume = f"{score(result)['test_hypervolume']:.4f}".removeprefix("0")
        done, total = len(self._finished), len(self._cells)
        left = ""
        if done < total:
            seconds = int(self._seconds_left())
            left = f", about {seconds // 60}:{seconds % 60:02d} left"
        self._say(
            f"{cell.data.name} {cell.method} seed {cell.seed}: test hypervolume {volume}, {result.seconds:.0f} s"
            f"   ({done}/{total}{left})"
        )

    def _seconds_left(self) -> float:
        known = [(cell, self._finished[cell.key].seconds) for cell in self._cells if cell.key in self._finished]
        left = 0.0
        for cell in self._cells:
            if cell.key in self._finished:
                continue
            # the same method on the same data, else on other data in proportion, else any
            same = [s for other, s in known if (other.data.name, other.method) == (cell.data.name, cell.method)]
            alike = [s / other.size * cell.size for other, s in known if other.method == cell.method]
            anything = [s / other.size * cell.size * _weight(cell) / _weight(other) for other, s in known]
            left += statistics.fmean(same or alike or anything)
        return left / self._jobs


def _weight(cell: _Cell) -> float:
    """Roughly how long a method takes beside others: for guesses of the time left."""
    return {"reference": 10.0, "nsga2": 10.0, "guided": 4.0, "random": 2.0}.get(cell.method, 0.4)


def _write_results(out: Path, plan: _Plan, results: list[MethodResult], say: Voice) -> None:
    # the day and the machine are those of this call, which has run some of the cells at least
    notes = (f"{date.today().isoformat()}; {_machine(plan)}", _versions())
    write_text(out / TABLE, comparison_table(results, plan.command, notes))
    write_text(out / SCORES, scores_csv(results))
    write_text(out / MEMBERS, members_csv(results))
    for one in plan.data:
        save_comparison([r for r in results if r.data == one.name], out / FIGURES / f"{one.name}.png")
    for summary in summarise(results):
        say("")
        for line in comparison_lines(summary):
            say(line)


def _machine(plan: _Plan) -> str:
    """CPU model, number of cores and system, and the GPU where one was used; no host name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    words = f"{model}, {os.cpu_count()} cores, one thread a method; {platform.system()}"
    devices = sorted({one.config.compute.device for one in plan.data} - {"cpu"})
    if devices:
        import torch

        words += "".join(f"; {torch.cuda.get_device_name(device)}" for device in devices)
    return words


def _versions() -> str:
    packages = ("moevoprune", "numpy", "pymoo", "scikit-learn", "torch")
    return f"Python {sys.version.split()[0]}, {', '.join(f'{name} {version(name)}' for name in packages)}"
