"""Options that several commands share. Nothing heavy is imported: ``--help`` must be quick."""

from __future__ import annotations

import argparse

__all__ = ["add_image_options"]


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
