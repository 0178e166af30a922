"""Do the evolved heads beat the dense head whatever the backbone, and which backbone is best?

Extracts the features of image sets through several networks, evolves a front on each with the same split, seeds
and number of evaluations, and compares them, as EvoPruneDeepTL (arXiv 2202.03844) does for ResNet-50,
DenseNet-121 and VGG-19. Members are chosen by validation; test rows only score them.

    python experiments/feature_extractors.py IMAGES MORE_IMAGES
    python experiments/feature_extractors.py IMAGES --backbones resnet50,my_network.toml --weights-folder WEIGHTS
    python experiments/feature_extractors.py --quick        small networks with random weights on enlarged digits

A .toml file describes a backbone in its section [backbone], as for `moevoprune run`; experiments/backbones has
some.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from study import Settings, Study, number, paired_table, run_study, shown_higher, verdict

from moevoprune import InputError
from moevoprune.cli.config import exists, read_toml
from moevoprune.cli.sweeping import SweepRun
from moevoprune.fronts.comparison import MethodResult, score
from moevoprune.fronts.plots.style import BLUE, GREY, MEDIUM, ORANGE, SMALL, new_figure, plain, rule
from moevoprune.fronts.statistics import interval
from moevoprune.fronts.tables import markdown_table

PUBLISHED = "resnet50,densenet121,vgg19"
QUICK = "resnet18,mobilenet_v3_small,squeezenet1_1"
DIGITS = "digits"
DATA = "folders of images or torchvision data sets (default: digits, which are written as images)"

TEXTS = {
    "dense_test": "dense head",
    "best_test": "best member",
    "smallest_test": "smallest as good as dense",
    "test_hypervolume": "hypervolume",
    "test_hypervolume_log": "hypervolume, log",
}
# column, name, and how it is drawn
DRAWN: dict[str, tuple[str, dict[str, Any]]] = {
    "dense_test": ("dense head", {"color": GREY, "marker": "D"}),
    "best_test": ("member best on validation", {"color": BLUE, "marker": "o"}),
    "smallest_test": ("smallest as good as dense on validation", {"color": ORANGE, "marker": "v"}),
}
ABOUT = """`{command}`

Seeds 1 to {seeds}, {budget} evaluations of the guided search on the features of each backbone, for accuracy,
active neurons and CKA, with the same split. Means over the seeds with 95 % intervals (Student) in brackets;
accuracies and hypervolumes are of the test rows, which only score: members are picked by validation.
Hypervolume: of (test error, share of active features), the second time with the features on a logarithmic
scale. Where no member is as good as the dense head on validation, the dense head counts.{trial}

EvoPruneDeepTL compares ResNet-50, DenseNet-121 and VGG-19 and finds its evolved heads ahead of the dense head
with each, by test accuracy, which was its fitness too. Its figures are of other data. The weights of these three
networks have to be downloaded; the command above says which backbones were compared here."""
RULE = """Rule: a claim holds in a case (data set and backbone) where the mean difference over the seeds is
above 0 with p at most .05 in a paired t-test, corrected over all cases of the table (Holm); in part where that
is so in some cases."""

# of accuracy, fixed before anything was run
MARGIN = 0.02

Pairs = dict[str, tuple[list[float], list[float]]]


def digits_as_images(folder: Path) -> Path:
    """Write 40 of scikit-learn's digits per class as image files, for a trial without any image of one's own."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for place, row in enumerate(pixels[labels == digit][:40]):
            image = Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8))
            image.save(folder / str(digit) / f"{place:03}.png")
    return folder


def backbone_settings(name: str, arguments: argparse.Namespace) -> tuple[str, Settings]:
    """Name and settings of a backbone: a network of torchvision, or what the [backbone] of a TOML file says."""
    if not name.endswith(".toml"):
        size = {} if arguments.size is None else {"backbone.size": arguments.size, "backbone.crop": arguments.size}
        return name, {"backbone.name": name, "backbone.weights": arguments.weights, **size}
    path = Path(name)
    raw = read_toml(path).get("backbone")
    if not isinstance(raw, dict):
        raise InputError(f"{path}: has no section [backbone]")
    weights = raw.get("weights")
    if isinstance(weights, str) and weights.endswith((".pth", ".pt", ".safetensors")):
        # of a file beside this one the path is absolute already
        file = (arguments.weights_folder or path.parent) / weights
        if not exists(file):
            raise InputError(f"{path}: its weights {weights} are not in {file.parent}: name the --weights-folder")
        raw["weights"] = str(file.absolute())
    return path.stem, {f"backbone.{key}": value for key, value in raw.items()}


