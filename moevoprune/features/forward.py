"""Images through a backbone, batch by batch: decoding and computing at the same time, in order."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from moevoprune.device import usable_cores
from moevoprune.errors import InputError
from moevoprune.features.backbones import Backbone
from moevoprune.features.decoding import UnreadableImageError
from moevoprune.features.image_set import ImageSet
from moevoprune.features.preprocessing import Preprocessing
from moevoprune.memory import Chunk

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "compute_features"]

Rows = npt.NDArray[np.float32]

# On CPU a core takes pieces of a batch by itself: cores that wait for one another at each operation take several
# times as long on a busy machine. The size of a piece decides on kernels, and so on last digits: it is fixed.
_PIECE = 8


@dataclass(frozen=True, eq=False)
class Batch:
    """Features of some images.

    Attributes
    ----------
    indices
        Which images.
    rows
        Their features, shape (len(indices), d).
    unreadable
        Images that should have been among them, with the reason why they are not.
    """

    indices: tuple[int, ...]
    rows: Rows
    unreadable: dict[int, str]


def compute_features(
    images: ImageSet,
    indices: Sequence[int],
    digests: Sequence[bytes],
    backbone: Backbone,
    batch_size: int,
    workers: int,
    mixed_precision: bool,
) -> Generator[Batch, None, None]:
    """Compute the features of images, in order.

    While one batch is computed the next is decoded. A row depends on nothing but its image, the backbone and, in
    its last digits, the kind of device (on CUDA also the size of a batch), as what is computed at once is filled
    up to a fixed size. Where memory is refused, fewer images are computed at once, on a CPU to the same bits.

    Parameters
    ----------
    images
        The images.
    indices
        Which of them.
    digests
        Content of each of these, as :meth:`ImageSet.digest` gave it: one that has changed since stops.
    backbone
        The network.
    batch_size
        Images per batch.
    workers
        Processes that decode; 0 decodes in this one.
    mixed_precision
        As in :meth:`Backbone.features`.

    Yields
    ------
    Batch
        One for every `batch_size` of the indices.

    Raises
    ------
    InputError
        There is too little memory for the smallest number of images, or a process that decodes ended.
    """
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        cast(Any, _Pixels(images, backbone.preprocessing, indices, digests)),
        batch_size=batch_size,
        num_workers=min(workers, math.ceil(len(indices) / batch_size)),
        collate_fn=_collate,
        pin_memory=backbone.device.type == "cuda",
        # the default would draw a number from torch's global generator
        generator=torch.Generator(),
    )
    threads = torch.get_num_threads()
    computing = _Computing(backbone, batch_size, mixed_precision)

    def start(pixels: torch.Tensor | None) -> Future[list[Rows]] | None:
        return None if pixels is None else computing.start(pixels)

    def finish(good: list[int], bad: dict[int, str], computed: Future[list[Rows]] | None) -> Batch:
        rows = [] if computed is None else computed.result()
        empty: Rows = np.empty((0, backbone.feature_size), dtype=np.float32)
        return Batch(tuple(good), np.concatenate([empty, *rows]), bad)

    running: tuple[list[int], dict[int, str], Future[list[Rows]] | None] | None = None
    try:
        # also for what prepares the images here
        torch.set_num_threads(1)
        for good, pixels, bad in loader:
            # handed on before the next one starts: at most one batch is lost with the process
            if running is not None:
                yield finish(*running)
            running = good, bad, start(pixels)
        if running is not None:
            yield finish(*running)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "a process that decodes images ended unexpectedly (not enough memory?): use fewer --workers"
        ) from None
    finally:
        computing.stop()
        torch.set_num_threads(threads)


class _Computing:
    """Computes one batch after the other while others are decoded.

    Parameters
    ----------
    backbone, batch_size, mixed_precision
        As of :func:`compute_features`.
    """

    def __init__(self, backbone: Backbone, batch_size: int, mixed_precision: bool) -> None:
        import torch

        self._backbone = backbone
        self._mixed_precision = mixed_precision
        on_cpu = backbone.device.type == "cpu"
        self._cores = usable_cores() if on_cpu else 0
        self._planned = self._cores or batch_size
        self._chunk = Chunk("compute images", torch.cuda.empty_cache)
        self._conductor = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._pool = ThreadPoolExecutor(self._cores or 1, initializer=torch.set_num_threads, initargs=(1,))

    def start(self, pixels: torch.Tensor) -> Future[list[Rows]]:
        """Begin with prepared images, shape (images, channels, height, width); the result is their features."""
        compute = self._on_cores if self._cores else self._on_gpu
        return self._conductor.submit(self._chunk.work, self._planned, partial(compute, pixels), self._described)

    def stop(self) -> None:
        """Wait for what is under way, and leave out the rest."""
        self._conductor.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)

    def _on_cores(self, pixels: torch.Tensor, most: int) -> list[Rows]:
        """Compute so many pieces at once, each on a core; their size is always the same."""
        import torch

        pieces = torch.split(pixels, _PIECE)
        rows = []
        for start in range(0, len(pieces), most):
            running = [self._pool.submit(self._forward, piece, _PIECE) for piece in pieces[start : start + most]]
            # all of them are over before any is tried again
            wait(running)
            rows += [one.result() for one in running]
        return rows

    def _on_gpu(self, pixels: torch.Tensor, most: int) -> list[Rows]:
        import torch

        return [self._forward(part, most) for part in torch.split(pixels, most)]

    def _forward(self, pixels: torch.Tensor, size: int) -> Rows:
        rows: Rows = _forward(self._backbone, pixels, size, self._mixed_precision).cpu().numpy()
        return rows

    def _described(self) -> str:
        count = f"{_PIECE} images" if self._cores else "a single image"
        return f"{self._backbone.settings.name} on {count} ({self._backbone.device}): use smaller images (--size)"


def _forward(backbone: Backbone, pixels: torch.Tensor, size: int, mixed_precision: bool) -> torch.Tensor:
    import torch

    count = len(pixels)
    if count < size:
        pixels = torch.cat([pixels, pixels[:1].expand(size - count, -1, -1, -1)])
    pixels = pixels.to(backbone.device, non_blocking=True)
    rows = backbone.features(pixels, mixed_precision)
    if mixed_precision and not bool(rows.isfinite().all()):
        # beyond the range of half precision
        rows = backbone.features(pixels)
    return rows[:count]


class _Pixels:
    """A torch data set of prepared images; for one that cannot be read, the reason."""

    def __init__(
        self, images: ImageSet, prepare: Preprocessing, indices: Sequence[int], digests: Sequence[bytes]
    ) -> None:
        self._images = images
        self._prepare = prepare
        self._indices = indices
        self._digests = digests

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor | str]:
        index = self._indices[position]
        try:
            pixels = self._prepare(self._images.open(index))
            # after the decoding: what was the same before and after was the same in between
            if self._images.is_still(index, self._digests[position]):
                return index, pixels
            return index, "was changed while it was read"
        except UnreadableImageError as error:
            return index, error.reason
        except InputError as error:
            # as an exception it would come out of a worker with the worker's traceback for a message
            return index, str(error)


def _collate(items: list[tuple[int, Any]]) -> tuple[list[int], torch.Tensor | None, dict[int, str]]:
    import torch

    good = [(index, image) for index, image in items if not isinstance(image, str)]
    bad = {index: image for index, image in items if isinstance(image, str)}
    pixels = torch.stack([image for _, image in good]) if good else None
    return [index for index, _ in good], pixels, bad
