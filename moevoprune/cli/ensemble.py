"""``moevoprune ensemble``: let several members of a front vote.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.cli.runs import ensemble_options, load_front, run_features, run_settings
from moevoprune.errors import InputError
from moevoprune.fronts.run_folder import (
    ENSEMBLES,
    ENSEMBLES_CSV,
    FIGURES,
    WINDOWS_CSV,
    WINDOWS_FIGURE,
    folder_name,
)

if TYPE_CHECKING:
    from moevoprune.fronts.ensembles import Chosen
    from moevoprune.fronts.front import Front

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "ensemble"]

HELP = "let several members of a front vote"
DESCRIPTION = (
    "Choose members of a front (or of the merged fronts of several runs) by their predictions for validation "
    "rows, let them vote, and set test accuracy, calibration and out-of-distribution detection beside those of "
    "the best member, the knee and the dense head."
)

_DEFAULT_VOTING = "soft"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("run", nargs="+", metavar="RUN", help="run folders; the fronts of several are merged")
    parser.add_argument(
        "--how",
        metavar="NAME",
        help="how to choose the members of one more ensemble: default, all, window, knee, greedy, diverse or "
        "union (all of them are in the table, as they are without options)",
    )
    parser.add_argument(
        "--voting",
        choices=("soft", "hard"),
        help="how that ensemble votes: by mean probability (soft, default) or by majority (hard)",
    )
    parser.add_argument("--members", type=int, metavar="N", help="most members of that ensemble")
    parser.add_argument(
        "--max-features", type=int, metavar="N", help="most features that its members may read together"
    )
    parser.add_argument(
        "--data", metavar="FILE.npz", help="the run's features, where they have moved since the run"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder (default: the run's own; for several runs a new one under ensembles/)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def ensemble(arguments: Namespace) -> int:
    """Carry out the command; returns the exit code."""
    from moevoprune.cli.building import Voice
    from moevoprune.fronts.ensemble_study import study_ensembles
    from moevoprune.fronts.plots import plot_windows
    from moevoprune.fronts.plots.style import make_folder, save_figure

    say = Voice(arguments.quiet)
    runs = [Path(run) for run in arguments.run]
    out = _out_folder(arguments.out, runs)
    front = load_front(runs)
    more = _asked(arguments, front)
    features = run_features(runs[0], arguments.data, say)
    settings = run_settings(runs[0])
    odin = {} if settings is None else {"odin_epsilon": settings.problem.odin_epsilon}
    study = study_ensembles(front, features, more, **odin)
    make_folder(out / FIGURES)
    study.save(out)
    say(f"{len(front)} members; chosen by validation rows, scored on {features.n_test} test rows\n")
    say(study.to_text())
    say("\nits best member: test score of the member that is best on the validation rows")

    save_figure(plot_windows(study.windows), out / WINDOWS_FIGURE)
    say(f"\nwritten to {out}: {ENSEMBLES_CSV}, {WINDOWS_CSV}, {ENSEMBLES}, {WINDOWS_FIGURE}")
    return 0


def _asked(arguments: Namespace, front: Front) -> list[tuple[str, Chosen, Any]]:
    """The ensemble that the options describe, under a name of its own; none where there are no options."""
    from moevoprune.fronts.ensembles import DEFAULT_HOW, choose_members

    how = DEFAULT_HOW if arguments.how is None else arguments.how
    options = ensemble_options(arguments)
    if not options and arguments.how is None and arguments.voting is None:
        return []
    voting = arguments.voting or _DEFAULT_VOTING
    if voting == "hard" and front.test_metric == "r2":
        raise InputError("--voting hard: regression heads predict numbers, not classes: use soft")
    return [(f"{how} (as asked)", choose_members(front, how, **options), voting)]


def _out_folder(out: str | None, runs: Sequence[Path]) -> Path:
    from moevoprune.cli.building import free_folder

    if out == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    if out is not None:
        return Path(out)
    return runs[0] if len(runs) == 1 else free_folder(Path("ensembles"), folder_name(runs[0]))
