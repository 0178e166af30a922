"""``moevoprune run``: from a problem to a folder with a front."""

from __future__ import annotations

import json
import math
import platform
import time
from argparse import Namespace
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moevoprune.cli.building import (
    INTERRUPTED,
    Voice,
    asked_folder,
    build_problem,
    configure,
    free_folder,
    read_problem,
)
from moevoprune.cli.config import RunConfig, changed_settings, exists, parse_config, read_toml, to_toml
from moevoprune.cli.data import image_options
from moevoprune.cli.member_maps import member_maps_of_run
from moevoprune.cli.processes import free_name
from moevoprune.cli.table import front_table, objectives_line
from moevoprune.errors import InputError, printable
from moevoprune.files import make_folder, remove_leftovers, write_text
from moevoprune.fronts.comparison import Standing, standing
from moevoprune.fronts.ensemble_study import study_ensembles
from moevoprune.fronts.evolve import DIVERGED_TEST_SCORE, declare_front
from moevoprune.fronts.front import Front
from moevoprune.fronts.plots import plot_windows, save_figure, save_figures
from moevoprune.fronts.report import write_report
from moevoprune.fronts.run_folder import (
    FIGURES,
    FRONT,
    FRONT_CSV,
    HEADS,
    JOURNAL,
    MEASURED,
    MERGED_FROM,
    PREDICTIONS,
    RECORD,
    REPORT,
    SETTINGS,
    WINDOWS_FIGURE,
    entry,
    read_record,
)
from moevoprune.locks import only_writer
from moevoprune.search.loop import SearchResult, check_journal, run_search
from moevoprune.search.problem import PruningProblem

__all__ = ["Extras", "add_member_maps", "check_text", "is_finished", "run", "run_problem", "search_options"]

_FILES = (SETTINGS, JOURNAL, RECORD, REPORT, FRONT_CSV, FRONT, HEADS, PREDICTIONS)


@dataclass(frozen=True)
class Extras:
    """What a run folder gets besides settings, journal, front and record.

    Attributes
    ----------
    baselines
        Whether quick baselines are set beside the front.
    pages
        Whether there are figures, a study of ensembles and a report.
    maps
        Whether the report has heat maps over images; :func:`add_member_maps` draws them later.
    """

    baselines: bool = True
    pages: bool = True
    maps: bool = True


def run(arguments: Namespace) -> int:
    """Carry out ``moevoprune run``; returns the exit code."""
    with ExitStack() as held:
        return _run(arguments, held)


def _run(arguments: Namespace, held: ExitStack) -> int:
    say = Voice(arguments.quiet)
    out = asked_folder(arguments, "run")
    held.enter_context(only_writer(out))
    if out is not None and not arguments.resume:
        # before images are read, which may take hours
        _check_free(out)
    asked = _configure(arguments, out)
    check_text(asked)
    config, problem = build_problem(asked, say=None if arguments.quiet else say)
    with problem:
        if out is None:
            out = free_folder(Path("runs"), f"{free_name(config.data.source, set())}-seed{config.seed}")
            held.enter_context(only_writer(out))
        return run_problem(config, problem, out, arguments.resume, say, Extras(not arguments.no_baselines))


