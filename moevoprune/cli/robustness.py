"""``moevoprune robustness``: accuracy of members and ensembles under noise and image corruptions.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, whole_number
from moevoprune.fronts.run_folder import ROBUSTNESS, ROBUSTNESS_FIGURE, SETTINGS, entry, read_record
from moevoprune.fronts.tables import aligned
from moevoprune.fronts.wording import short_number

if TYPE_CHECKING:
    from moevoprune.cli.building import Voice
    from moevoprune.cli.config import RunConfig
    from moevoprune.features import FeatureSet
    from moevoprune.features.extraction import Extraction, Extractor
    from moevoprune.fronts.front import Front
    from moevoprune.fronts.robustness import Predictor, RobustnessCurve

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "robustness"]

HELP = "accuracy of members and ensembles under noise and image corruptions"
DESCRIPTION = (
    "Measure the test accuracy of a run's knee, its best member, the dense head and the default ensemble while "
    "Gaussian noise on the features rises, and, for runs on images, while the test images are corrupted more and "
    "more (as in ImageNet-C). Writes robustness.csv and figures/robustness.png."
)

_LARGEST_SEED = 2**32 - 1
_LARGEST = 1_000_000


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--member",
        action="append",
        metavar="M",
        help="a further member, by its number in the table that show prints; may be repeated",
    )
    parser.add_argument(
        "--noise",
        default="0,0.25,0.5,1,2",
        metavar="A,B,C",
        help="noise on the features, in training standard deviations of each (default: 0,0.25,0.5,1,2)",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="how often that noise is drawn (default: 5)"
    )
    parser.add_argument(
        "--corruptions",
        metavar="A,B,C",
        help="gaussian_noise, shot_noise, gaussian_blur, motion_blur, brightness, contrast, jpeg, pixelate "
        "(default: all)",
    )
    parser.add_argument(
        "--severities",
        default="1,2,3,4,5",
        metavar="A,B,C",
        help="how strongly images are corrupted, out of 1 to 5 (default: all five)",
    )
    parser.add_argument(
        "--limit", type=int, default=256, metavar="N", help="test images to corrupt at most (default: 256)"
    )
    parser.add_argument("--features-only", action="store_true", help="leave the images out")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of everything random (default: 1)")
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="the run's images, where they have moved; or those that a run's file of features was extracted from",
    )
    parser.add_argument("--data", metavar="FILE", help="the run's features, where that file has moved")
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's weights, where they have moved since the run"
    )
    parser.add_argument("--device", metavar="D", help="auto (default), cpu, cuda or cuda:N; for the backbone")
    parser.add_argument(
        "--skip-bad", action="store_true", help="list and leave out files that are no images, instead of stopping"
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: RUN)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def robustness(arguments: Namespace) -> int:
    """Carry out ``moevoprune robustness``; returns the exit code."""
    from moevoprune.cli.building import Voice
    from moevoprune.cli.runs import load_front, member_of, run_features
    from moevoprune.features.corruptions import resolve_corruptions
    from moevoprune.files import write_text
    from moevoprune.fronts.plots import plot_robustness, save_figure
    from moevoprune.fronts.robustness import feature_noise, predictors_of, to_csv

    say = Voice(arguments.quiet)
    if arguments.out == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    noise = _numbers("--noise", arguments.noise, float)
    severities = _numbers("--severities", arguments.severities, int)
    for severity in severities:
        whole_number("--severities", severity, 1, 5)
    kinds = resolve_corruptions(None if arguments.corruptions is None else _words(arguments.corruptions))
    limit = whole_number("--limit", arguments.limit, 1)
    repeats = whole_number("--repeats", arguments.repeats, 1, 10_000)
    seed = whole_number("--seed", arguments.seed, 0, _LARGEST_SEED)
    run = Path(arguments.run)
    front = load_front([run])
    members = [member_of(front, text) for text in arguments.member or []]
    out = run if arguments.out is None else Path(arguments.out)

    predictors = predictors_of(front, members)
    pictures = _pictures(run, read_record(run), arguments, say)
    features: FeatureSet
    if pictures is not None and pictures.has_features and arguments.data is None:
        features = pictures.extraction.to_feature_set()
    else:
        features = run_features(run, arguments.data, None if arguments.quiet else say)
    for line in _about(front, predictors):
        say(line)
    curves = feature_noise(predictors, features, noise, seed, repeats)
    metric = "accuracy" if features.task == "classification" else "R²"
    say(f"\ntest {metric}, noise on the features in training standard deviations, ± standard error:")
    _print_table(curves, say)
    if pictures is not None and not arguments.features_only:
        corrupted, n_images = pictures.curves(predictors, kinds, severities, limit, seed, arguments.quiet)
        say(f"\ntest accuracy on {n_images} images, mean over {len(kinds)} corruptions by severity:")
        _print_table(_means(corrupted), say, errors=False)
        say("\nby corruption, mean over the severities:")
        _print_by_kind(corrupted, say)
        curves += corrupted
    figure = save_figure(plot_robustness(curves), out / ROBUSTNESS_FIGURE)
    write_text(out / ROBUSTNESS, to_csv(curves))
    say(f"\nwritten to {out}: {ROBUSTNESS}, {figure.relative_to(out)}")
    return 0


class _Pictures:
    """The images of a run, behind the backbone that its features came from.

    Attributes
    ----------
    extraction
        The images with their parts, and their features.
    has_features
        Whether the run itself took its features from these images, not from a file.
    """

    def __init__(self, extractor: Extractor, extraction: Extraction, has_features: bool) -> None:
        self.extraction = extraction
        self.has_features = has_features
        self._backbone = extractor.backbone

    def curves(
        self,
        predictors: Mapping[str, Predictor],
        kinds: Sequence[str],
        severities: Sequence[int],
        limit: int,
        seed: int,
        quiet: bool,
    ) -> tuple[list[RobustnessCurve], int]:
        """Accuracy on corrupted test images, and how many of them were taken."""
        from tqdm import tqdm

        from moevoprune.features.decoding import UnreadableImageError
        from moevoprune.fronts.predictions import evenly
        from moevoprune.fronts.robustness import image_corruptions

        images = self.extraction.images
        test = images.rows("test")
        # they are ordered by class, so that classes keep their shares
        chosen = test[evenly(len(test), limit)].tolist()
        try:
            crops = [self._backbone.preprocessing.cropped(images.open(index)) for index in chosen]
        except UnreadableImageError as error:
            raise InputError(f"{images.name}: an image was changed while it was read ({error.reason})") from None
        # None: no bar where nobody sees it
        with closing(
            tqdm(desc="corrupting", unit=" images", disable=quiet or None, leave=False, file=sys.stderr)
        ) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            labels = images.labels[chosen]
            curves = image_corruptions(
                predictors, self._backbone, crops, labels, kinds, severities, seed, progress
            )
        return curves, len(chosen)


def _pictures(run: Path, record: dict[str, Any], arguments: Namespace, say: Voice) -> _Pictures | None:
    """Find the images of a run and load its backbone; None where it is to do without."""
    from moevoprune.cli.data import extract_images
    from moevoprune.features.backbones import same_backbone

    if arguments.features_only and arguments.data is not None:
        return None
    settings = _image_settings(run, record, arguments, say)
    if settings is None:
        return None
    config, has_features = settings
    extractor, extraction = extract_images(config, None if arguments.quiet else say)
    recorded = entry(record, "extraction")
    if entry(recorded, "images_sha256") not in (None, extraction.record["images_sha256"]):
        raise InputError(
            f"{config.data.images}: are not the images of {run}, or not all of them: their content has another "
            "SHA-256; name the run's own with --images FOLDER, or leave them out with --features-only"
        )
    if not same_backbone(extraction.record, recorded or {}):
        raise InputError(
            f"{run}: its features came through other weights, another layer or another preprocessing than "
            f"{extractor.backbone.settings.name} has now: name the run's weights with --weights FILE"
        )
    return _Pictures(extractor, extraction, has_features)


def _image_settings(
    run: Path, record: dict[str, Any], arguments: Namespace, say: Voice
) -> tuple[RunConfig, bool] | None:
    """Settings under which the images of a run are read again, and whether its own config names images."""
    from moevoprune.cli.building import configure
    from moevoprune.cli.config import exists, read_toml
    from moevoprune.cli.data import from_here

    raw = read_toml(run / SETTINGS) if exists(run / SETTINGS) else {}
    data = raw.get("data")
    has_images = isinstance(data, dict) and "images" in data
    if isinstance(data, dict) and has_images:
        # of no use here, and they may have moved
        data.pop("ood", None)
    else:
        backbone = entry(record, "extraction", "backbone", "settings")
        if arguments.images is None:
            if isinstance(backbone, dict) and not arguments.features_only:
                say("the run read a file of features: with --images FOLDER, their images are corrupted too")
            return None
        if not isinstance(backbone, dict):
            raise InputError(
                f"{run}: its features were not extracted from images by moevoprune, so there is no telling which "
                "network --images should go through: leave --images out"
            )
        split = entry(record, "extraction", "split")
        raw = {"data": dict(split) if isinstance(split, dict) else {}, "backbone": dict(backbone)}
    options = {
        "data.images": ("--images", _absolute(arguments.images)),
        "data.skip_bad": ("--skip-bad", arguments.skip_bad),
        "backbone.weights": (
            "--weights",
            None if arguments.weights is None else from_here("backbone.weights", arguments.weights),
        ),
        "compute.device": ("--device", arguments.device or "auto"),
    }
    return configure(raw, str(run / SETTINGS), options, []), has_images


def _absolute(folder: str | None) -> str | None:
    if folder == "":
        raise InputError("--images is empty: name a folder, or leave it out")
    return None if folder is None else str(Path(folder).absolute())


def _about(front: Front, predictors: Mapping[str, Predictor]) -> list[str]:
    """What the names stand for, one line each."""
    numbers = {id(head): number for number, head in enumerate(front.heads)}
    lines = []
    for name, predictor in predictors.items():
        known = f"member {numbers[id(predictor)]}" if id(predictor) in numbers else ""
        n_members = getattr(predictor, "n_members", None)
        if n_members is not None:
            known = f"{n_members} members"
        inputs = getattr(predictor, "inputs", None)
        size = "" if inputs is None else f"{len(inputs):,} of {front.dense_head.n_features:,} features"
        parts = [part for part in (known if known != name else "", size) if part]
        lines.append(f"{name}: {', '.join(parts)}")
    if "ensemble" not in predictors:
        lines.append("there is no ensemble: the run has no validation predictions to choose members by")
    return lines


def _print_table(curves: Sequence[RobustnessCurve], say: Callable[[str], None], errors: bool = True) -> None:
    """One line per predictor, one column per severity."""
    table = [["", *(f"{severity:g}" for severity in curves[0].severities)]]
    for curve in curves:
        cells = [
            f"{short_number(value)} ±{short_number(error)}" if errors else short_number(value)
            for value, error in zip(curve.accuracy, curve.error, strict=True)
        ]
        table.append([curve.name, *cells])
    for line in aligned(table):
        say(line)


def _print_by_kind(curves: Sequence[RobustnessCurve], say: Callable[[str], None]) -> None:
    """One line per corruption, one column per predictor."""
    names = list(dict.fromkeys(curve.name for curve in curves))
    table = [["", *names]]
    for kind in dict.fromkeys(curve.kind for curve in curves):
        found = {curve.name: curve for curve in curves if curve.kind == kind}
        # the first severity is 0: the images as they are
        means = [sum(found[name].accuracy[1:]) / len(found[name].accuracy[1:]) for name in names]
        table.append([kind, *(short_number(mean) for mean in means)])
    for line in aligned(table):
        say(line)


def _means(curves: Sequence[RobustnessCurve]) -> list[RobustnessCurve]:
    """Mean over the kinds for each predictor; without standard errors, as all kinds share their images."""
    import numpy as np

    from moevoprune.fronts.robustness import RobustnessCurve

    names = list(dict.fromkeys(curve.name for curve in curves))
    severities = curves[0].severities
    tables = {name: np.array([curve.accuracy for curve in curves if curve.name == name]) for name in names}
    nothing = (float("nan"),) * len(severities)
    return [
        RobustnessCurve(name, "mean", severities, tuple(table.mean(axis=0).tolist()), nothing)
        for name, table in tables.items()
    ]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str, kind: type[Any]) -> list[Any]:
    try:
        numbers = [kind(word) for word in _words(text)]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= _LARGEST for number in numbers):
        whole = "whole " if kind is int else ""
        raise InputError(f"{option} {text}: give {whole}numbers from 0 to {_LARGEST:,}, separated by commas")
    return numbers
