"""Which backbone gives the best fronts?

Extracts the features of one image set through several torchvision networks, evolves a front on each, with the
same split, seeds and number of evaluations, and tabulates them, as EvoPruneDeepTL (arXiv 2202.03844) does for
ResNet-50, DenseNet-121 and VGG-19. Features once extracted are read from the cache.

    python experiments/feature_extractors.py IMAGES
    python experiments/feature_extractors.py IMAGES --backbones resnet50,efficientnet_b0,convnext_tiny --seeds 5
    python experiments/feature_extractors.py --quick        small networks with random weights on enlarged digits
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

from moevoprune import Front, InputError, PruningProblem, evolve
from moevoprune.features import FeatureSet
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.extraction import Extractor
from moevoprune.files import write_text
from moevoprune.fronts.comparison import MethodResult, score

PUBLISHED = "resnet50,densenet121,vgg19"
QUICK = "resnet18,mobilenet_v3_small,squeezenet1_1"
COLUMNS = (
    "backbone",
    "features",
    "seed",
    "members",
    "dense_test",
    "test_of_best",
    "active_of_best",
    "smallest_as_good_as_dense",
    "test_hypervolume",
    "test_hypervolume_log",
)


def digits_as_images(folder: Path) -> Path:
    """Write 40 of scikit-learn's digits per class as image files, for a trial without any image of one's own."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number, row in enumerate(pixels[labels == digit][:40]):
            image = Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8))
            image.save(folder / str(digit) / f"{number:03}.png")
    return folder


def measure(front: Front, backbone: str, features: int, seed: int) -> dict[str, object]:
    """One row of the table."""
    result = MethodResult(
        "", "guided", seed, front.n_bits, front.active, front.column("accuracy"), front.test, 0, 0
    )
    tested = score(result)
    # members are picked by validation, as a user would; test rows only score them
    best = front.best("accuracy")
    level = front.active[front.column("accuracy") >= front.dense_values[front.objectives.index("accuracy")]]
    return {
        "backbone": backbone,
        "features": features,
        "seed": seed,
        "members": len(front),
        "dense_test": front.dense_test,
        "test_of_best": float(front.test[best]),
        "active_of_best": int(front.active[best]),
        "smallest_as_good_as_dense": int(level.min()) if len(level) else features,
        "test_hypervolume": tested["test_hypervolume"],
        "test_hypervolume_log": tested["test_hypervolume_log"],
    }


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: means over the seeds, one line per backbone."""
    heads = [column for column in COLUMNS if column != "seed"]
    lines = [
        "| " + " | ".join(head.replace("_", " ") for head in heads) + " |",
        "|---" + "|---:" * (len(heads) - 1) + "|",
    ]
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == backbone]
        cells = [str(backbone), str(own[0]["features"])]
        for head in heads[2:]:
            mean = float(np.mean([float(str(row[head])) for row in own]))
            cells.append(f"{mean:.4f}" if "test" in head and "active" not in head else f"{mean:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def extract(backbone: str, images: str, arguments: argparse.Namespace) -> FeatureSet:
    """Features of the images through one backbone."""
    settings = BackboneSettings(name=backbone, weights=arguments.weights, size=arguments.size, crop=arguments.size)
    extractor = Extractor(settings, arguments.device)
    return extractor.extract(images, arguments.root, arguments.download).to_feature_set()


def run(images: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Every backbone with every seed."""
    rows = []
    for backbone in arguments.backbones.split(","):
        data = extract(backbone, images, arguments)
        for seed in range(1, arguments.seeds + 1):
            problem = PruningProblem(data, objectives=["accuracy", "active_neurons", "cka"], seed=seed)
            front = evolve(problem, budget=arguments.budget, seed=seed)
            rows.append(measure(front, backbone, data.n_features, seed))
        print(f"{backbone}: {data.n_features} features, {arguments.seeds} seeds done", flush=True)
    return rows


def main() -> int:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", metavar="IMAGES", help="an image folder or a torchvision data set")
    parser.add_argument("--backbones", help=f"default: {PUBLISHED}; with --quick: {QUICK}")
    parser.add_argument("--weights", default="default", help="default, or none for random ones")
    parser.add_argument("--size", type=int, help="pixels that the networks see (default: each one's own)")
    parser.add_argument("--root", help="folder of torchvision data sets")
    parser.add_argument("--download", action="store_true", help="let torchvision download the data set")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N")
    parser.add_argument("--budget", type=int, default=600, help="evaluations of each search")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="minutes: small random networks, one seed")
    parser.add_argument("--out", type=Path, help="Markdown file; a .csv is written beside it")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.budget, arguments.weights = 1, 80, "none"
        arguments.size = arguments.size or 64
    elif arguments.images is None:
        parser.error("name the IMAGES, or try --quick")
    arguments.backbones = arguments.backbones or (QUICK if arguments.quick else PUBLISHED)
    name = "feature_extractors_quick.md" if arguments.quick else "feature_extractors.md"
    out = arguments.out or Path(__file__).parent / "results" / name
    try:
        with tempfile.TemporaryDirectory() as folder:
            images = arguments.images or str(digits_as_images(Path(folder) / "digits_as_images"))
            rows = run(images, arguments)
        text = (
            f"# Backbones compared on {Path(images).name}\n\nMeans of {arguments.seeds} seeds, {arguments.budget} "
            f"evaluations each, weights: {arguments.weights}. Test rows only score the finished fronts.\n\n"
            f"{table(rows)}\n"
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
        with open(out.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except InputError as error:
        print(f"feature_extractors: error: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(rows)}\n\n{out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