def run_problem(
    config: RunConfig,
    problem: PruningProblem,
    out: Path,
    resume: bool,
    say: Voice,
    extras: Extras,
) -> int:
    """Search a problem, and write or complete its run folder.

    Parameters
    ----------
    config, problem
        Resolved settings and their problem, see :func:`moevoprune.cli.building.build_problem`.
    out
        The run folder.
    resume
        Whether to go on with what the folder holds.
    say
        Told what happens.
    extras
        What the folder gets besides the front.

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C.

    Raises
    ------
    InputError
        The folder holds another run, or no mask within the bounds was found.
    """
    resumed = _open_folder(out, config, problem, resume)
    features, name = problem.features, printable(Path(config.data.source).stem)
    say(
        f"{name}: {features.n_train} training and {features.n_test} test rows, {features.n_features} features; "
        f"{problem.n_var} bits ({problem.encoding.name}), scored on {problem.fitness.folds.description}, "
        f"on {problem.fitness.device.type}"
    )
    say(f"{'resuming' if resumed else 'writing to'} {out}")
    if config.search.algorithm == "guided":
        say("ranking the bits by the training rows, and finding out which rankings to trust")
    started = time.monotonic()
    result = run_search(
        problem,
        config.search.pop,
        config.search.gens,
        config.search.budget,
        config.search.algorithm,
        seed=config.seed,
        journal=out / JOURNAL,
        resume=resumed,
        progress=lambda generation: say(str(generation)),
        leave_out=config.search.leave_out or (),
    )
    if result.interrupted:
        say("interrupted: writing the front found so far (Ctrl-C again to leave that out)")
    go_on = f"to go on: moevoprune run --out {out} --resume{'' if extras.baselines else ' --no-baselines'}"
    try:
        front = _write_results(out, config, problem, result, started, say, extras)
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
    out: Path,
    config: RunConfig,
    problem: PruningProblem,
    result: SearchResult,
    started: float,
    say: Voice,
    extras: Extras,
) -> Front:
    say(f"retraining the members ({len(result.masks)}) on all training rows and scoring them on the test rows")
    front = declare_front(problem, result)
    _remove_outdated(out, front)
    # written last, it says that the run is whole
    (out / REPORT).unlink(missing_ok=True)
    front.save(out)
    if extras.pages:
        save_figures(front, out / FIGURES)
    seconds = time.monotonic() - started
    write_text(out / RECORD, _record(config, problem, result, front, seconds))
    say("")
    say(front_table(front, most=12))
    if len(front):
        say(f"\n{objectives_line(front)}")
    wary = [value for axis, value in zip(front.axes, front.dense_values, strict=True) if "ood_auroc" in axis.name]
    if wary and wary[0] < 0.5 and config.head.standardise:
        # features that hardly vary over the training rows can be far off on others, and logits large
        say(
            "the unpruned head is surer of out-of-distribution rows than of yours (AUROC below .5): "
            "--set standardise=false may help"
        )
    remedy = "a lower head.learning_rate helps, e.g. --set learning_rate=0.01"
    if not config.head.standardise:
        remedy = f"--set standardise=true or {remedy}"
    if front.dense_test <= DIVERGED_TEST_SCORE[problem.features.task]:
        say(f"the unpruned head has diverged: {remedy}")
    if problem.n_diverged:
        say(f"{problem.n_diverged} diverged masks were scored worst: {remedy}")
    if extras.baselines and len(front) and not result.interrupted:
        # after the rest is written: the front does not depend on it
        say("\nsetting quick baselines beside it (--no-baselines leaves that out)")
        compared = standing(front, problem)
        write_text(out / RECORD, _record(config, problem, result, front, seconds, compared))
        say(str(compared))
    if not extras.pages:
        return front
    if len(front) and not result.interrupted:
        _study_ensembles(out, config, problem, front, say)
        if extras.maps:
            _draw_maps(out, config, front, say)
    report = write_report([out], out / REPORT)
    say(f"\nthe whole front: moevoprune show {out}   a page about it all: {report}")
    return front


def _remove_outdated(out: Path, front: Front) -> None:
    """Remove what was measured on an earlier front of the folder, e.g. on that of an interrupted run."""
    with suppress(InputError):
        if Front.load(out).fingerprint == front.fingerprint:
            return
    for name in MEASURED:
        (out / name).unlink(missing_ok=True)


def _study_ensembles(out: Path, config: RunConfig, problem: PruningProblem, front: Front, say: Voice) -> None:
    try:
        study = study_ensembles(front, problem.features, odin_epsilon=config.problem.odin_epsilon)
        study.save(out)
    except InputError as error:
        say(f"\nensembles are left out: {error}")
    else:
        say(f"\n{study.headline()} (moevoprune ensemble {out})")
        save_figure(plot_windows(study.windows), out / WINDOWS_FIGURE)


def add_member_maps(out: Path, config: RunConfig) -> None:
    """Draw the heat maps of a finished run that was made where its images are not, and write its report anew."""
    if config.data.images is not None:
        _draw_maps(out, config, Front.load(out), Voice(quiet=True))
        write_report([out], out / REPORT)


def _draw_maps(out: Path, config: RunConfig, front: Front, say: Voice) -> None:
    maps = member_maps_of_run(config, front, say)
    if maps is not None:
        maps.save(out)


def _configure(arguments: Namespace, out: Path | None) -> RunConfig:
    """Settings of the problem file, changed by the options."""
    if arguments.problem is None and arguments.resume and out is not None:
        if not exists(out / SETTINGS):
            raise InputError(
                f"{out}: holds no {SETTINGS}, so there is no telling what to resume: name the PROBLEM too"
            )
        where, raw = str(out / SETTINGS), read_toml(out / SETTINGS)
    else:
        where, raw = read_problem("digits" if arguments.problem is None else arguments.problem)
    options = {
        "seed": ("--seed", arguments.seed),
        "compute.engine": ("--engine", arguments.engine),
        "compute.address": ("--address", arguments.address),
        "compute.actors": ("--actors", arguments.actors),
        "compute.jobs": ("--jobs", arguments.jobs),
        **search_options(arguments),
    }
    config = configure(raw, where, options, arguments.set or [])
    for name in ("address", "actors"):
        if getattr(arguments, name) is not None and config.compute.engine != "ray":
            raise InputError(f"--{name} is about Ray: add --engine ray, or leave it out")
    return config


