"""Every command once, small, in this process: what it is given, and where it may write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from moevoprune import FeatureSet
from moevoprune.cli.main import main

__all__ = ["COMMANDS", "FAST", "Command", "prepare"]

_QUICK = "--pop 4 --gens 2 --cv 2 --set epochs=1 --set hidden=[4] --jobs 1"
_BACKBONE = "--backbone squeezenet1_1 --weights none --size 32"


@dataclass(frozen=True)
class Command:
    """What is typed, ``out`` being where it writes; other outputs are folders that exist already."""

    words: str
    also: tuple[str, ...] = ()

    def carry_out(self, out: Path) -> int:
        return main([word.replace("OUT", str(out)) for word in self.words.split()])


COMMANDS = {
    "run": Command(f"run f.npz --out OUT {_QUICK}"),
    "run without --out": Command(f"run f.npz --no-baselines {_QUICK}", ("runs",)),
    "run --resume": Command("run --out run --resume --no-baselines", ("run",)),
    "show": Command("show run"),
    "plot": Command("plot run", ("run",)),
    "report": Command("report run", ("run",)),
    "report --out": Command("report run other --out OUT/page.html"),
    "problems": Command("problems"),
    "explain": Command("explain run --out OUT"),
    "ensemble": Command("ensemble run --out OUT"),
    "robustness": Command("robustness run --noise 1 --repeats 1 --out OUT"),
    "export safetensors": Command("export run --to OUT/h.safetensors"),
    "compare-runs": Command("compare-runs run other --out OUT"),
    "error": Command("run nothing.npz --out OUT"),
    "export onnx": Command("export run --to OUT/h.onnx"),
    "export pt2": Command("export run --to OUT/h.pt2"),
    "sweep": Command(f"sweep f.npz --seeds 1 --out OUT {_QUICK}"),
    "compare": Command("compare f.npz --methods dense,anova --seeds 1 --jobs 1 --cv 2 --set epochs=1 --out OUT"),
    "extract": Command(f"extract images {_BACKBONE} --out OUT/f.npz"),
    "run images": Command(f"run images {_BACKBONE} --no-baselines --out OUT {_QUICK}"),
    "explain images": Command("explain shots --images images --per-class 1 --top 2 --out OUT"),
    "robustness images": Command(
        "robustness shots --corruptions jpeg --severities 1 --limit 2 --noise 1 --out OUT"
    ),
    "filters": Command(
        "filters bars.npz --network cnn --budget 6 --pop 6 --search-images 20 --epochs 1 --jobs 1 --export onnx"
        " --out OUT"
    ),
    "construct": Command(
        "construct t.csv --target y --hidden 6 --epochs 2 --cv 2 --epsilon 0,1 --jobs 1 --budget 0 --to OUT/n.onnx"
        " --out OUT/tables"
    ),
}
FAST = tuple(COMMANDS)[: tuple(COMMANDS).index("error") + 1]


def prepare(here: Path, images: bool) -> None:
    """Write what the commands read into the current folder; runs on images take longest."""
    generator = np.random.default_rng(1)
    labels = np.arange(60) % 3
    rows = generator.normal(size=(60, 9)) + labels[:, None]
    parts = {"X_train": rows[:40], "y_train": labels[:40], "X_test": rows[40:], "y_test": labels[40:]}
    FeatureSet(**parts).save(here / "f.npz")
    for seed, name in ((1, "run"), (2, "other")):
        assert main(f"run f.npz --out {name} --seed {seed} --no-baselines --quiet {_QUICK}".split()) == 0
    if not images:
        return
    for number in range(24):
        path = here / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (34, 34, 3), dtype=np.uint8)).save(path)
    command = f"run images {_BACKBONE} --no-baselines --quiet --out shots --test-fraction 0.3 {_QUICK}"
    assert main(command.split()) == 0
    pixels = generator.integers(0, 255, (60, 6, 6), dtype=np.uint8)
    split = {"X_train": pixels[:40], "X_test": pixels[40:], "y_train": labels[:40], "y_test": labels[40:]}
    np.savez(here / "bars.npz", **split)
    lines = [f"{a:.3f},{b:.3f},{label}" for (a, b), label in zip(rows[:, :2], labels, strict=True)]
    (here / "t.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
