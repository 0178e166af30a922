"""``moevoprune export``: write a member or an ensemble as a small file of its own.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.errors import InputError, printable
from moevoprune.fronts.run_folder import SETTINGS, read_record
from moevoprune.fronts.tables import aligned
from moevoprune.fronts.wording import file_size

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from moevoprune.cli.building import Voice
    from moevoprune.features.backbones import Backbone
    from moevoprune.features.image_set import ImageSet
    from moevoprune.fronts.export import Exported
    from moevoprune.fronts.front import Front
    from moevoprune.heads.ensemble import HeadEnsemble
    from moevoprune.heads.head import TrainedHead

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "export"]

HELP = "write a member or an ensemble as a small file of its own"
DESCRIPTION = (
    "Write a member of a run's front, or an ensemble of members, as a file that needs no moevoprune: only the "
    "active inputs and units, and the standardisation. The file is read again and compared with the original "
    "before it gets its name, and its size and latency are shown beside those of the dense head."
)

_SEED = 0
_CHECK_ROWS, _CHECK_IMAGES = 512, 8
# an ensemble with more times the parameters of the dense head is large, and there is a way to choose a small one
_LARGE, _FEW_MEMBERS = 3, "greedy"
_BATCHES, _IMAGE_BATCHES = (1, 256), (1, 16)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--to",
        required=True,
        metavar="FILE",
        help="the file to write; its ending chooses the format: .onnx, .pt2 (PyTorch) or .safetensors",
    )
    parser.add_argument(
        "--member",
        default="knee",
        metavar="M",
        help="knee (default), best (most accurate on the folds), ensemble, dense, or a number of the table that "
        "show prints",
    )
    parser.add_argument(
        "--how", metavar="NAME", help="how the members of an ensemble are chosen, as in moevoprune ensemble"
    )
    parser.add_argument("--members", type=int, metavar="N", help="most members of an ensemble")
    parser.add_argument(
        "--max-features", type=int, metavar="N", help="most features that an ensemble's members may read together"
    )
    parser.add_argument(
        "--voting", choices=("soft", "hard"), help="how an ensemble votes (default: soft, mean probabilities)"
    )
    parser.add_argument(
        "--inputs",
        choices=("all", "active"),
        default="all",
        help="what the file takes: rows of all features (default), or the active columns alone",
    )
    parser.add_argument(
        "--with-backbone",
        action="store_true",
        help="put the backbone in front: image in, class out; for runs on images",
    )
    parser.add_argument("--data", metavar="FILE", help="the run's features, to check with, where they have moved")
    parser.add_argument(
        "--images", metavar="FOLDER", help="images to check with; with --with-backbone (default: the run's)"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's weights, where they have moved since the run"
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def export(arguments: Namespace) -> int:
    """Carry out ``moevoprune export``; returns the exit code."""
    from moevoprune.cli.building import Voice
    from moevoprune.cli.recorded_backbone import recorded_backbone
    from moevoprune.cli.runs import load_front
    from moevoprune.fronts.export import check_installed, export_head, format_of

    say = Voice(arguments.quiet)
    target, run = Path(arguments.to), Path(arguments.run)
    # slips are found before anything that takes time
    try:
        str(target).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"--to {printable(str(target))}: its name is not UTF-8: choose another") from None
    ending = format_of(target)
    check_installed(ending)
    if arguments.with_backbone and ending == ".safetensors":
        raise InputError("--with-backbone: .safetensors holds tensors and no network: use .onnx or .pt2")
    if arguments.inputs == "active" and (arguments.with_backbone or ending == ".safetensors"):
        other = "--with-backbone" if arguments.with_backbone else ".safetensors"
        raise InputError(f"--inputs active does not go with {other}: leave it out")
    if arguments.images is not None and not arguments.with_backbone:
        raise InputError("--images is for --with-backbone: name the run's features with --data instead")
    if arguments.weights is not None and not arguments.with_backbone:
        raise InputError("--weights is for --with-backbone: leave it out")
    front = load_front([run])
    head, name = _head(front, arguments)

    backbone = None
    if arguments.with_backbone:
        backbone = recorded_backbone(
            [run],
            [read_record(run)],
            arguments.weights,
            "cpu",
            n_features=head.n_features,
            advice=": leave --with-backbone out",
        )
        for note in backbone.notes:
            say(note)
        rows, what = _image_rows(run, arguments.images, backbone)
    else:
        rows, what = _feature_rows(run, arguments.data, front, say)
    exported = export_head(
        head,
        target,
        rows,
        inputs=arguments.inputs,
        dense=None if head is front.dense_head else front.dense_head,
        backbone=backbone,
        class_names=front.class_names,
        member=name,
        batches=_IMAGE_BATCHES if arguments.with_backbone else _BATCHES,
    )
    for line in _report(exported, name, what, arguments.with_backbone):
        say(line)
    times = head.n_parameters / front.dense_head.n_parameters
    if arguments.member == "ensemble" and arguments.how != _FEW_MEMBERS and times > _LARGE:
        say(
            f"the ensemble has {times:,.1f} times the parameters of the dense head: --how {_FEW_MEMBERS} chooses "
            "fewer members"
        )
    return 0


def _head(front: Front, arguments: Namespace) -> tuple[TrainedHead | HeadEnsemble, str]:
    """What is to be exported, and what to call it."""
    from moevoprune.cli.runs import ensemble_options, member_of
    from moevoprune.fronts.ensembles import DEFAULT_HOW, make_ensemble

    wanted = arguments.member
    if wanted == "ensemble":
        way = DEFAULT_HOW if arguments.how is None else arguments.how
        ensemble = make_ensemble(front, way, arguments.voting or "soft", **ensemble_options(arguments))
        how = "" if arguments.how is None else f" ({arguments.how})"
        return ensemble, f"ensemble{how} of {ensemble.n_members} heads, {ensemble.voting} voting"
    given = ("how", "voting", "members", "max_features")
    for option, value in ((f"--{name.replace('_', '-')}", getattr(arguments, name)) for name in given):
        if value is not None:
            raise InputError(f"{option} is for ensembles: add --member ensemble")
    if wanted == "dense":
        return front.dense_head, "dense head"
    try:
        number = member_of(front, wanted)
    except InputError:
        raise InputError(
            f"--member {wanted}: use knee, best, ensemble, dense or a number from 0 to {len(front) - 1}"
        ) from None
    role = f" ({wanted})" if wanted in ("knee", "best") else ""
    return front.heads[number], f"head {number}{role}"


def _feature_rows(run: Path, data: str | None, front: Front, say: Voice) -> tuple[npt.NDArray[np.float32], str]:
    """Rows to check with: of the run's test part, or random ones where its data are not there."""
    import numpy as np

    from moevoprune.cli.runs import run_features
    from moevoprune.fronts.export import random_rows
    from moevoprune.fronts.predictions import evenly

    try:
        rows = run_features(run, data).X_test
    except InputError as error:
        if data is not None:
            raise
        say(f"the check uses random rows, as the run's data cannot be read: {error}")
        return random_rows(front.dense_head, _CHECK_ROWS, np.random.default_rng(_SEED)), "random rows"
    # of a folder they may be float16
    return rows[evenly(len(rows), _CHECK_ROWS)].astype(np.float32), "test rows"


