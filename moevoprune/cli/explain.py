"""``moevoprune explain``: what the heads of a front look at.

The command's options are part of every ``--help``, so what takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moevoprune.cli.runs import load_front, member_of
from moevoprune.errors import InputError, whole_number
from moevoprune.fronts.run_folder import EXPLANATION, FIGURES, entry, folder_name, read_record
from moevoprune.fronts.tables import aligned
from moevoprune.fronts.wording import bare, short_number

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from moevoprune.cli.building import Voice
    from moevoprune.features.backbones import Backbone
    from moevoprune.features.image_set import ImageSet
    from moevoprune.fronts.explanation import Explanation
    from moevoprune.fronts.front import Front
    from moevoprune.fronts.heatmaps import HeatMaps, Shown

__all__ = ["DESCRIPTION", "HELP", "add_arguments", "explain"]

HELP = "which features matter, and where in the images they look"
DESCRIPTION = (
    "Tell how often each feature is active over a front (or the merged fronts of several runs), how much it "
    "matters, and draw heat maps over images for a member's prediction and for the features."
)

_BATCH = 16
# rows that the importance is measured on: more would change its second digit
_MOST_ROWS = 512
# more columns would be no figure any more
_MOST_COLUMNS = 20
_MOST_BARS, _MOST_IMAGES = 200, 50
_MOST_LISTED = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("run", nargs="+", metavar="RUN", help="run folders; the fronts of several are merged")
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="images to draw heat maps over, CLASS/* or {train,test}/CLASS/* or just files, with which the "
        "features' importance is measured too; for runs whose features moevoprune extracted",
    )
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="features to list, draw and explain (default: 10)"
    )
    parser.add_argument(
        "--per-class", type=int, default=3, metavar="N", help="images of each class to draw (default: 3)"
    )
    parser.add_argument(
        "--member",
        default="knee",
        metavar="M",
        help="whose predictions are explained: knee (default), best (most accurate on the folds) or a number of "
        "the table that show prints",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's weights, where they have moved since the run"
    )
    parser.add_argument("--device", metavar="D", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--skip-bad", action="store_true", help="list and leave out files that are no images, instead of stopping"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder (default: RUN/explanation; for several runs a new one under explanations/)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def explain(arguments: Namespace) -> int:
    """Carry out ``moevoprune explain``; returns the exit code."""
    from moevoprune.cli.building import Voice
    from moevoprune.files import write_text
    from moevoprune.fronts.explanation import explain_front
    from moevoprune.fronts.plots import save_frequency

    say = Voice(arguments.quiet)
    top = whole_number("--top", arguments.top, 1, _MOST_BARS)
    per_class = whole_number("--per-class", arguments.per_class, 1, _MOST_IMAGES)
    runs = [Path(run) for run in arguments.run]
    records = [read_record(run) for run in runs]
    front = load_front(runs)
    member = member_of(front, arguments.member)
    reader = None
    if arguments.images is not None:
        reader = _open_reader(arguments, runs, records, front, say)
    out = _out_folder(arguments.out, runs)

    rows = None if reader is None else reader.importance_rows(say)
    explanation = explain_front(front, rows)
    maps = None
    if reader is not None and reader.backbone.feature_map is not None:
        chosen = explanation.top(min(top, _MOST_COLUMNS))
        maps = reader.heat_maps(front, member, chosen, per_class)

    figures = out / FIGURES
    try:
        figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{figures}: cannot be made ({error.strerror}): choose another --out folder") from None
    write_text(out / "explanation.csv", explanation.to_csv())
    written = [out / "explanation.csv"]
    if explanation.units is not None:
        write_text(out / "neurons.csv", explanation.units_csv())
        written.append(out / "neurons.csv")
    written.append(save_frequency(explanation, figures / "frequency.png", top))
    for line in _summary(front, explanation, top):
        say(line)
    if reader is not None:
        for line in reader.skipped_lines():
            say(line)
    if reader is not None and maps is None:
        say(
            f"\nheat maps are left out: {reader.backbone.settings.name} ends in tokens, not in a feature map that "
            "could be laid over an image"
        )
    if reader is not None and maps is not None:
        if top > _MOST_COLUMNS:
            say(f"\nheat maps are drawn for the first {_MOST_COLUMNS} of these features")
        # those of an earlier call, perhaps of other classes
        for old in figures.glob("explain_*.png"):
            old.unlink(missing_ok=True)
        written += reader.draw(front, member, explanation, *maps, figures)
    say(f"\nwritten to {out}: {', '.join(str(path.relative_to(out)) for path in written)}")
    return 0


@dataclass(frozen=True, eq=False)
class _Picked:
    """Images of one class, chosen to be drawn, by their numbers."""

    name: str | None
    indices: list[int]


class _Reader:
    """A folder of images behind the backbone that the runs' features came from."""

    def __init__(
        self,
        backbone: Backbone,
        images: ImageSet,
        pool: npt.NDArray[np.int64],
        skip_bad: bool,
    ) -> None:
        self.backbone = backbone
        self._images = images
        self._pool = pool
        self._skip_bad = skip_bad
        self._bad: dict[int, str] = {}

    def importance_rows(self, say: Voice) -> npt.NDArray[np.float32]:
        """Features of at most 512 of the images, evenly spread."""
        import numpy as np
        import torch

        from moevoprune.fronts.predictions import evenly

        drawn = self._pool[evenly(len(self._pool), _MOST_ROWS)]
        say(f"{self._images.name}: {len(drawn)} images through {self.backbone.settings.name}")
        rows = [
            self.backbone.features(torch.stack([tensor for _, tensor in batch])).cpu().numpy()
            for batch in _batches(self._readable(drawn.tolist()))
        ]
        if not rows:
            raise InputError(f"{self._images.name}: not one of the files drawn can be read as an image")
        return np.concatenate(rows)

    def heat_maps(
        self, front: Front, member: int, chosen: npt.NDArray[np.int64], per_class: int
    ) -> tuple[list[_Picked], HeatMaps]:
        """Pick images of every class and explain them."""
        import torch

        from moevoprune.fronts.heatmaps import heat_maps

        picked = self._pick(per_class)
        preparation = self.backbone.preprocessing
        indices = [index for group in picked for index in group.indices]
        batches = (torch.stack([tensor for _, tensor in batch]) for batch in _batches(self._readable(indices)))
        split = self.backbone.split_at_map()
        return picked, heat_maps(split, front.heads[member], chosen, batches, preparation.mean, preparation.std)

    def draw(
        self,
        front: Front,
        member: int,
        explanation: Explanation,
        picked: list[_Picked],
        maps: HeatMaps,
        folder: Path,
    ) -> list[Path]:
        """Write one figure per class."""
        from moevoprune.fronts.heatmaps import file_names, save_heat_maps

        chosen = explanation.top(maps.features.shape[1]).tolist()
        names = file_names(["images" if group.name is None else group.name for group in picked])
        about = _about(front, member)
        scales = maps.scales()
        written, start = [], 0
        for group, name in zip(picked, names, strict=True):
            part = maps.part(slice(start, start + len(group.indices)))
            start += len(group.indices)
            title = about if group.name is None else f"{group.name}: {about}"
            rows = self._shown(front, group, part)
            headings = [_heading(explanation, feature) for feature in chosen]
            written.append(save_heat_maps(folder / name, part, rows, title, headings, scales))
        return written

    def _pick(self, per_class: int) -> list[_Picked]:
        """Choose readable images of every class, evenly spread over its files, and of those without a class."""
        import numpy as np

        labels = self._images.labels[self._pool]
        groups: list[tuple[str | None, Any]] = [
            (name, self._pool[labels == number]) for number, name in enumerate(self._images.class_names)
        ]
        groups.append((None, self._pool[labels < 0]))
        picked = []
        for name, members in groups:
            indices = []
            for part in np.array_split(members, min(per_class, len(members))) if len(members) else []:
                # from the middle of its part on: the next readable one
                around = [*part[len(part) // 2 :].tolist(), *part[: len(part) // 2].tolist()]
                found = next((index for index, _ in self._readable(around)), None)
                indices += [] if found is None else [found]
            if indices:
                picked.append(_Picked(name, indices))
        return picked

    def _readable(self, indices: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Open and prepare images one by one; those that are none are left out where that was asked for."""
        from moevoprune.features.decoding import UnreadableImageError

        for index in indices:
            if index in self._bad:
                continue
            try:
                yield index, self.backbone.preprocessing(self._images.open(index))
            except UnreadableImageError as error:
                if not self._skip_bad:
                    raise InputError(
                        f"{self._images.where(index)}: {error.reason}: mend or remove it, or add --skip-bad to "
                        "leave such files out"
                    ) from None
                self._bad[index] = error.reason

    def skipped_lines(self) -> list[str]:
        """Tell of the files that were left out, and why."""
        skipped = [*self._images.skipped, *(f"{self._images.where(i)}: {why}" for i, why in self._bad.items())]
        if not skipped:
            return []
        more = [f"  and {len(skipped) - _MOST_LISTED} more"] if len(skipped) > _MOST_LISTED else []
        lines = [f"  {line}" for line in skipped[:_MOST_LISTED]]
        return [f"\nskipped {len(skipped)} files that are no images:", *lines, *more]

    def _shown(self, front: Front, group: _Picked, maps: HeatMaps) -> list[Shown]:
        """What is said beside each image of a class."""
        import numpy as np

        from moevoprune.fronts.heatmaps import Shown, plain_text

        known = {plain_text(name): number for number, name in enumerate(front.class_names)}
        truth = None if group.name is None else known.get(plain_text(group.name))
        rows = []
        for index, outputs in zip(group.indices, maps.outputs, strict=True):
            name = self._images.keys[index].replace("\\", "/").rsplit("/", 1)[-1]
            if not front.class_names:
                rows.append(Shown(name, f"{outputs[0]:.4g}"))
            elif not np.isfinite(outputs).all():
                rows.append(Shown(name, "no prediction: the head has diverged"))
            else:
                guess = int(outputs.argmax())
                probability = float(1 / np.exp(outputs - outputs[guess]).sum())
                text = f"{front.class_names[guess]}, {bare(f'{probability:.2f}')}"
                rows.append(Shown(name, text, None if truth is None else guess == truth))
        return rows


def _open_reader(
    arguments: Namespace, runs: Sequence[Path], records: Sequence[dict[str, Any]], front: Front, say: Voice
) -> _Reader:
    """Find the images and load the backbone that the runs' records name."""
    from moevoprune.cli.recorded_backbone import recorded_backbone
    from moevoprune.device import resolve_device
    from moevoprune.features.images import find_images

    images = find_images(arguments.images, skip_bad=arguments.skip_bad)
    if len(images) == 0:
        raise InputError(f"{arguments.images}: holds no images")
    backbone = recorded_backbone(
        runs,
        records,
        arguments.weights,
        resolve_device(arguments.device or "auto"),
        n_features=front.dense_head.n_features,
        advice=": leave --images out for frequencies and weights alone",
    )
    for note in (*images.notes, *backbone.notes):
        say(note)
    return _Reader(backbone, images, _pool(images, records[0]), arguments.skip_bad)


def _pool(images: ImageSet, record: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Images to draw from: of the test part where there is one, so that no head was trained on them."""
    import numpy as np

    if images.parts is None:
        images = _split_again(images, record)
    pool = np.zeros(0, dtype=np.int64) if images.parts is None else images.rows("test")
    labels = set(images.labels[pool].tolist())
    # a class without test images is shown too
    others = [i for i, label in enumerate(images.labels.tolist()) if label not in labels]
    return np.sort(np.concatenate([pool, np.array(others, dtype=np.int64)]))


def _split_again(images: ImageSet, record: dict[str, Any]) -> ImageSet:
    """Split images as the run did, where they are the run's own; order and number stay as they are."""
    import numpy as np

    from moevoprune.features.decoding import UnreadableImageError
    from moevoprune.features.image_set import PARTS

    extraction = entry(record, "extraction")
    fraction, seed = entry(extraction, "split", "test_fraction"), entry(extraction, "split", "split_seed")
    if not isinstance(fraction, int | float) or not isinstance(seed, int) or not images.class_names:
        return images
    if not (0 < fraction < 1 and seed >= 0):
        return images
    # the run split what it could read
    readable = images.without(_unreadable(images)) if entry(extraction, "n_skipped") else images
    try:
        digests = [readable.digest(index) for index in range(len(readable))]
    except UnreadableImageError:
        return images
    if hashlib.sha256(b"".join(digests)).hexdigest() != entry(extraction, "images_sha256"):
        return images
    divided = readable.split(float(fraction), seed, digests)
    test = {divided.keys[index] for index in divided.rows("test")}
    parts = np.array([PARTS.index("test" if key in test else "train") for key in images.keys], dtype=np.int8)
    return replace(images, parts=parts)


def _unreadable(images: ImageSet) -> dict[int, str]:
    """Why images cannot be read, by their number."""
    from moevoprune.features.decoding import UnreadableImageError

    reasons = {}
    for index in range(len(images)):
        try:
            images.open(index)
        except UnreadableImageError as error:
            reasons[index] = error.reason
    return reasons


def _out_folder(out: str | None, runs: Sequence[Path]) -> Path:
    from moevoprune.cli.building import free_folder

    if out == "":
        raise InputError("--out is empty: name a folder, or leave it out")
    if out is not None:
        return Path(out)
    return runs[0] / EXPLANATION if len(runs) == 1 else free_folder(Path("explanations"), folder_name(runs[0]))


def _summary(front: Front, explanation: Explanation, top: int) -> list[str]:
    """The most frequent features as a table, and what to know of it."""
    members = explanation.members
    lines = [
        f"\n{explanation.n_members} members read {(members > 0).sum():,} of {len(members):,} features; "
        f"{(members == explanation.n_members).sum():,} of them are read by all"
    ]
    if not explanation.prunes_features:
        lines.append(
            f"the encoding {explanation.encoding} prunes no features, every head reads all: listed are the "
            "strongest; neurons.csv has the frequency of the hidden units"
        )
    header = ["feature", "frequency", "members", explanation.strength_name]
    cells = [
        [str(j), f"{explanation.frequency[j]:.3f}", str(members[j]), f"{explanation.strength[j]:.4f}"]
        for j in explanation.top(top)
    ]
    return [*lines, *aligned([header, *cells], left=0)]


def _about(front: Front, member: int) -> str:
    """Whose predictions a figure explains."""
    from moevoprune.fronts.explanation import quality_objective

    quality = quality_objective(front)
    role = " (knee)" if member == front.knee() else " (best)" if member == front.best(quality) else ""
    size = f"{len(front.heads[member].inputs):,} of {front.dense_head.n_features:,} features"
    return f"head {member}{role} of the front, {size}, {quality} {short_number(front.column(quality)[member])}"


def _heading(explanation: Explanation, feature: int) -> str:
    if explanation.prunes_features:
        return f"feature {feature}\nread by {100 * explanation.frequency[feature]:.0f} %"
    return f"feature {feature}\nimportance {short_number(explanation.strength[feature])}"


def _batches(items: Iterator[tuple[int, torch.Tensor]]) -> Iterator[list[tuple[int, torch.Tensor]]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
