"""DeepPruningES's three networks: how much do they lose, and does magnitude pruning do as well at equal FLOPs?

DeepPruningES (arXiv 1912.11527) returns three pruned networks, boundary heavy, knee and boundary light. Its
search and our guided one, at equal evaluations, prune a CNN, a ResNet and a DenseNet on scikit-learn's digits,
and a ResNet-20 on images of CIFAR-10 where these and its weights are named, as `moevoprune filters` does it. The
three networks get the same final training as the original and as magnitude pruning at the knee's FLOPs. Networks
are chosen by validation images; the test images score them. Whatever is finished is kept in --work, and searches
begun are gone on with.

    python experiments/filter_pruning.py --quick
    python experiments/filter_pruning.py digits cifar10_small.npz --weights resnet20_cifar10.pth \\
        --mean .485 .456 .406 --std .229 .224 .225
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from moevoprune import InputError
from moevoprune.device import usable_cores
from moevoprune.filters.images import BUILT_IN
from moevoprune.filters.plots import plot_filter_fronts
from moevoprune.filters.settings import PruningSettings
from moevoprune.studies.filter_networks import SEARCHES, group_results, network_rows, networks_table
from moevoprune.studies.filter_networks_claims import (
    guided_ahead,
    knee_ahead_of_magnitude,
    little_loss,
    three_networks,
)
from moevoprune.studies.filter_parts import FilterPart, prune_parts
from moevoprune.studies.study import Study, run_study

# with these populations both searches end after the same number of evaluations
BUILT_IN_FORM = {"pop": 18, "budget": 108}
FILE_FORM = {"pop": 12, "budget": 48, "search_images": 320, "epochs": 1, "augment": "flip"}
QUICK_FORM = {"pop": 6, "budget": 12, "search_images": 64, "epochs": 1}


def carry_out(study: Study) -> None:
    """Prune all networks, and say what came out."""
    arguments = study.arguments
    parts = [FilterPart.load(source, settings_of(source, study), arguments.work) for source in arguments.data]
    results = prune_parts(parts, study.seeds, arguments.jobs or usable_cores(), study.say)
    groups = group_results(results)
    study.rows += [row for result in results for row in network_rows(result)]
    study.sections += [
        "\n".join(f"* {part.describe()}" for part in parts),
        networks_table(groups),
        three_networks(groups),
        little_loss(groups),
        knee_ahead_of_magnitude(groups),
        guided_ahead(groups),
    ]
    study.write("Filters of whole networks (DeepPruningES)", about(study), plot_filter_fronts(results))


def settings_of(source: str, study: Study) -> PruningSettings:
    """How to prune the networks of a set of images."""
    arguments = study.arguments
    chosen: dict[str, Any] = {"algorithms": tuple(SEARCHES), "seeds": len(study.seeds)}
    if source in BUILT_IN:
        chosen |= BUILT_IN_FORM
    else:
        chosen |= {**FILE_FORM, "networks": (arguments.network,), "weights": arguments.weights}
        chosen |= {name: getattr(arguments, name) and tuple(getattr(arguments, name)) for name in ("mean", "std")}
    settings = PruningSettings.checked({**chosen, **(QUICK_FORM if study.quick else {})})
    if settings.weights is not None and not Path(settings.weights).is_file():
        raise InputError(f"--weights {settings.weights}: is no file")
    return settings


def about(study: Study) -> str:
    """What was run, and how to read it."""
    trial = "A trial: from the quick form nothing can be concluded.\n\n"
    return (
        f"`{study.command}`\n\n{trial if study.quick else ''}"
        f"Means with 95 % intervals (Student's) over seeds 1 to {len(study.seeds)}. A seed changes the fifth of "
        "the training images that scores candidates, the images that candidates are trained on, the search and "
        "the order of the batches; where the network is trained here, its start weights and training too. "
        "Weights trained elsewhere and the test images stay the same. The network had been trained on the "
        "images that score its candidates, elsewhere or here, so validation errors are too low; the test errors "
        "are not, as the test images are read once, when all networks are chosen and trained. FLOPs are "
        "multiply-accumulates for one image.\n\n"
        "Settings were chosen by cost, before any result was seen. As published are the objectives, the three "
        "networks, and start, flip probability and elites of DeepPruningES's search. Not as published are its "
        "populations (30 in 11 generations there), the networks (smaller), the training of candidates and the "
        "final training (shorter). The paper's tables are not known to us: what is tested are its claims."
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this experiment."""
    images = parser.add_argument_group("networks for .npz files of images")
    images.add_argument(
        "--network", default="resnet20", metavar="N", help="as `moevoprune filters` takes it (default: resnet20)"
    )
    images.add_argument(
        "--weights", metavar="FILE", help="its trained weights (default: it is trained here first)"
    )
    images.add_argument(
        "--mean", type=float, nargs="+", metavar="M", help="what the weights' inputs were centred by"
    )
    images.add_argument(
        "--std", type=float, nargs="+", metavar="S", help="and divided by (defaults: the training images' own)"
    )


if __name__ == "__main__":
    data_help = "digits (default), .npz files of images (uint8 X_train, y_train, X_test, y_test)"
    sys.exit(run_study("filter_pruning", __doc__, carry_out, 3, {"seeds": 2}, add_options, data_help=data_help))
