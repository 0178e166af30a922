"""What does the third objective buy?

Evolves fronts with accuracy and active neurons alone, and with a third objective, at equal evaluations and with
the same seeds, and compares them on the test rows: hypervolume of (test error, active fraction), accuracy of the
heads under noise on the features, and hypervolume in all objectives (where the two-objective front's members are
scored on the third one afterwards). Over the three-objective front, rank correlations say how much the objectives
repeat one another.

    python experiments/third_objective.py --seeds 3
    python experiments/third_objective.py features.npz more.npz --third cka:dense
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from moevoprune import Front, InputError, PruningProblem, evolve, load_features
from moevoprune.features import FeatureSet
from moevoprune.fronts.comparison import MethodResult, score
from moevoprune.search.archive import hypervolume

NOISES = (0.5, 1.0, 2.0)
SHARES = (0.05, 0.25)


def accuracy_under_noise(front: Front, data: FeatureSet, share: float, noise: float, seed: int) -> float:
    """Test accuracy, on noisy features, of the member with the best accuracy under that noise at most so large."""
    rng = np.random.default_rng([seed, 7])
    spread = data.X_train.std(axis=0)
    rows = data.X_test + noise * spread * rng.standard_normal(data.X_test.shape, dtype=np.float32)
    small = np.flatnonzero(front.active <= share * front.n_bits)
    return max((float((front.heads[i].predict(rows) == data.y_test).mean()) for i in small), default=float("nan"))


def row(front: Front, problem: PruningProblem, seed: int) -> list[float]:
    """Members, test hypervolumes, hypervolume in all objectives, and accuracies under noise."""
    result = MethodResult(
        "", "guided", seed, front.n_bits, front.active, front.column("accuracy"), front.test, 0, 0
    )
    tested = score(result)
    losses = problem.losses(problem.values(front.masks))
    cells = [
        len(front),
        tested["test_hypervolume"],
        tested["test_hypervolume_log"],
        hypervolume(losses, np.array([o.to_loss(o.worst) for o in problem.objectives]))
        / float(np.prod([abs(o.best - o.worst) for o in problem.objectives])),
    ]
    for share in SHARES:
        cells += [accuracy_under_noise(front, problem.features, share, noise, seed) for noise in NOISES]
    return cells


def compare(source: str, arguments: argparse.Namespace) -> str:
    """Markdown section of one data set."""
    data = load_features(source)
    rows: dict[str, list[list[float]]] = {"two objectives": [], f"and {arguments.third}": []}
    correlations = []
    for seed in range(1, arguments.seeds + 1):
        both = {}
        for name, third in zip(rows, ([], [arguments.third]), strict=True):
            objectives = ["accuracy", "active_neurons", *third]
            problem = PruningProblem(data, objectives=objectives, seed=seed)
            both[name] = evolve(problem, budget=arguments.budget, seed=seed)
        for name, front in both.items():
            # the problem with the third objective, made last, scores the members of both
            rows[name].append(row(front, problem, seed))
        correlations.append(front.correlations())
        print(f"{data.name}: seed {seed} of {arguments.seeds}", flush=True)
    heads = ["members", "test hypervolume", "log sizes", "in all objectives, validation"]
    heads += [f"{share:.0%}, noise {noise:g}" for share in SHARES for noise in NOISES]
    lines = [f"## {data.name}", "", f"| front | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for name, measured in rows.items():
        mean = np.nanmean(measured, axis=0)
        lines.append(f"| {name} | {mean[0]:.0f} | {' | '.join(f'{value:.4f}' for value in mean[1:])} |")
    names = front.objectives
    mean = np.mean(correlations, axis=0)
    pairs = [
        f"{names[i]} and {names[j]} {mean[i, j]:+.2f}" for i in range(len(names)) for j in range(i + 1, len(names))
    ]
    lines += ["", f"Rank correlation over the front: {', '.join(pairs)}.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", nargs="*", default=["digits"], help="digits (default) or features .npz files")
    parser.add_argument("--third", default="cka:noise", help="the third objective (default: cka:noise)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--budget", type=int, default=1000, help="evaluations per search (default: 1000)")
    parser.add_argument("--quick", action="store_true", help="1 seed, 80 evaluations")
    parser.add_argument("--out", type=Path, help="Markdown file (default: experiments/results/third_objective.md)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.budget = 1, 80
    name = "third_objective_quick.md" if arguments.quick else "third_objective.md"
    out = arguments.out or Path(__file__).parent / "results" / name
    try:
        sections = [compare(source, arguments) for source in arguments.data]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    head = (
        f"Means over {arguments.seeds} seeds of {arguments.budget} evaluations. Accuracies are the best on the "
        "noisy test rows among members with at most that share of the bits; noise in standard deviations of the "
        "training rows."
    )
    text = "\n\n".join(["# What the third objective buys", head, *sections])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
