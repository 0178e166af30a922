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
from pathlib import Path
from typing import Any

from moevoprune.errors import whole_number
from moevoprune.studies.backbone_comparison import HOW_JUDGED, backbone_row, backbones_table, claim_sections
from moevoprune.studies.backbone_comparison_figure import plot_backbones
from moevoprune.studies.backbone_variants import backbone_variants
from moevoprune.studies.digit_images import digits_as_images
from moevoprune.studies.study import MOST_EVALUATIONS, Settings, Study, run_study

PUBLISHED = "resnet50,densenet121,vgg19"
QUICK = "resnet18,mobilenet_v3_small,squeezenet1_1"
DIGITS = "digits"
DATA = "folders of images or torchvision data sets (default: digits, which are written as images)"
ABOUT = """`{command}`

Seeds 1 to {seeds}, {budget} evaluations of the guided search on the features of each backbone, for accuracy,
active neurons and CKA, with the same split. Means over the seeds with 95 % intervals (Student) in brackets;
accuracies and hypervolumes are of the test rows, which only score: members are picked by validation.
Hypervolume: of (test error, share of active features), the second time with the features on a logarithmic
scale. Where no member is as good as the dense head on validation, the dense head counts.{trial}

EvoPruneDeepTL compares ResNet-50, DenseNet-121 and VGG-19 and finds its evolved heads ahead of the dense head
with each, by test accuracy, which was its fitness too. Its figures are of other data. The weights of these three
networks have to be downloaded; the command above says which backbones were compared here."""


def variants(arguments: argparse.Namespace) -> dict[str, Settings]:
    """Settings of the searches on every backbone's features."""
    common: dict[str, Any] = {
        "problem.objectives": ["accuracy", "active_neurons", "cka"],
        "search.algorithm": "guided",
        "search.budget": whole_number("--budget", arguments.budget, 1, MOST_EVALUATIONS),
        "compute.device": arguments.device,
        "data.root": None if arguments.root is None else str(arguments.root.absolute()),
        "data.download": arguments.download,
    }
    weights, size = arguments.weights, arguments.size
    return backbone_variants(arguments.backbones, common, weights, size, arguments.weights_folder)


def carry_out(study: Study) -> None:
    """Run the searches on the features of every backbone, and compare what they found."""
    arguments = study.arguments
    if arguments.backbones is None:
        arguments.backbones = QUICK if study.quick else PUBLISHED
    searches = variants(arguments)
    sources = [
        str(digits_as_images(arguments.work / "digits_as_images")) if source == DIGITS else source
        for source in arguments.data
    ]
    runs = study.sweep(searches, sources)
    study.rows += [backbone_row(run) for run in runs]
    for data, run in {run.name: run for run in runs}.items():
        features = run.features()
        images = f"{features.n_train:,} training and {features.n_test:,} test images, {features.n_classes} classes"
        study.sections += [f"## {data}: {images}", backbones_table(study.rows, data)]
    study.sections += ["## Does the claim hold?", HOW_JUDGED, *claim_sections(study.rows, not study.quick)]
    study.write("Backbones compared", about(study), plot_backbones(study.rows))


def about(study: Study) -> str:
    """What was run."""
    trial = " **Quick form: nothing can be concluded.**" if study.quick else ""
    seeds, budget = study.arguments.seeds, study.arguments.budget
    return ABOUT.format(command=study.command, seeds=seeds, budget=budget, trial=trial)


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
