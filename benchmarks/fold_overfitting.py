"""What keeps a search from fitting its folds: hypervolume lost from validation to test, per choice.

A search of a thousand masks on a few hundred rows finds masks that are good on these rows. Compared are ways
against that, with everything else equal:

* ``trusted``: the default; rankings guide the search where nested cross-validation finds them better.
* ``anova only``: nothing but the ANOVA F ranking, which looks at bits one by one.
* ``all rankings``: these and those that follow the training rows closely guide, asked or not.
* ``2 x folds``: the rows are split twice; twice the cost per mask, so half the evaluations.
* ``hold-out``: a quarter of the training rows scores all masks.
* ``re-scored``: the default's members scored anew on fresh folds (another seed of folds and start weights), and
  only those kept that are non-dominated by the new scores.

The loss is the hypervolume of (validation error, active fraction) less that of (test error, active fraction), both
up to (1, 1). It holds what differs between the validation rows and the test rows anyway: the lines ``no search``
have the same for masks that no search chose, three baselines at their default sizes.

    python benchmarks/fold_overfitting.py features.npz more.npz --seeds 3 --out fold_overfitting.md
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from moevoprune import PruningProblem, load_features
from moevoprune.baselines import default_sizes, make_baseline
from moevoprune.features import FeatureSet
from moevoprune.features.folds import fresh_seed
from moevoprune.fronts.comparison import MethodResult, picked, score, validation_hypervolume
from moevoprune.fronts.evolve import score_on_test
from moevoprune.search.algorithms import guided
from moevoprune.search.archive import non_dominated
from moevoprune.search.loop import run_search
from moevoprune.search.trust import BASE_RANKING, CANDIDATE_RANKINGS

Choice = Callable[[FeatureSet, int, int], tuple[PruningProblem, np.ndarray, np.ndarray]]


def searched(budget_share: float = 1.0, rankings: list[str] | None = None, **settings: int) -> Choice:
    """Masks and validation values of a guided search."""

    def run(data: FeatureSet, seed: int, budget: int) -> tuple[PruningProblem, np.ndarray, np.ndarray]:
        problem = PruningProblem(data, seed=seed, **settings)
        algorithm = guided(problem, rankings=rankings)
        result = run_search(problem, budget=round(budget_share * budget), algorithm=algorithm, seed=seed)
        return problem, result.masks, result.values

    return run


def rescored(data: FeatureSet, seed: int, budget: int) -> tuple[PruningProblem, np.ndarray, np.ndarray]:
    """The default's masks by their values on fresh folds."""
    problem, masks, _ = searched()(data, seed, budget)
    fresh = PruningProblem(data, seed=fresh_seed(seed, 1))
    values = fresh.values(masks)
    kept = non_dominated(fresh.losses(values))
    return problem, masks[kept], values[kept]


def ranked(name: str) -> Choice:
    """Masks of a baseline, which no search chose."""

    def run(data: FeatureSet, seed: int, budget: int) -> tuple[PruningProblem, np.ndarray, np.ndarray]:
        problem = PruningProblem(data, seed=seed)
        masks = make_baseline(name).masks(problem.ranking_data(), default_sizes(problem.n_var))
        return problem, masks, problem.values(masks)

    return run


CLOSELY_FITTING = ("l1_path", "recursive_elimination")
CHOICES: dict[str, Choice] = {
    "trusted (default)": searched(),
    "anova only": searched(rankings=[BASE_RANKING]),
    "all rankings": searched(rankings=[BASE_RANKING, *CANDIDATE_RANKINGS, *CLOSELY_FITTING]),
    "2 x folds, half the evaluations": searched(0.5, repeats=2),
    "hold-out": searched(cv=1),
    "re-scored on fresh folds": rescored,
    "no search: anova": ranked("anova"),
    "no search: l1_path": ranked("l1_path"),
    "no search: recursive_elimination": ranked("recursive_elimination"),
}


def measure(choice: Choice, data: FeatureSet, seed: int, budget: int) -> list[float]:
    """Validation and test hypervolume, loss, test hypervolume of log sizes, what one picks at 5 %, members."""
    problem, masks, values = choice(data, seed, budget)
    active = problem.encoding.count_active(masks)
    test = score_on_test(problem, masks)
    result = MethodResult("", "guided", seed, problem.n_var, active, values[:, 0], test, 0, 0.0)
    row = score(result)
    validation = validation_hypervolume(result)
    chosen = picked(result, 0.05)
    return [
        validation,
        row["test_hypervolume"],
        validation - row["test_hypervolume"],
        row["test_hypervolume_log"],
        chosen[0] if chosen else np.nan,
        chosen[1] if chosen else np.nan,
        len(masks),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["digits"], help="features .npz files (default: digits)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1..N (default: 3)")
    parser.add_argument("--budget", type=int, default=1000, help="evaluations per search (default: 1000)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    names = " ".join(Path(source).name for source in arguments.data)
    lines = [
        "# Hypervolume lost from validation to test",
        "",
        f"`python benchmarks/fold_overfitting.py {names} --seeds {arguments.seeds} --budget {arguments.budget}`",
        "",
        f"{date.today().isoformat()}, Python {platform.python_version()}; means over the seeds, ± standard error "
        "of the loss. What each choice is stands in the script.",
        "",
    ]
    for source in arguments.data:
        data = load_features(source)
        lines += [
            f"## {data.name}",
            "",
            "| choice | validation | test | loss | test, log sizes | picked at 5 %: validation | test | members |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for name, choice in CHOICES.items():
            rows = [measure(choice, data, seed, arguments.budget) for seed in range(1, arguments.seeds + 1)]
            mean = np.mean(rows, axis=0)
            loss = f"{mean[2]:+.4f}"
            if len(rows) > 1:
                loss += f" ± {np.std(rows, axis=0, ddof=1)[2] / len(rows) ** 0.5:.4f}"
            cells = [f"{mean[0]:.4f}", f"{mean[1]:.4f}", loss]
            cells += [f"{value:.4f}" for value in mean[3:6]]
            lines.append(f"| {name} | {' | '.join(cells)} | {mean[6]:.0f} |")
            print(lines[-1], flush=True)
        lines.append("")
        if arguments.out is not None:
            arguments.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