def search_options(arguments: Namespace) -> dict[str, tuple[str, Any]]:
    """Options of :func:`moevoprune.cli.options.add_search_options` by the key of the setting they change.

    Raises
    ------
    InputError
        A ``--backbone-arg`` has no ``=``.
    """
    return {
        "search.pop": ("--pop", arguments.pop),
        "search.gens": ("--gens", arguments.gens),
        "search.algorithm": ("--algorithm", arguments.algorithm),
        "problem.encoding": ("--encoding", arguments.encoding),
        "problem.objectives": ("--objectives", arguments.objectives),
        "problem.cv": ("--cv", arguments.cv),
        "compute.device": ("--device", arguments.device),
        **image_options(arguments),
    }


def check_text(config: RunConfig) -> None:
    """Refuse settings that no settings file could hold.

    Raises
    ------
    InputError
        A name is not UTF-8.
    """
    try:
        to_toml(config).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{printable(config.data.source)}: its name is not UTF-8: rename it") from None


def _check_free(out: Path) -> None:
    if any(exists(out / name) for name in _FILES):
        raise InputError(f"{out}: holds another run: add --resume to continue it, or choose another --out folder")


def is_finished(out: Path, pages: bool = True) -> bool:
    """Whether a folder holds a run that came to its end, with or without what :class:`Extras` calls pages."""
    last = REPORT if pages else FRONT
    return exists(out / last) and entry(read_record(out), "interrupted") is False


def _open_folder(out: Path, config: RunConfig, problem: PruningProblem, resume: bool) -> bool:
    """Make or check the run folder; returns whether there is a run in it to resume."""
    if not resume:
        _check_free(out)
    if resume and entry(read_record(out), MERGED_FROM):
        raise InputError(
            f"{out}: holds the merged front of several runs, which no search can continue: resume those"
        )
    if resume and exists(out / SETTINGS):
        changes = changed_settings(parse_config(read_toml(out / SETTINGS), str(out / SETTINGS)), config)
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise InputError(
                f"{out}: cannot resume, settings changed ({'; '.join(changes[:3])}{more}): "
                "give the same settings, or choose another --out folder"
            )
    try:
        make_folder(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}): choose another --out folder") from None
    if resume:
        check_journal(problem, out / JOURNAL, config.seed)
    for folder in (out, out / FIGURES):
        remove_leftovers(folder)
    if not exists(out / SETTINGS):
        write_text(out / SETTINGS, to_toml(config))
    return resume


def _record(
    config: RunConfig,
    problem: PruningProblem,
    result: SearchResult,
    front: Front,
    seconds: float,
    compared: Standing | None = None,
) -> str:
    import torch

    last = result.history[-1] if result.history else None
    device = problem.fitness.device
    record = {
        "moevoprune": version("moevoprune"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "pymoo", "scikit-learn", "torch")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": 1 if device.type == "cpu" else torch.get_num_threads(),
        "engine": config.compute.engine,
        "data": {
            "name": problem.features.name,
            "sha256": problem.features.content_hash,
            "training_rows": problem.features.n_train,
            "test_rows": problem.features.n_test,
        },
        "extraction": json.loads(problem.features.extraction or "null"),
        "seed": config.seed,
        "interrupted": result.interrupted,
        "evaluations": last.evaluations if last else 0,
        "cache_hits": last.cache_hits if last else 0,
        "diverged": problem.n_diverged,
        "seconds": round(seconds, 3),
        "members": len(front),
        "hypervolume": front.hypervolume(),
        "rank_correlations": _correlations(front),
        "hypervolume_per_generation": [generation.hypervolume for generation in result.history],
    }
    if compared is not None:
        record["baselines"] = compared.to_dict()
    return json.dumps(record, indent=2) + "\n"


def _correlations(front: Front) -> dict[str, float | None]:
    """Rank correlation of every pair of objectives; None where there is none, as JSON has no NaN."""
    pairs = front.correlated_pairs()
    return {f"{one} / {other}": None if math.isnan(value) else value for one, other, value in pairs}
