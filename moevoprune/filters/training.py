"""Training of whole networks on images, several on the same batches; batch-norm statistics; predictions."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from moevoprune.device import single_threaded
from moevoprune.errors import InputError, preset_of

__all__ = ["TUNING_PRESETS", "TuningSettings", "predict", "recalibrate", "tune"]

TUNING_PRESETS: dict[str, dict[str, Any]] = {
    # a trained network after cutting
    "tune": {},
    # from random weights; chosen on validation rows of the digits
    "scratch": {"epochs": 10, "learning_rate": 0.05},
    # DeepPruningES (arXiv 1912.11527), from the authors' code: 3 epochs of SGD at 1e-3. Momentum, batches and
    # weight decay are not known to us: these are common ones.
    "paper": {
        "epochs": 3,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "nesterov": False,
        "weight_decay": 5e-4,
        "batch_size": 128,
    },
}

# of the softmax whose probabilities a teacher hands on (Hinton et al., arXiv 1503.02531)
_TEMPERATURE = 4.0
_LARGEST_SEED = 2**62

# dropout draws from the generator of the process: one network at a time may
_GLOBAL_DRAWS = threading.Lock()


class TuningSettings(BaseModel):
    """How networks are trained: SGD with momentum and cross-entropy.

    Parameters
    ----------
    epochs
        Passes over the training images; 0 leaves networks as they are.
    learning_rate
        Step size, > 0.
    momentum
        SGD momentum in [0, 1).
    nesterov
        Nesterov's form of the momentum.
    weight_decay
        L2 penalty on all parameters, >= 0 (added to the gradient, as ``torch.optim`` does).
    batch_size
        Images per step, at least 2. What is left of an epoch is spread over its steps, as batch norm cannot train
        on single images.
    schedule
        ``"constant"``, or ``"cosine"``: the learning rate falls to 0 along half a cosine over all steps.
    augment
        ``"none"``; ``"shift"``: images are moved by up to an eighth of their side (1 pixel of 8, 4 of 32) in all
        directions, and what comes in is of each channel's darkest value; ``"flip"``: moreover, half of them are
        mirrored left to right.
    label_smoothing
        Share of the target that is spread over all classes, in [0, 1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    epochs: int = Field(default=5, ge=0)
    learning_rate: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    batch_size: int = Field(default=64, ge=2)
    schedule: Literal["constant", "cosine"] = "cosine"
    augment: Literal["none", "shift", "flip"] = "none"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TuningSettings:
        """Build the settings of a preset, with some of them changed.

        Parameters
        ----------
        name
            ``"tune"``, ``"scratch"`` or ``"paper"``.
        **changes
            Settings that differ from the preset.

        Raises
        ------
        InputError
            The preset or a setting is unknown, or a value is out of range.
        """
        return preset_of(cls, TUNING_PRESETS, "tuning", name, changes)


def tune(
    networks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    settings: TuningSettings,
    seed: int,
    after_step: Callable[[int], None] | None = None,
    teacher_logits: Tensor | None = None,
) -> tuple[int, ...]:
    """Train networks in place, all on the same batches.

    What becomes of a network depends on itself, the data, the settings and the seed, not on its companions, bit
    for bit on one kind of processor. Several threads may call this at once, with networks of their own; networks
    that draw random numbers (dropout) compute their outputs one at a time then.

    Parameters
    ----------
    networks
        Each takes images to logits; their modes are given back as they were.
    images : Tensor, shape (n, C, H, W)
        float32, prepared for the networks, on their device; at least two.
    labels : Tensor of int64, shape (n,)
        Classes.
    settings
        How to train.
    seed
        Of the order of the images, of augmentation and dropout.
    after_step
        Called with a network's position after each of its steps, e.g. to shut gates again.
    teacher_logits : Tensor, shape (n, classes), optional
        What a teacher says of the images as they are. The loss is then the mean of cross-entropy and of 16 times
        the Kullback-Leibler divergence from the teacher's softmax at temperature 4 (the form of Hinton et al.,
        arXiv 1503.02531; temperature and equal parts are ours).

    Returns
    -------
    tuple of int
        Positions of networks whose loss stopped being finite. They were left alone from that step on, and are of
        no use.

    Raises
    ------
    InputError
        There are fewer than two images, or a network has nothing to train.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} images: training takes at least two")
    batches = _batches(images, settings, torch.Generator().manual_seed(seed))
    # apart, so that batches are the same with dropout and without
    draw_seeds = torch.Generator().manual_seed(seed)
    with single_threaded(), torch.enable_grad(), _modes(networks):
        for network in networks:
            network.train()
        trainees = [_Trainee(network, settings, len(images)) for network in networks]
        draws = [_draws(network, images[:2]) for network in networks]
        diverged: set[int] = set()
        for rows, batch in batches:
            targets = labels[rows]
            taught = None if teacher_logits is None else teacher_logits[rows]
            draw_seed = int(torch.randint(_LARGEST_SEED, (), generator=draw_seeds))
            for position, trainee in enumerate(trainees):
                if position in diverged:
                    continue
                with _own_draws(draw_seed) if draws[position] else nullcontext():
                    logits = trainee.network(batch)
                loss = _loss(logits, targets, taught, settings)
                if not bool(torch.isfinite(loss)):
                    diverged.add(position)
                    continue
                trainee.step(loss)
                if after_step is not None:
                    after_step(position)
    return tuple(sorted(diverged))


def recalibrate(networks: Sequence[nn.Module], images: Tensor, batch_size: int = 256) -> None:
    """Take batch-norm statistics anew from data; nothing else changes.

    The new running mean and variance are the averages, over batches of nearly one size, of the batches' means and
    unbiased variances (as ``torch.nn.BatchNorm2d`` with ``momentum=None`` makes them). Everything but batch norm
    works as in evaluation mode.

    Parameters
    ----------
    networks
        Changed in place; those without batch norm are left alone.
    images : Tensor, shape (n, C, H, W)
        float32, at least two.
    batch_size
        Images at a time, at least 2.

    Raises
    ------
    InputError
        There are fewer than two images.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} images: batch-norm statistics take at least two")
    normed = [(network, norms) for network in networks if (norms := _batch_norms(network))]
    with single_threaded(), torch.no_grad(), _modes(networks), _counting_anew([n for _, ns in normed for n in ns]):
        for network, norms in normed:
            network.eval()
            for norm in norms:
                norm.train()
        for rows in torch.arange(len(images)).tensor_split(max(1, len(images) // batch_size)):
            batch = _in_fast_format(images[rows[0] : rows[-1] + 1])
            for network, _ in normed:
                network(batch)


def predict(network: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Logits of images, in evaluation mode.

    Parameters
    ----------
    network
        Its modes are given back as they were.
    images : Tensor, shape (n, C, H, W)
        float32.
    batch_size
        Images at a time.

    Returns
    -------
    Tensor, shape (n, classes)
        float32.
    """
    with single_threaded(), torch.no_grad(), _modes([network]):
        network.eval()
        return torch.cat([network(_in_fast_format(batch)) for batch in torch.split(images, batch_size)])


# --- steps -----------------------------------------------------------------------------------------


class _Trainee:
    """A network with its optimiser and its place in the schedule."""

    def __init__(self, network: nn.Module, settings: TuningSettings, n_images: int) -> None:
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not parameters:
            raise InputError(f"{type(network).__name__} has no parameter that can be trained")
        self.network = network
        self._optimiser = torch.optim.SGD(
            parameters,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
        n_steps = settings.epochs * _steps_per_epoch(n_images, settings)
        cosine = settings.schedule == "cosine" and n_steps > 0
        schedulers = torch.optim.lr_scheduler
        self._schedule = schedulers.CosineAnnealingLR(self._optimiser, n_steps) if cosine else None

    def step(self, loss: Tensor) -> None:
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        if self._schedule is not None:
            self._schedule.step()


def _loss(logits: Tensor, targets: Tensor, taught: Tensor | None, settings: TuningSettings) -> Tensor:
    loss = functional.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)
    if taught is None:
        return loss
    divergence = functional.kl_div(
        functional.log_softmax(logits / _TEMPERATURE, dim=1),
        functional.log_softmax(taught / _TEMPERATURE, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    # gradients of softened outputs are smaller by the square of the temperature
    return (loss + _TEMPERATURE**2 * divergence) / 2


# --- batches ---------------------------------------------------------------------------------------


def _steps_per_epoch(n_images: int, settings: TuningSettings) -> int:
    return max(1, n_images // settings.batch_size)


def _batches(
    images: Tensor, settings: TuningSettings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Row numbers and images of all steps of all epochs."""
    # black, which normalisation has moved to somewhere
    darkest = images.amin(dim=(0, 2, 3))
    for _ in range(settings.epochs):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for rows in order.tensor_split(_steps_per_epoch(len(images), settings)):
            batch = images[rows]
            if settings.augment != "none":
                batch = _augmented(batch, darkest, settings.augment == "flip", generator)
            yield rows, _in_fast_format(batch)


def _augmented(batch: Tensor, fill: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Move each image by its own few pixels, and mirror half of them."""
    n, channels, height, width = batch.shape
    down, right = max(1, height // 8), max(1, width // 8)
    padded = fill[None, :, None, None].repeat(n, 1, height + 2 * down, width + 2 * right)
    padded[:, :, down : down + height, right : right + width] = batch
    top = torch.randint(2 * down + 1, (n, 1), generator=generator)
    left = torch.randint(2 * right + 1, (n, 1), generator=generator)
    rows, columns = torch.arange(height), torch.arange(width).expand(n, width)
    if flips:
        mirrored = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    index = (
        torch.arange(n)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        (top + rows)[:, None, :, None],
        (left + columns)[:, None, None, :],
    )
    return padded[tuple(numbers.to(batch.device) for numbers in index)]


def _in_fast_format(batch: Tensor) -> Tensor:
    # with channels side by side, a CPU trains a fifth faster on 32x32 pixels; on 8x8 it makes no difference
    return batch.contiguous(memory_format=torch.channels_last)


# --- state of networks -----------------------------------------------------------------------------


@contextmanager
def _modes(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Give every module its mode back, training or evaluation."""
    before = [(module, module.training) for network in networks for module in network.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


@contextmanager
def _counting_anew(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let batch norms average over the batches from now on; give momentum and counter back afterwards."""
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]


def _draws(network: nn.Module, images: Tensor) -> bool:
    """Whether a forward pass draws random numbers: the generator knows, whatever module it was."""
    trial = copy.deepcopy(network)
    with _own_draws(0), torch.no_grad():
        before = torch.get_rng_state()
        trial(images)
        return not torch.equal(before, torch.get_rng_state())


@contextmanager
def _own_draws(seed: int) -> Iterator[None]:
    """Draw from the generator of the process with a seed of one's own, and give it back as it was."""
    with _GLOBAL_DRAWS, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
