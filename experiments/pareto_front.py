"""Which trade-offs between accuracy, active neurons and robustness does a data set offer?

Evolves one front per seed, merges them (the "super Pareto front" of MO-EvoPruneDeepTL) and plots the result.
A seed that is there already is not run again, one that was cut off is resumed.

    python experiments/pareto_front.py --seeds 3
    python experiments/pareto_front.py features.npz --seeds 10 --out experiments/results/mine
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from moevoprune import Front, InputError, PruningProblem, evolve, load_features
from moevoprune.fronts.plots import save_figures


def one_front(source: str, seed: int, folder: Path, arguments: argparse.Namespace) -> Front:
    """Evolve, resume or load the front of one seed."""
    if (folder / "front.csv").exists():
        return Front.load(folder)
    folder.mkdir(parents=True, exist_ok=True)
    problem = PruningProblem(load_features(source), encoding=arguments.encoding, seed=seed)
    front = evolve(
        problem,
        pop_size=arguments.pop,
        n_gen=arguments.gens,
        seed=seed,
        journal=folder / "evaluations.journal",
        resume=True,
        progress=print,
    )
    front.save(folder)
    return front


def table(fronts: dict[str, Front]) -> str:
    """Markdown table of the fronts."""
    lines = [
        "| front | members | hypervolume (validation) | best, test | active | knee, test | active | dense, test |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, front in fronts.items():
        best, knee = front.best(front.objectives[0]), front.knee()
        lines.append(
            f"| {name} | {len(front)} | {front.hypervolume():.4f} | {front.test[best]:.4f} | {front.active[best]} "
            f"| {front.test[knee]:.4f} | {front.active[knee]} | {front.dense_test:.4f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", nargs="?", default="digits", help="digits (default) or a features .npz")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs (default: 3)")
    parser.add_argument("--pop", type=int, default=40, help="individuals per generation (default: 40)")
    parser.add_argument("--gens", type=int, default=25, help="generations (default: 25)")
    parser.add_argument("--encoding", default="features", help="what a bit means (default: features)")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 10 individuals, 4 generations")
    parser.add_argument("--out", type=Path, help="folder for the results (default: experiments/results/NAME)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.pop, arguments.gens = 2, 10, 4
    out = arguments.out or Path(__file__).parent / "results" / f"pareto_front_{Path(arguments.data).stem}"
    try:
        if arguments.seeds < 1:
            raise InputError(f"--seeds {arguments.seeds}: use at least 1")
        runs = {}
        for seed in range(1, arguments.seeds + 1):
            runs[f"seed {seed}"] = one_front(arguments.data, seed, out / f"seed{seed}", arguments)
            print(f"seed {seed} of {arguments.seeds}: {len(runs[f'seed {seed}'])} members", flush=True)
        merged = Front.merge(list(runs.values()))
        merged.save(out)
        save_figures(merged, out / "figures")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    volumes = [front.hypervolume() for front in runs.values()]
    text = table({**runs, "merged": merged})
    text += f"\n\nHypervolume over seeds: {np.mean(volumes):.4f} ± {np.std(volumes):.4f} (standard deviation)\n"
    (out / "pareto_front.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nfigures: {out / 'figures'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
