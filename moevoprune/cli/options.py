"""Options that several commands share, and how slips in them are said.

Nothing heavy is imported: ``--help`` must be quick.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from moevoprune.errors import one_line

__all__ = ["OneLineParser", "add_engine_options", "add_image_options", "add_search_options"]


class OneLineParser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on what is searched for, and how.

    Parameters
    ----------
    parser
        Of a command that searches.
    """
    parser.add_argument(
        "--algorithm",
        metavar="NAME",
        help="guided (default), nsga2 (plain NSGA-II with bit-flip mutation); published: reference "
        "(MO-EvoPruneDeepTL), deep_pruning_es (DeepPruningES), evo_prune_deeptl (EvoPruneDeepTL, quality alone); "
        "to compare with: nsga3, sms_emoa, age_moea, spea2, random",
    )
    parser.add_argument(
        "--pop",
        type=int,
        metavar="N",
        help="individuals per generation (default: 40; published ones: 30)",
    )
    parser.add_argument(
        "--gens",
        type=int,
        metavar="N",
        help="generations (default: 25; deep_pruning_es: 11; reference, evo_prune_deeptl: 200 evaluations)",
    )
    parser.add_argument(
        "--encoding",
        metavar="E",
        help="what a bit means: features (default), neurons, neurons:1, neurons:2, neurons:both, "
        "features+neurons, connections",
    )
    parser.add_argument(
        "--objectives",
        metavar="A,B,C",
        help="accuracy, r2, mse, active_neurons, cka, cka:noise, cka:dense, and with out-of-distribution rows "
        "(--ood) ood_auroc, which is ood_auroc:temperature, ood_auroc:msp, ood_auroc:odin, ood_auroc:energy "
        "(default: accuracy,active_neurons,cka; for regression r2,active_neurons,cka)",
    )
    parser.add_argument(
        "--cv",
        type=int,
        metavar="K",
        help="folds that score a mask, inside the training rows; 1 for a 25%% hold-out "
        "(default: 5 below 2,000 rows, else 1)",
    )
    parser.add_argument("--device", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="any other setting, e.g. --set epochs=40, --set hidden=[32,16], --set preset=paper, "
        "--set task=regression, --set max_active=100, --set chunk=3 (individuals trained at once; changes nothing "
        "but memory); may be repeated; the config.toml of any run lists them all",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on other machines.

    Parameters
    ----------
    parser
        Of a command that can work on several machines.
    """
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        metavar="E",
        help="where heads are trained: local (default: on this machine) or ray (on a Ray cluster, or the cores of "
        "this machine); the same results (docs/cluster.md)",
    )
    parser.add_argument(
        "--address",
        metavar="A",
        help="of --engine ray: the cluster, auto, HOST:PORT or ray://HOST:PORT (default: a Ray of its own on this "
        "machine)",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on images, backbones and out-of-distribution data.

    Parameters
    ----------
    parser
        Of a command that takes images.
    """
    group = parser.add_argument_group(
        "images", "how images become features; what was extracted before is read from the cache"
    )
    group.add_argument(
        "--backbone",
        metavar="NAME",
        help="any torchvision classification network, e.g. resnet50 (default), mobilenet_v2, vit_b_16",
    )
    group.add_argument(
        "--backbone-arg",
        action="append",
        metavar="KEY=VALUE",
        help="an argument of its constructor, e.g. width_mult=0.35; may be repeated",
    )
    group.add_argument(
        "--weights",
        metavar="W",
        help="default (torchvision's, downloaded once), the name of other torchvision weights, a file with a "
        "state dict, or none (random: for trials only)",
    )
    group.add_argument(
        "--layer",
        metavar="NODE",
        help="take the features from another node of the network (default: the pooled ones)",
    )
    group.add_argument("--size", type=int, metavar="N", help="pixels of the shorter side after resizing")
    group.add_argument("--crop", type=int, metavar="N", help="pixels of the central square that the network sees")
    group.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="mean that is subtracted")
    group.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="deviation that is divided by")
    group.add_argument(
        "--interpolation",
        metavar="I",
        help="nearest, bilinear, bicubic or lanczos (defaults of all these: the weights' own)",
    )
    group.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help="share of each class to hold back as test rows where the images come without a split (default: 0.25)",
    )
    group.add_argument("--split-seed", type=int, metavar="N", help="seed of that split (default: 0)")
    group.add_argument(
        "--ood",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="out-of-distribution data: folders of images or .npz of features; balanced, and split into rows for "
        "the search and rows for the test",
    )
    group.add_argument(
        "--root", metavar="DIR", help="folder of torchvision data sets, and of the images a problem file names"
    )
    group.add_argument("--download", action="store_true", help="let torchvision download the data set into --root")
    group.add_argument(
        "--skip-bad", action="store_true", help="list and leave out files that are no images, instead of stopping"
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes that decode images (default: 0 on CPU)")
    group.add_argument("--batch-size", type=int, metavar="N", help="images at a time (default: 32; 128 on CUDA)")
    group.add_argument(
        "--full-precision", action="store_true", help="compute in float32 on CUDA too, instead of mixed precision"
    )
