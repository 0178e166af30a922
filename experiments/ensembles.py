"""Do ensembles of a front's members beat their best member, and the unpruned head?

Evolves a front per data set and seed (or takes up those it finds in --work), lets members vote in every way the
package knows, and in the percentile windows of MO-EvoPruneDeepTL (arXiv 2302.10253, section on ensembles). Members
are chosen by validation rows; the test rows score.

    python experiments/ensembles.py --quick
    python experiments/ensembles.py features.npz more.npz --seeds 3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from moevoprune import Front, InputError, PruningProblem, evolve, load_features
from moevoprune.features import FeatureSet
from moevoprune.fronts.ensemble_study import study_ensembles
from moevoprune.fronts.ensemble_tables import EnsembleRow, EnsembleStudy
from moevoprune.fronts.plots import plot_windows, save_figure


def find_front(data: FeatureSet, seed: int, arguments: argparse.Namespace) -> Front:
    """The front of a seed: from the folder of an earlier call, or evolved and saved there."""
    folder = arguments.work / f"{data.name}-{seed}"
    if (folder / "front.npz").exists():
        return Front.load(folder)
    front = evolve(PruningProblem(data, seed=seed), budget=arguments.budget, seed=seed)
    front.save(folder)
    return front


def ways_table(studies: list[EnsembleStudy]) -> list[str]:
    """Markdown: one line per ensemble and single head, means over the seeds."""
    heads = ["members", "share of features", "test", "its best member", "ECE"]
    lines = [f"| | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for first in studies[0].ensembles:
        rows: list[EnsembleRow] = [study.row(first.name, first.voting) for study in studies]
        best = [row.best_member_test for row in rows]
        cells = [
            f"{np.mean([row.members for row in rows]):.0f}",
            f"{np.mean([row.union_fraction for row in rows]):.2f}",
            f"{np.mean([row.test for row in rows]):.4f}",
            "" if None in best else f"{np.mean(best):.4f}",
            "" if rows[0].ece is None else f"{np.mean([row.ece for row in rows]):.3f}",
        ]
        name = first.name if first.voting is None else f"{first.name}, {first.voting}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def windows_table(studies: list[EnsembleStudy]) -> list[str]:
    """Markdown: one line per window, means over the seeds, and in how many windows the ensemble is ahead."""
    heads = ["members", "soft", "hard", "best by validation", "best by test", "mean member"]
    lines = [f"| window | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    means = []
    for windows in zip(*(study.windows for study in studies), strict=True):
        columns = ("members", "soft", "hard", "best_by_validation", "best_member", "mean_member")
        mean = [float(np.mean([getattr(window, column) for window in windows])) for column in columns]
        means.append(mean)
        name = f"{windows[0].low}-{windows[0].high}"
        lines.append(f"| {name} | {mean[0]:.0f} | {' | '.join(f'{value:.4f}' for value in mean[1:])} |")
    table = np.array(means)

    def ahead(ensemble: int, member: int) -> str:
        difference = table[:, ensemble] - table[:, member]
        return f"{(difference > 0).sum()} of {len(table)} (mean {difference.mean():+.4f})"

    lines += [
        "",
        f"Windows in which the soft vote is ahead of the member that is best by validation: {ahead(1, 3)}; the "
        f"hard vote: {ahead(2, 3)}. Of the best by test, which nobody could have picked: {ahead(1, 4)} and "
        f"{ahead(2, 4)}.",
    ]
    return lines


def report(source: str, arguments: argparse.Namespace) -> str:
    """Markdown section of one data set."""
    data = load_features(source)
    studies = []
    for seed in range(1, arguments.seeds + 1):
        front = find_front(data, seed, arguments)
        studies.append(study_ensembles(front, data))
        print(f"{data.name}: seed {seed} of {arguments.seeds}", flush=True)
    if arguments.figures:
        save_figure(plot_windows(studies[0].windows), arguments.figures / f"windows_{data.name}.png")
    title = f"## {data.name}: {data.n_train} training and {data.n_test} test rows, {data.n_features} features"
    return "\n".join([title, "", *ways_table(studies), "", *windows_table(studies), ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", nargs="*", default=["digits"], help="digits (default) or features .npz files")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--budget", type=int, help="evaluations per search (default: as moevoprune run)")
    parser.add_argument("--quick", action="store_true", help="1 seed, 80 evaluations")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/ensembles"),
        help="folder that fronts are kept in, as NAME-SEED; those found there are not evolved again",
    )
    parser.add_argument("--figures", type=Path, help="folder for the papers' plot of the first seed")
    parser.add_argument("--out", type=Path, help="Markdown file (default: experiments/results/ensembles.md)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.budget = 1, 80
    name = "ensembles_quick.md" if arguments.quick else "ensembles.md"
    out = arguments.out or Path(__file__).parent / "results" / name
    try:
        sections = [report(source, arguments) for source in arguments.data]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    head = (
        f"Means over {arguments.seeds} seeds. Share of features: those that the members read together. Its best "
        "member: test accuracy of the member that is best on the validation rows. ECE: expected calibration error "
        "on the test rows."
    )
    text = "\n\n".join(["# Ensembles of a front's members", head, *sections])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