def settings_of_all(arguments: argparse.Namespace) -> dict[str, Settings]:
    """Settings of the searches on every backbone's features."""
    common: dict[str, Any] = {
        "problem.objectives": ["accuracy", "active_neurons", "cka"],
        "search.algorithm": "guided",
        "search.budget": arguments.budget,
        "compute.device": arguments.device,
        "data.root": None if arguments.root is None else str(arguments.root.absolute()),
        "data.download": arguments.download,
    }
    names = [name.strip() for name in arguments.backbones.split(",") if name.strip()]
    found = dict(backbone_settings(name, arguments) for name in names)
    if not found or len(found) < len(names):
        raise InputError(f"--backbones {arguments.backbones}: name at least one, and each once")
    return {name: {**common, **settings} for name, settings in found.items()}


def measure(run: SweepRun) -> dict[str, Any]:
    """One line of the CSV file. Members are picked by validation, as a user would; test rows only score them."""
    front = run.front()
    validation = front.column("accuracy")
    best = front.best("accuracy")
    as_good = np.flatnonzero(validation >= front.dense_values[front.objectives.index("accuracy")])
    # members rise in size
    smallest = int(as_good[0]) if len(as_good) else None
    tested = score(
        MethodResult(run.name, "guided", run.seed, front.n_bits, front.active, validation, front.test, 0, 0)
    )
    return {
        "data": run.name,
        "backbone": run.variant,
        "features": front.n_bits,
        "seed": run.seed,
        "members": len(front),
        "dense_test": front.dense_test,
        "best_validation": float(validation[best]),
        "best_test": float(front.test[best]),
        "best_active": int(front.active[best]),
        "smallest_active": front.n_bits if smallest is None else int(front.active[smallest]),
        "smallest_test": front.dense_test if smallest is None else float(front.test[smallest]),
        "test_hypervolume": tested["test_hypervolume"],
        "test_hypervolume_log": tested["test_hypervolume_log"],
    }


class Results:
    """Lines of the CSV file by data set and backbone, each in the order of the seeds."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.data = tuple(dict.fromkeys(row["data"] for row in rows))
        self.backbones = tuple(dict.fromkeys(row["backbone"] for row in rows))

    def column(self, data: str, backbone: str, name: str) -> list[float]:
        """Values of the seeds."""
        return [float(row[name]) for row in self.rows if (row["data"], row["backbone"]) == (data, backbone)]

    def table(self, data: str) -> str:
        """Markdown: a line per backbone."""
        heads = ["backbone", "features", "members", *TEXTS.values(), "features of the best", "of the smallest"]
        table = [heads]
        for backbone in self.backbones:
            counts = [self.column(data, backbone, name) for name in ("features", "members")]
            sizes = [self.column(data, backbone, name) for name in ("best_active", "smallest_active")]
            scores = [interval(self.column(data, backbone, name)).text() for name in TEXTS]
            table.append(
                [
                    backbone,
                    *(f"{np.mean(values):.0f}" for values in counts),
                    *scores,
                    *(interval(values).text(0) for values in sizes),
                ]
            )
        return "\n".join(markdown_table(table))

    def against_dense(self, name: str) -> Pairs:
        """A column and the dense head's, by data set and backbone."""
        return {
            f"{data}, {backbone}": (self.column(data, backbone, name), self.column(data, backbone, "dense_test"))
            for data in self.data
            for backbone in self.backbones
        }

    def against_first(self) -> Pairs:
        """Test accuracy on the backbone that is best by validation, and on every other one."""
        pairs: Pairs = {}
        for data in self.data:
            of_validation = {b: np.mean(self.column(data, b, "best_validation")) for b in self.backbones}
            first = max(of_validation, key=lambda backbone: of_validation[backbone])
            ours = self.column(data, first, "best_test")
            for other in self.backbones:
                if other != first:
                    pairs[f"{data}, {first} against {other}"] = ours, self.column(data, other, "best_test")
        return pairs


