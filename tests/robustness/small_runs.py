"""Small runs of moevoprune whose results are compared between environments, in one process.

    python tests/robustness/small_runs.py --out FOLDER [--jobs N] [--only NAME ...]

They cover what could depend on the surroundings: the features of the digits (which a network is trained for) and
of images, encodings, objectives, searches, whole networks, constructed networks. ``FOLDER/summary.json`` holds the
SHA-256 of every file that carries results (for .npz files of the arrays, in their order), and the fronts as
numbers. The data are made of Python's ``random()``, the same in all versions, which knows nothing of numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from moevoprune.cli.main import main as moevoprune
from moevoprune.features.feature_set import FeatureSet
from moevoprune.heads import trainer

QUICK = ["--pop", "8", "--gens", "3", "--cv", "2", "--set", "epochs=3", "--set", "hidden=[16]", "--seed", "3"]
# what holds times, versions or the place of files; pictures and pages are drawn from what is compared
LEFT_OUT = {"run.json", "config.toml", "scores.json", "search.json", "settings.json", "filters.csv"}
COMPARED = {".csv", ".npz", ".safetensors", ".journal"}


def rows(generator: random.Random, count: int, labels: list[int], width: int = 24) -> np.ndarray:
    """Rows of which the first eight columns tell three classes; nearly normal."""
    centres = [[generator.random() * 3 for _ in range(8)] + [0.0] * (width - 8) for _ in range(3)]
    noise = [[sum(generator.random() for _ in range(4)) for _ in range(width)] for _ in range(count)]
    return np.array(noise, dtype=np.float32) + np.array([centres[label] for label in labels], dtype=np.float32)


def make_data(folder: Path) -> None:
    """Write ``data.npz`` with out-of-distribution rows, ``numbers.npz`` for regression, and ``pictures/``."""
    generator = random.Random(11)
    labels = [number % 3 for number in range(150)]
    x = rows(generator, 150, labels)
    ood = rows(generator, 60, [number % 2 for number in range(60)])
    FeatureSet(
        x[:100], np.array(labels[:100]), x[100:], np.array(labels[100:]), X_ood=ood[:30], X_ood_test=ood[30:]
    ).save(folder / "data.npz")
    y = x[:, :2].astype(np.float64) ** 2
    FeatureSet(x[:100], y[:100], x[100:], y[100:], task="regression").save(folder / "numbers.npz")
    for number in range(24):
        place = folder / "pictures" / ("round", "square")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = bytes(int(generator.random() * 256) for _ in range(40 * 40 * 3))
        Image.frombytes("RGB", (40, 40), pixels).save(place / f"{number}.png")


def digits(folder: Path, jobs: str) -> list[str]:
    return ["run", "digits", "--out", str(folder), *QUICK, "--jobs", jobs]


def _on_data(*options: str) -> Callable[[Path, str], list[str]]:
    def words(folder: Path, jobs: str) -> list[str]:
        data = str(folder.parent / "data.npz")
        return ["run", data, "--out", str(folder), *QUICK, "--no-baselines", "--jobs", jobs, *options]

    return words


def regression(folder: Path, jobs: str) -> list[str]:
    return [
        "run",
        str(folder.parent / "numbers.npz"),
        "--out",
        str(folder),
        *QUICK,
        "--jobs",
        jobs,
        "--no-baselines",
    ]


def images(folder: Path, jobs: str) -> list[str]:
    found = ["run", str(folder.parent / "pictures"), "--backbone", "resnet18", "--weights", "none", "--size", "40"]
    return [*found, "--crop", "40", "--out", str(folder), *QUICK, "--jobs", jobs, "--no-baselines"]


def filters(folder: Path, jobs: str) -> list[str]:
    search = ["--budget", "12", "--search-images", "100", "--epochs", "1", "--no-baselines"]
    return ["filters", "--network", "cnn", *search, "--out", str(folder), "--jobs", jobs]


def construct(folder: Path, jobs: str) -> list[str]:
    return ["construct", "wine", "diabetes", "--quick", "--out", str(folder), "--jobs", jobs]


RUNS: dict[str, Callable[[Path, str], list[str]]] = {
    "digits": digits,
    "features": _on_data(),
    "features_neurons": _on_data("--encoding", "features+neurons", "--set", "hidden=[16,8]"),
    "connections": _on_data("--encoding", "connections", "--set", "hidden=[]"),
    "ood": _on_data("--objectives", "accuracy,active_neurons,ood_auroc", "--encoding", "neurons"),
    "nsga2": _on_data("--algorithm", "nsga2", "--set", "repeats=2"),
    "age_moea": _on_data("--algorithm", "age_moea"),
    "regression": regression,
    "images": images,
    "filters": filters,
    "construct": construct,
}


def digest(path: Path) -> str:
    """SHA-256 of a file; of an .npz, of names, types, shapes and values of its arrays."""
    if path.suffix != ".npz":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            found.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
            found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


def summary(folder: Path) -> dict[str, Any]:
    """Digests of the files of one run, and its fronts: masks as hexadecimal digits, with their objectives."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in COMPARED and path.name not in LEFT_OUT)
    fronts = {}
    for path in found:
        if path.name == "front.npz":
            with np.load(path, allow_pickle=False) as arrays:
                masks, values = arrays["masks"], arrays["values"]
            fronts[path.relative_to(folder).as_posix()] = {
                np.packbits(mask).tobytes().hex(): value.tolist()
                for mask, value in zip(masks, values, strict=True)
            }
    return {"files": {path.relative_to(folder).as_posix(): digest(path) for path in found}, "fronts": fronts}


def main() -> int:
    """Carry out the runs and write their summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--jobs", default="1", help="--jobs of the commands (default: 1)")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(RUNS), default=list(RUNS), metavar="NAME", help=str(list(RUNS))
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    make_data(options.out)
    # so short a run would be done before worker processes were asked
    trainer._SECONDS_ALONE = 0.0
    found = {}
    for name in options.only:
        code = moevoprune([*RUNS[name](options.out / name, options.jobs), "--quiet"])
        if code:
            print(f"{name} ended with code {code}")
            return 1
        found[name] = summary(options.out / name)
    (options.out / "summary.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
