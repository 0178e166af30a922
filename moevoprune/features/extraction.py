"""From images to features: through a frozen backbone once, streamed to disk, kept by content."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moevoprune.device import resolve_device, usable_cores
from moevoprune.errors import InputError, printable, whole_number
from moevoprune.features.backbone_settings import BackboneSettings
from moevoprune.features.backbones import Backbone, load_backbone
from moevoprune.features.decoding import UnreadableImageError
from moevoprune.features.feature_set import FeatureSet
from moevoprune.features.forward import Batch, compute_features
from moevoprune.features.image_set import PARTS, ImageSet
from moevoprune.features.images import find_images
from moevoprune.features.npz_files import write_array, write_blocks, write_names
from moevoprune.features.ood import OodRows
from moevoprune.features.row_store import RowStore
from moevoprune.files import atomic_path, cache_folder

__all__ = ["Extraction", "Extractor", "extract"]

Rows = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]

# raise it with any change that alters features
_VERSION = 1
_BATCH = {"cpu": 32, "cuda": 128}
_MOST_WORKERS = 16
_HASHING_THREADS = 4
_CHUNK = 1024
_MOST_RECORDED = 100


@dataclass(frozen=True, eq=False)
class Extraction:
    """Images and where their features lie; nothing is in memory until it is asked for.

    Attributes
    ----------
    images
        Those that could be read, in order.
    digests
        SHA-256 of the content of each image.
    record
        How the features were made, as plain values.
    notes
        What a user should know, one line each: files left out, copies of an image in two parts.
    n_computed
        How many were not known from an earlier extraction.
    """

    images: ImageSet
    digests: tuple[bytes, ...]
    record: dict[str, object]
    notes: tuple[str, ...]
    n_computed: int
    _store: RowStore
    _numbers: npt.NDArray[np.int64]

    @property
    def skipped(self) -> tuple[str, ...]:
        """Files that could not be read, each with the reason."""
        return self.images.skipped

    @property
    def n_features(self) -> int:
        """Features of an image."""
        return self._store.width

    def rows(self, indices: npt.NDArray[np.int64] | None = None) -> Rows:
        """Features of images by their positions in `images`, all of them by default; shape (n, n_features)."""
        return self._store.read(self._numbers if indices is None else self._numbers[indices])

    def to_feature_set(self) -> FeatureSet:
        """Read the features into memory.

        Raises
        ------
        InputError
            The images have no classes or parts, or there are too few for a feature set.
        """
        parts = self._parts()
        arrays: dict[str, Any] = {}
        for part, indices in parts.items():
            arrays[f"X_{part}"] = self.rows(indices)
            arrays[f"y_{part}"] = self.images.labels[indices]
        return FeatureSet(
            **arrays,
            class_names=self.images.class_names,
            name=self.images.name,
            extraction=json.dumps(self.record),
        )

    def save(
        self,
        path: str | Path,
        dtype: Literal["float32", "float16"] = "float32",
        ood: tuple[Rows, Rows] | None = None,
    ) -> None:
        """Write a feature set that :meth:`FeatureSet.load` reads, without holding it in memory.

        Besides what a feature set needs the file has ``extraction`` (how the features were made, JSON) and, for
        every part, ``files_PART`` (each row's image), and ``skipped`` (what was left out, with the reason).

        Parameters
        ----------
        path
            The .npz file; its folder must exist.
        dtype
            Number format of the features.
        ood
            Out-of-distribution rows to add, for the search and for the test; see
            :func:`moevoprune.features.ood.choose_ood`.

        Raises
        ------
        InputError
            The images have no classes, a feature overflows float16, or the file cannot be written.
        """
        path = Path(path)
        if dtype not in ("float32", "float16"):
            raise InputError(f"{path}: dtype is {dtype!r}: use 'float32' or 'float16'")
        for rows in ood or ():
            if rows.ndim != 2 or rows.shape[1] != self.n_features or not np.isfinite(rows).all():
                raise InputError(f"{path}: out-of-distribution rows must have {self.n_features} finite features")
        parts = self._parts()
        self._check_parts(parts)
        with (
            atomic_path(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        ):
            for part, indices in parts.items():
                write_blocks(
                    file, f"X_{part}", self._blocks(indices, dtype, path), (len(indices), self.n_features), dtype
                )
                write_array(file, f"y_{part}", self.images.labels[indices])
                write_names(file, f"files_{part}", [self.images.keys[i] for i in indices])
            if self.skipped:
                write_names(file, "skipped", self.skipped)
            for name, rows in zip(("X_ood", "X_ood_test"), ood or (), strict=False):
                write_array(file, name, _narrowed(rows, dtype, path))
            write_array(file, "class_names", np.array(self.images.class_names, dtype=np.str_))
            write_array(file, "task", np.array("classification"))
            write_array(file, "extraction", np.array(json.dumps(self.record)))

    def as_ood(self) -> OodRows:
        """All images as out-of-distribution rows, to be balanced over their classes."""
        names = self.images.class_names or (self.images.name,)
        return OodRows(self.rows(), np.maximum(self.images.labels, 0), names)

    def _parts(self) -> dict[str, npt.NDArray[np.int64]]:
        if self.images.parts is None:
            raise InputError(f"{self.images.name}: has no training and test part: use Extractor.extract")
        parts = {part: self.images.rows(part) for part in PARTS}
        return {part: indices for part, indices in parts.items() if len(indices)}

    def _check_parts(self, parts: dict[str, npt.NDArray[np.int64]]) -> None:
        """Hold the labels to the rules of a feature set before a long file is written."""
        arrays: dict[str, Any] = {}
        for part, indices in parts.items():
            arrays[f"X_{part}"] = np.zeros((len(indices), 1), dtype=np.float32)
            arrays[f"y_{part}"] = self.images.labels[indices]
        FeatureSet(**arrays, class_names=self.images.class_names, name=self.images.name)

    def _blocks(self, indices: npt.NDArray[np.int64], dtype: str, path: Path) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(indices), _CHUNK):
            yield _narrowed(self.rows(indices[start : start + _CHUNK]), dtype, path)


class Extractor:
    """Computes features of images through one backbone, each image once.

    Rows are kept in the cache folder by the content of the image, of the weights and of the preprocessing: what
    has been extracted before, by whatever command, from whatever folder, is not computed again, and an extraction
    that was interrupted goes on where it was. An image's features do not depend on the images beside it.

    Parameters
    ----------
    backbone
        Which network, weights and preprocessing.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    batch_size
        Images at a time, at least 1; None for 32 on CPU and 128 on CUDA.
    workers
        Processes that decode images; 0 decodes in this one; None for 0 on CPU and one per core, at most 16, on
        CUDA.
    full_precision
        Compute in float32 on CUDA too, instead of in half precision where that is safe (autocast).
    skip_bad
        Leave out files that are no images, with a note, instead of stopping at the first one.
    cache
        Folder of the cache; None for that of MOEVOPRUNE_CACHE, else the user's.
    progress
        Called with a stage (``"reading"``, ``"extracting"``, or ``"waiting"`` for another process that extracts
        through the same backbone), images done and images in all.

    Raises
    ------
    InputError
        A setting cannot be used, or the backbone or its weights cannot be had.
    """

    def __init__(
        self,
        backbone: BackboneSettings | str,
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        full_precision: bool = False,
        skip_bad: bool = False,
        cache: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        if isinstance(backbone, str):
            backbone = BackboneSettings(name=backbone)
        resolved = resolve_device(device)
        on_cuda = resolved.type == "cuda"
        self._batch_size = (
            _BATCH[resolved.type] if batch_size is None else whole_number("batch_size", batch_size, 1, 1_000_000)
        )
        if workers is None:
            workers = min(usable_cores(), _MOST_WORKERS) if on_cuda else 0
        self._workers = whole_number("workers", workers, 0, 1024)
        self._mixed_precision = on_cuda and not full_precision
        self._skip_bad = skip_bad
        self._progress = progress or (lambda stage, done, total: None)
        self._device = resolved
        self.backbone: Backbone = load_backbone(backbone, resolved)
        folder = cache_folder(None if cache is None else Path(cache))
        if folder is None:
            raise InputError("there is no folder for the cache: set the environment variable MOEVOPRUNE_CACHE")
        self._store = RowStore(
            folder / "extractions" / self._key(),
            self.backbone.feature_size,
            waiting=lambda: self._progress("waiting", 0, 0),
        )

    def extract(
        self,
        source: str | Path | ImageSet,
        root: str | Path | None = None,
        download: bool = False,
        test_fraction: float = 0.25,
        split_seed: int = 0,
    ) -> Extraction:
        """Extract the features of a labelled image set, split into training and test part.

        Parameters
        ----------
        source
            A folder ``{train,test}/CLASS/*`` (with ``val``, if any) or ``CLASS/*``, the name of a torchvision
            data set, or images found already.
        root
            Where a torchvision data set lies.
        download
            Whether it may be downloaded.
        test_fraction
            Share of each class that becomes the test part, between 0 and 1, where the source has no split of its
            own. Images with the same content stay in one part.
        split_seed
            Seed of that split.

        Raises
        ------
        InputError
            The source cannot be used, or a file of it is no image.
        """
        if not isinstance(source, ImageSet):
            source = find_images(source, root, download, self._skip_bad)
        if not source.class_names:
            raise InputError(
                f"{source.name}: its images lie in no class folders: arrange them as CLASS/* or "
                "{train,test}/CLASS/*"
            )
        if len(source.class_names) == 1:
            raise InputError(
                f"{source.name}: there is only one class, {printable(source.class_names[0])!r}: give at least two"
            )
        extraction = self._extract(source)
        images = extraction.images
        record: dict[str, object] = {}
        if images.parts is None:
            images = images.split(test_fraction, split_seed, extraction.digests)
            record = {"test_fraction": test_fraction, "split_seed": split_seed}
        notes = [*extraction.notes, *images.notes, *_twin_notes(images, extraction.digests)]
        return replace(
            extraction,
            images=images,
            record={**extraction.record, "split": record or "as given"},
            notes=tuple(dict.fromkeys(notes)),
        )

    def extract_ood(
        self,
        source: str | Path,
        root: str | Path | None = None,
        download: bool = False,
        beside: Extraction | None = None,
    ) -> Extraction:
        """Extract the features of out-of-distribution images; their split and classes play no part.

        Parameters
        ----------
        source, root, download
            As in :meth:`extract`; a folder of images without class folders will do.
        beside
            The in-distribution images; whatever is among them is left out, with a note.

        Raises
        ------
        InputError
            The source cannot be used, a file is no image, or all are in-distribution images.
        """
        extraction = self._extract(find_images(source, root, download, self._skip_bad))
        if beside is None:
            return extraction
        familiar = set(beside.digests)
        kept = [i for i, digest in enumerate(extraction.digests) if digest not in familiar]
        left_out = len(extraction.digests) - len(kept)
        if not kept:
            raise InputError(
                f"{extraction.images.name}: all of its images are among those of {beside.images.name}: "
                "give others as out-of-distribution images"
            )
        if not left_out:
            return extraction
        note = (
            f"{extraction.images.name}: left out {left_out} out-of-distribution images that are also among those "
            f"of {beside.images.name}"
        )
        indices = np.array(kept, dtype=np.int64)
        return replace(
            extraction,
            images=extraction.images.select(indices),
            digests=tuple(extraction.digests[i] for i in kept),
            notes=(*extraction.notes, note),
            _numbers=extraction._numbers[indices],
        )

    def _extract(self, images: ImageSet) -> Extraction:
        digests = self._digests(images)
        with self._store:
            before = len(self._store)
            unreadable = self._compute_missing(images, digests)
            numbers = self._store.find(digests)
            n_computed = len(self._store) - before
        kept = images.without(unreadable) if unreadable else images
        if unreadable:
            # a class without training images is gone as a whole
            there = set(kept.keys)
            positions = [index for index, key in enumerate(images.keys) if key in there]
            digests, numbers = [digests[index] for index in positions], numbers[positions]
        record: dict[str, object] = {
            "format": _VERSION,
            "images": images.name,
            "images_sha256": hashlib.sha256(b"".join(digests)).hexdigest(),
            "backbone": {**self.backbone.record(), "settings": self.backbone.settings.model_dump(mode="json")},
            "device": self._device.type,
            "precision": "mixed" if self._mixed_precision else "float32",
            "versions": {"moevoprune": metadata.version("moevoprune"), **_versions()},
            "n_skipped": len(kept.skipped),
            # the file holds them all
            "skipped": list(kept.skipped[:_MOST_RECORDED]),
        }
        return Extraction(kept, tuple(digests), record, kept.notes, n_computed, self._store, numbers)

    def _digests(self, images: ImageSet) -> list[bytes]:
        """SHA-256 of each image; that of one that cannot be read says nothing about its content."""

        def digest(index: int) -> bytes:
            try:
                return images.digest(index)
            except UnreadableImageError:
                return hashlib.sha256(f"unreadable {images.keys[index]}".encode(errors="replace")).digest()

        digests: list[bytes] = []
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            for start in range(0, len(images), _CHUNK):
                self._progress("reading", start, len(images))
                digests += pool.map(digest, range(start, min(start + _CHUNK, len(images))))
        self._progress("reading", len(images), len(images))
        return digests

    def _compute_missing(self, images: ImageSet, digests: Sequence[bytes]) -> dict[int, str]:
        """Extract what the store lacks; returns why images cannot be read, by their positions."""
        absent: list[int] = np.flatnonzero(self._store.find(digests) < 0).tolist()
        first: dict[bytes, int] = {}
        for index in absent:
            first.setdefault(digests[index], index)
        pending = sorted(first.values())
        if not pending:
            return {}
        bad: dict[int, str] = {}
        done = len(images) - len(pending)
        self._progress("extracting", done, len(images))
        batches = compute_features(
            images,
            pending,
            [digests[index] for index in pending],
            self.backbone,
            self._batch_size,
            self._workers,
            self._mixed_precision,
        )
        with closing(batches):
            for batch in batches:
                for index, why in batch.unreadable.items():
                    if not self._skip_bad:
                        raise InputError(
                            f"{images.where(index)}: {why}: mend or remove it, or leave such files out with "
                            "--skip-bad"
                        )
                    bad[index] = why
                self._check_finite(images, batch)
                if batch.indices:
                    self._store.append([digests[i] for i in batch.indices], batch.rows)
                done += len(batch.indices) + len(batch.unreadable)
                self._progress("extracting", done, len(images))
        why_by_digest = {digests[index]: why for index, why in bad.items()}
        return {i: why_by_digest[digests[i]] for i in absent if digests[i] in why_by_digest}

    def _check_finite(self, images: ImageSet, batch: Batch) -> None:
        finite = np.isfinite(batch.rows).all(axis=1)
        if not finite.all():
            which = images.where(batch.indices[int(np.argmin(finite))])
            raise InputError(
                f"{which}: its features are not finite: are the weights those of {self.backbone.settings.name}?"
            )

    def _key(self) -> str:
        """Name of all that a row depends on besides the image."""
        record = self.backbone.record()
        facts = {
            "version": _VERSION,
            **{name: record[name] for name in ("name", "args", "weights_sha256", "layer", "preprocessing")},
            "device": self._device.type,
            "mixed_precision": self._mixed_precision,
            # decoding and kernels are theirs: last digits may differ
            **_versions(),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode("ascii")).hexdigest()
        return f"{self.backbone.settings.name}-{digest[:24]}"


def extract(
    source: str | Path,
    backbone: BackboneSettings | str = "resnet50",
    *,
    root: str | Path | None = None,
    download: bool = False,
    test_fraction: float = 0.25,
    split_seed: int = 0,
    skip_bad: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Extraction:
    """Extract the features of a labelled image set through a frozen torchvision network.

    Parameters
    ----------
    source, root, download, test_fraction, split_seed
        As in :meth:`Extractor.extract`.
    backbone
        The name of a torchvision classification network, with its default weights, or full settings.
    skip_bad, device, progress
        As in :class:`Extractor`, which has more to set.

    Returns
    -------
    Extraction
        ``.to_feature_set()`` gives the features, ``.save("features.npz")`` writes them.

    Raises
    ------
    InputError
        The images, the backbone or its weights cannot be used.

    Examples
    --------
    >>> features = extract("flowers", "mobilenet_v3_small").to_feature_set()  # doctest: +SKIP
    """
    extractor = Extractor(backbone, device, skip_bad=skip_bad, progress=progress)
    return extractor.extract(source, root, download, test_fraction, split_seed)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("pillow", "torch", "torchvision")}


def _twin_notes(images: ImageSet, digests: Sequence[bytes]) -> list[str]:
    twins = images.twins(digests)
    if not twins:
        return []
    (one, other), *more = twins
    others = f", and {len(more)} more pairs" if more else ""
    return [
        f"{images.name}: the same image is in two parts, which flatters the test scores: {one} and {other}{others}"
    ]


def _narrowed(rows: Rows, dtype: str, path: Path) -> npt.NDArray[Any]:
    if dtype == "float32":
        return rows
    with np.errstate(over="ignore", under="ignore"):
        half = rows.astype(np.float16)
    if np.isinf(half).any():
        raise InputError(f"{path}: a feature overflows float16: use float32")
    return half
