"""``moevoprune extract``: from images to a file of features."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from moevoprune.cli.building import Voice, configure
from moevoprune.cli.data import extract_images, from_here, image_options, ood_rows
from moevoprune.errors import InputError
from moevoprune.features.ood import choose_ood
from moevoprune.files import make_folder, remove_leftovers
from moevoprune.locks import only_writer_of

__all__ = ["extract"]


def extract(arguments: Namespace) -> int:
    """Carry out ``moevoprune extract``; returns the exit code."""
    out = _target(arguments.out)
    with only_writer_of(out):
        return _extract(arguments, out)


def _extract(arguments: Namespace, out: Path) -> int:
    say = Voice(arguments.quiet)
    options = {**image_options(arguments), "compute.device": ("--device", arguments.device)}
    # a name that torchvision knows is looked for below --root
    images = arguments.images if arguments.root is not None else from_here("data.images", arguments.images)
    config = configure({"data": {"images": images}}, arguments.images, options, [])
    remove_leftovers(out.parent, out.name)
    started = time.monotonic()
    listener = None if arguments.quiet else say
    extractor, extraction = extract_images(config, listener)
    ood = None
    if config.data.ood:
        sources, records = ood_rows(config, None, extractor, extraction, listener)
        counts = {part: len(extraction.images.rows(part)) for part in ("train", "val", "test")}
        # images were compared by content; rows from files can only be compared with rows
        familiar = [extraction.rows()] if any(source.endswith(".npz") for source in config.data.ood) else []
        n_selection = counts["train"] + counts["val"]
        ood = choose_ood(sources, n_selection, counts["test"], config.data.split_seed, familiar)
        extraction = replace(extraction, record={**extraction.record, "ood": records})
        say(f"{len(ood[0])} out-of-distribution rows for the search, {len(ood[1])} for the test")
    extraction.save(out, "float16" if arguments.half else "float32", ood)
    seconds = time.monotonic() - started
    rate = f", {extraction.n_computed / seconds:.0f} images/s" if extraction.n_computed else ""
    say(f"{out}: {len(extraction.images)} rows of {extraction.n_features} features ({seconds:.1f} s{rate})")
    return 0


def _target(given: str) -> Path:
    out = Path(given)
    if out.suffix != ".npz":
        raise InputError(f"--out {given}: give the name of an .npz file")
    if out.is_dir():
        raise InputError(f"--out {given}: is a folder: give the name of an .npz file")
    try:
        make_folder(out.parent)
    except OSError as error:
        raise InputError(f"--out {given}: its folder cannot be made ({error.strerror}): choose another") from None
    return out
