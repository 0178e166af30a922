"""Fitness of filter masks: gates, short training, batch-norm statistics anew, predictions of validation images."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.device import resolve_device, single_threaded
from moevoprune.errors import InputError
from moevoprune.filters.costs import NetworkCosts
from moevoprune.filters.cutting import check_cutting, cut
from moevoprune.filters.gates import Gates
from moevoprune.filters.graph import FilterGraph
from moevoprune.filters.images import LabelledImages, Normalisation, to_tensor
from moevoprune.filters.objectives import FILTER_OBJECTIVES, FilterCandidate
from moevoprune.filters.training import TuningSettings, predict, recalibrate, tune
from moevoprune.memory import Chunk
from moevoprune.objectives import MOST_REPRESENTED, FoldPrediction, Objective, evenly

__all__ = ["FilterEvaluator", "ImageParts"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

# candidates that go through the same batches in one thread: more would only wait longer for the first result
_TOGETHER = 4
_LATENCY_IMAGES = 16


@dataclass(frozen=True, eq=False)
class ImageParts:
    """Images on a device, as a network takes them.

    Attributes
    ----------
    images
        All training images, float32 of shape (n, channels, height, width).
    labels
        Their classes, shape (n,).
    training, validation
        Numbers of those that may teach, and of those that score candidates; both in random order.
    """

    images: Tensor
    labels: Tensor
    training: Tensor
    validation: Tensor

    @classmethod
    def split(
        cls,
        data: LabelledImages,
        normalisation: Normalisation,
        validation_share: float,
        seed: int,
        device: torch.device,
    ) -> ImageParts:
        """Hold back a share of each class of the training images; the test part is not read.

        Raises
        ------
        InputError
            A class has too few images to split.
        """
        from sklearn.model_selection import train_test_split

        rows = np.arange(len(data.y_train))
        rarest = int(np.bincount(data.y_train).argmin())
        if np.count_nonzero(data.y_train == rarest) < 2:
            raise InputError(
                f"{data.name}: class {data.class_names[rarest]!r} has one training image, but training and "
                "validation need one each: give more images of it"
            )
        try:
            training, validation = train_test_split(
                rows, test_size=validation_share, stratify=data.y_train, random_state=seed
            )
        except ValueError as error:
            raise InputError(
                f"{data.name}: {len(rows)} training images cannot be split into training and validation images "
                f"({error}): give more images of each class"
            ) from None
        numbers = (torch.from_numpy(part).to(device) for part in (training, validation))
        images = to_tensor(data.X_train, normalisation).to(device)
        return cls(images, torch.tensor(data.y_train, device=device), *numbers)


class FilterEvaluator:
    """Objective values of filter masks: a pure function of mask, network, data, settings and seed.

    A candidate is a copy of the network with gates shut (:class:`moevoprune.filters.gates.Gates`). It is trained
    for a few epochs where that is asked for, takes its batch-norm statistics anew from training images, and
    predicts the validation images. Each candidate is computed by one thread, whatever their number; they are fewer
    where memory is refused.

    Parameters
    ----------
    network
        The trained network; it is copied.
    data
        Images; the test part is not read.
    normalisation
        What the network's inputs were normalised by.
    objectives
        What to measure.
    tuning
        Training of candidates; ``epochs=0`` leaves it out.
    n_tuning
        Images that candidates are trained on; None for all that do not score them.
    distil
        Whether candidates are also taught what the whole network says of these images.
    validation_share
        Share of the training images that scores candidates.
    n_recalibration
        Images that batch-norm statistics are taken from.
    seed
        Of the split and of training.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    jobs
        Threads that candidates are spread over on a CPU; changes nothing but time.
    keep
        Modules whose filters are kept whole.

    Attributes
    ----------
    graph
        The network's :class:`~moevoprune.filters.graph.FilterGraph`.
    costs
        Its :class:`~moevoprune.filters.costs.NetworkCosts`.
    parts
        The :class:`ImageParts`.
    recalibration
        Images that batch-norm statistics are taken from, shape (n, channels, height, width).
    network
        The network, in evaluation mode.
    """

    def __init__(
        self,
        network: nn.Module,
        data: LabelledImages,
        normalisation: Normalisation,
        objectives: tuple[Objective, ...],
        tuning: TuningSettings,
        n_tuning: int | None,
        distil: bool,
        validation_share: float,
        n_recalibration: int,
        seed: int,
        device: str = "auto",
        jobs: int = 1,
        keep: Sequence[str] = (),
    ) -> None:
        self.device = resolve_device(device)
        self.network = copy.deepcopy(network).to(self.device).eval()
        channels, height, width = data.shape
        self.graph = FilterGraph(self.network, torch.zeros(1, channels, height, width), keep)
        self.costs = NetworkCosts(self.graph, self.network, check_cutting(self.graph, self.network))
        self.parts = ImageParts.split(data, normalisation, validation_share, seed, self.device)
        self.objectives = objectives
        self._tuning = tuning
        self._seed = seed
        # times are worth nothing beside others at work
        alone = self.device.type != "cpu" or FILTER_OBJECTIVES["latency"] in objectives
        self._jobs = 1 if alone else jobs
        self._chunk = Chunk("compute candidates", torch.cuda.empty_cache)
        self._validation = self.parts.images[self.parts.validation]
        self._targets = self.parts.labels[self.parts.validation]
        self.recalibration = self.parts.images[self.parts.training[:n_recalibration]]
        rows = self.parts.training[:n_tuning]
        self._lessons = self.parts.images[rows], self.parts.labels[rows]
        self._represented = torch.from_numpy(evenly(len(self._targets), MOST_REPRESENTED)).to(self.device)
        self._check_outputs(data)
        needs = frozenset().union(*(objective.needs for objective in objectives))
        self._needs_hidden = "dense" in needs
        self._dense_hidden = self._outputs(self.network)[1] if self._needs_hidden else None
        self._taught = predict(self.network, self._lessons[0]) if distil and tuning.epochs else None

    def evaluate(self, masks: Bits) -> Iterator[tuple[Values, bool]]:
        """Objective values of masks, and whether training diverged, in order.

        Parameters
        ----------
        masks
            Shape (n, n_bits), with at least one filter of each layer.
        """
        costs = self.costs(masks) / (self.costs.flops, self.costs.parameters)
        together = _TOGETHER if self._tuning.epochs else 1
        yield from self._chunk.stream(
            self._jobs * together, partial(self._evaluated, masks, costs), self._described
        )

    def _evaluated(self, masks: Bits, costs: Values, done: int, most: int) -> Iterator[tuple[Values, bool]]:
        """Values of the masks that are not done yet, so many candidates at a time."""
        together = min(_TOGETHER if self._tuning.epochs else 1, most)
        jobs = max(most // together, 1)
        groups = [slice(start, start + together) for start in range(done, len(masks), together)]
        work = partial(self._candidates, masks, costs)
        if jobs == 1 or len(groups) == 1:
            for group in groups:
                yield from map(self._scored, work(group))
            return
        # threads take the number over that is set when they start
        with single_threaded(), ThreadPoolExecutor(jobs) as pool:
            waiting = deque(pool.submit(work, group) for group in groups)
            try:
                while waiting:
                    # each holds networks: none is kept longer than needed
                    yield from map(self._scored, waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    def _candidates(self, masks: Bits, costs: Values, group: slice) -> list[FilterCandidate]:
        networks = [copy.deepcopy(self.network) for _ in masks[group]]
        gates = [Gates(self.graph, network, mask) for network, mask in zip(networks, masks[group], strict=True)]
        if self._tuning.epochs:
            tune(
                networks,
                *self._lessons,
                self._tuning,
                self._seed,
                after_step=lambda position: gates[position].apply(),
                teacher_logits=self._taught,
            )
        recalibrate(networks, self.recalibration)
        predicted = [self._outputs(network) for network in networks]
        for gate in gates:
            # what is cut needs none
            gate.release()
        return [
            self._candidate(network, *outputs, mask, cost)
            for network, outputs, mask, cost in zip(networks, predicted, masks[group], costs[group], strict=True)
        ]

    def _candidate(
        self, network: nn.Module, outputs: Tensor, hidden: Tensor, mask: Bits, cost: Values
    ) -> FilterCandidate:
        fold = FoldPrediction(self._targets, outputs, hidden, hidden_dense=self._dense_hidden)
        return FilterCandidate(
            (fold,),
            int(mask.sum()),
            len(mask),
            float(cost[0]),
            float(cost[1]),
            partial(cut, self.graph, network, mask),
            self.network,
            self.parts.images[:_LATENCY_IMAGES],
        )

    def _described(self) -> str:
        channels, height, width = self._validation.shape[1:]
        return (
            f"a single network on {len(self.parts.images):,} images of {channels} x {height} x {width}: use fewer "
            "or smaller images (--size), or a smaller network"
        )

    def _scored(self, candidate: FilterCandidate) -> tuple[Values, bool]:
        return np.array([objective(candidate) for objective in self.objectives]), not candidate.finite

    def _outputs(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Logits of the validation images, and what the last linear layer reads of those that are represented."""
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if not self._needs_hidden or not linear:
            outputs = predict(network, self._validation)
            return outputs, outputs[self._represented]
        read: list[Tensor] = []
        hook = linear[-1].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].flatten(1)))
        try:
            outputs = predict(network, self._validation)
        finally:
            hook.remove()
        return outputs, torch.cat(read)[self._represented]

    def _check_outputs(self, data: LabelledImages) -> None:
        outputs = predict(self.network, self.parts.images[:2])
        if outputs.ndim != 2 or outputs.shape[1] != data.n_classes:
            raise InputError(
                f"the network gives outputs of shape {tuple(outputs.shape[1:])}, but {data.name} has "
                f"{data.n_classes} classes: give a network with as many outputs"
            )
