"""Constructed networks on scikit-learn's bundled sets: against others of their size, and by measure.

The first part is ``moevoprune construct --seeds N`` itself. The second asks which measure of variability finds the
smallest networks: for each, how many parameters the smallest network has whose cross-validated score is at most
half a point below the best. All measures have the same large networks and folds; no test row is looked at.

    python benchmarks/construction.py --seeds 5 --out construction.md
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from moevoprune.cli.main import main as moevoprune
from moevoprune.construction.settings import EPSILONS, ConstructionSettings
from moevoprune.construction.sweep import sweep
from moevoprune.construction.tables import BUNDLED, open_table, split_table
from moevoprune.device import usable_cores
from moevoprune.files import write_text
from moevoprune.fronts.tables import markdown_table

# thresholds of a measure are of its own unit
GRIDS = {
    "contribution": EPSILONS,
    "relative_deviation": EPSILONS,
    "share_of_largest": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "deviation": (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--measure-seeds", type=int, default=1, metavar="N", help="of the second part; 0 for none")
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "construction.md")
    options = parser.parse_args(arguments)
    lines = [*table(options.seeds, options.quick), ""]
    if options.measure_seeds:
        lines += [*measures(options.measure_seeds, options.quick), ""]
    lines.append(f"{date.today()}, Python {platform.python_version()}, {usable_cores()} cores.")
    write_text(options.out, "\n".join(lines) + "\n")
    return 0


def table(seeds: int, quick: bool) -> list[str]:
    """What the command itself writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        words = ["construct", *(["wine", "--quick"] if quick else []), "--seeds", str(seeds), "--out", str(out)]
        if moevoprune(words) != 0:
            sys.exit(1)
        return (out / "construct.md").read_text(encoding="utf-8").splitlines()


def measures(seeds: int, quick: bool) -> list[str]:
    """Parameters that are left, and the gain in score, by set and measure."""
    rows = [["data", *(f"`{measure}`" for measure in GRIDS)]]
    for name in ("wine",) if quick else BUNDLED:
        found = np.array([smallest(name, seed, quick) for seed in range(1, seeds + 1)]).mean(axis=0)
        rows.append([name, *(f"{100 * left:.1f} % ({gain:+.4f})" for left, gain in found)])
        print(*rows[-1], sep="  ", flush=True)
    return [
        "## Measures of variability",
        "",
        "Share of the parameters that is left in the smallest network within .005 of the best, and its "
        f"cross-validated score less the large network's; {seeds} seed{'s' if seeds > 1 else ''}.",
        "",
        *markdown_table(rows),
    ]


def smallest(name: str, seed: int, quick: bool) -> list[tuple[float, float]]:
    """By measure: share of parameters and gain in score of what its sweep chooses."""
    features = split_table(open_table(name), seed)
    settings = ConstructionSettings(repeats=1, **({"hidden": (8, 8), "epochs": 2, "cv": 2} if quick else {}))
    found = []
    for measure, epsilons in GRIDS.items():
        settings = settings.model_copy(update={"measure": measure, "epsilons": epsilons})
        swept = sweep(features, settings, seed)
        # chosen once: it has nothing to do with the measure
        settings = settings.model_copy(update={"weight_decay": swept.weight_decay})
        chosen = swept.points[swept.chosen]
        found.append((chosen.parameters / swept.large.parameters, chosen.score - swept.large.score))
    return found


if __name__ == "__main__":
    sys.exit(main())