def _image_rows(run: Path, folder: str | None, backbone: Backbone) -> tuple[npt.NDArray[np.float32], str]:
    """Images to check with, as the file takes them: a few of the run's, or noise where they are not there."""
    import numpy as np

    from moevoprune.features.decoding import UnreadableImageError
    from moevoprune.fronts.predictions import evenly

    images = _images(run, folder)
    if images is not None:
        pool = np.arange(len(images)) if images.parts is None else images.rows("test")
        pixels: list[npt.NDArray[np.float32]] = []
        for index in pool[evenly(len(pool), _CHECK_IMAGES)].tolist():
            try:
                image = backbone.preprocessing.cropped(images.open(index))
            except UnreadableImageError:
                continue
            pixels.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))
        if pixels:
            return np.stack(pixels), "images"
        if folder is not None:
            raise InputError(f"{folder}: not one of the files tried can be read as an image")
    side = backbone.preprocessing.crop
    noise = np.random.default_rng(_SEED).random((_CHECK_IMAGES, 3, side, side), dtype=np.float32)
    return noise, "images of random noise (the run's cannot be found: name some with --images FOLDER)"


def _images(run: Path, folder: str | None) -> ImageSet | None:
    """The images of a folder, or of a run's settings; None where these cannot be found."""
    from moevoprune.cli.building import configure
    from moevoprune.cli.config import exists, read_toml
    from moevoprune.features.images import find_images

    if folder is not None:
        return find_images(folder, skip_bad=True)
    path = run / SETTINGS
    try:
        data = configure(read_toml(path), str(path), {}, []).data if exists(path) else None
        if data is None or data.images is None:
            return None
        root = None if Path(data.images).is_absolute() else data.root
        return find_images(data.images, root, skip_bad=True)
    except InputError:
        return None


def _report(exported: Exported, name: str, what: str, fused: bool) -> list[str]:
    """What was written, what it costs beside the dense head, and how it was checked."""
    columns = [exported.head, *([] if exported.dense is None else [exported.dense])]
    unit = "image" if fused else "row"
    table: list[tuple[str, list[float], Any]] = [
        ("parameters of the head", [numbers.parameters for numbers in columns], "{:,}".format),
        (f"multiply-adds of the head per {unit}", [numbers.multiply_adds for numbers in columns], "{:,}".format),
        ("file", [numbers.n_bytes for numbers in columns], file_size),
    ]
    for batch in exported.head.latency:
        plural = unit if batch == 1 else f"{unit}s"
        table.append((f"time for {batch} {plural}", [numbers.latency[batch] for numbers in columns], _seconds))
    cells = [["", name, *(["dense head", "share"] if len(columns) == 2 else [])]]
    for label, values, text in table:
        share = [f"{100 * values[0] / values[1]:.1f} %"] if len(values) == 2 else []
        cells.append([label, *(text(value) for value in values), *share])
    reads = f"reads {exported.n_inputs:,} of {exported.n_features:,} features"
    lines = [f"{exported.path}: {name}, {exported.format}, {reads}", "", *aligned(cells)]
    if exported.backbone_parameters is not None and exported.backbone_multiply_adds is not None:
        lines.append(
            f"the backbone in the file has {exported.backbone_parameters:,} parameters and takes "
            f"{exported.backbone_multiply_adds:,} multiply-adds per image"
        )
    measure = "probability" if exported.n_agreeing is not None else "prediction, relative to the largest"
    checked = f"checked with {exported.n_rows} {what}: largest difference in {measure} {exported.difference:.1e}"
    if exported.n_agreeing is not None:
        checked += f", same class for {exported.n_agreeing} of {exported.n_rows}"
    lines += ["", checked]
    if exported.rounding is not None:
        lines.append(f"the original's own float32 is {exported.rounding:.1e} off 64-bit arithmetic on them")
    lines.append("times are medians on one thread, measured in turn")
    return lines


def _seconds(time: float) -> str:
    if time < 1e-3:
        return f"{time * 1e6:.3g} µs"
    return f"{time * 1e3:.3g} ms" if time < 1 else f"{time:.3g} s"