def claim_section(said: str, pairs: Pairs, second: str, study: Study) -> list[str]:
    """A table of tests, and whether the first column is shown to be above the second."""
    ahead = shown_higher(pairs)
    behind = shown_higher({name: (theirs, ours) for name, (ours, theirs) in pairs.items()})
    found = "nothing can be concluded" if study.quick else verdict(ahead.values())
    counts = f"shown in {sum(ahead.values())} of {len(pairs)} cases, the opposite in {sum(behind.values())}"
    return [f"### {said}", paired_table(pairs, "evolved", second), f"{said}: **{found}** ({counts})."]


def draw(results: Results) -> Axes:
    """Draw test accuracies with their intervals, a panel per data set and a line per backbone."""
    figure = new_figure((8.6, 1.3 + 0.5 * len(results.backbones)))
    axes = figure.subplots(1, len(results.data), sharey=True, squeeze=False)[0]
    places = np.arange(len(results.backbones))[::-1]
    for ax, data in zip(axes, results.data, strict=True):
        for (name, (label, look)), shift in zip(DRAWN.items(), (0.2, 0.0, -0.2), strict=True):
            estimates = [interval(results.column(data, backbone, name)) for backbone in results.backbones]
            means = np.array([one.mean for one in estimates])
            half = np.nan_to_num([one.high - one.mean for one in estimates])
            ax.errorbar(
                means, places + shift, xerr=half, label=label, linestyle="", markersize=5, capsize=2, **look
            )
        ax.set_title(data, fontsize=MEDIUM)
        ax.set_xlabel("test accuracy", fontsize=SMALL)
        plain(ax)
        rule(ax, "x")
    names = [f"{b}\n{results.column(results.data[0], b, 'features')[0]:,.0f} features" for b in results.backbones]
    axes[0].set_yticks(places, names, fontsize=SMALL)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=SMALL
    )
    first: Axes = axes[0]
    return first


def carry_out(study: Study) -> None:
    """Run the experiment."""
    arguments = study.arguments
    arguments.backbones = arguments.backbones or (QUICK if study.quick else PUBLISHED)
    variants = settings_of_all(arguments)
    sources = [
        str(digits_as_images(arguments.work / "digits_as_images")) if source == DIGITS else source
        for source in arguments.data
    ]
    runs = study.sweep(variants, sources)
    study.rows += [measure(run) for run in runs]
    results = Results(study.rows)
    for data in results.data:
        features = next(run for run in runs if run.name == data).features()
        rows = f"{features.n_train:,} training and {features.n_test:,} test images, {features.n_classes} classes"
        study.sections += [f"## {data}: {rows}", results.table(data)]
    study.sections += ["## Does the claim hold?", RULE]
    best = "The evolved head that is best on validation is more accurate than the dense head"
    study.sections += claim_section(best, results.against_dense("best_test"), "dense", study)
    smallest = (
        f"The smallest one as good as the dense head on validation loses less than {number(MARGIN, 2)} on test"
    )
    less = {
        name: (ours, [v - MARGIN for v in theirs])
        for name, (ours, theirs) in results.against_dense("smallest_test").items()
    }
    study.sections += claim_section(smallest, less, f"dense less {number(MARGIN, 2)}", study)
    if len(results.backbones) > 1:
        first = "The backbone that is best on validation gives more accurate evolved heads than each other one"
        study.sections += claim_section(first, results.against_first(), "other backbone", study)
    about = ABOUT.format(
        command=study.command,
        seeds=arguments.seeds,
        budget=arguments.budget,
        trial=" **Quick form: nothing can be concluded.**" if study.quick else "",
    )
    study.write("Backbones compared", about, draw(results))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this experiment has to choose."""
    parser.add_argument("--backbones", help=f"networks and .toml files (default: {PUBLISHED}; --quick: {QUICK})")
    parser.add_argument("--weights", default="default", help="of networks that are no files: default, or none")
    parser.add_argument(
        "--weights-folder", type=Path, help="where weights of .toml files lie (default: beside them)"
    )
    parser.add_argument("--size", type=int, help="pixels that they see (default: each one's own)")
    parser.add_argument("--root", type=Path, help="folder of torchvision data sets")
    parser.add_argument("--download", action="store_true", help="let torchvision download the data set")
    parser.add_argument("--budget", type=int, default=300, help="evaluations of each search (default: 300)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


if __name__ == "__main__":
    trial = {"seeds": 2, "budget": 60, "weights": "none", "size": 64}
    sys.exit(run_study("feature_extractors", __doc__, carry_out, 5, trial, add_options, data_help=DATA))
