"""Filter pruning as an ordinary pymoo problem over bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from pymoo.core.sampling import Sampling
from torch import nn

from moevoprune.errors import InputError, whole_number
from moevoprune.filters.fitness import FilterEvaluator
from moevoprune.filters.images import LabelledImages, Normalisation, load_images
from moevoprune.filters.importance import magnitude
from moevoprune.filters.objectives import DEFAULT_FILTER_OBJECTIVES, resolve_filter_objectives
from moevoprune.filters.removal import masks_along, removal_order, weakest_first
from moevoprune.filters.training import TuningSettings
from moevoprune.objectives import Candidate, Objective
from moevoprune.search.bit_problem import BitProblem, Guidance
from moevoprune.search.sampling import DensitySampling

__all__ = ["FILTERS_VERSION", "FilterPruningProblem"]

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

# values of another version are not to be mixed with these
FILTERS_VERSION = 1

_LARGEST_SEED = 2**32 - 1
# of the start of a blind search: below, networks are as good as untrained ones
_LOWEST_DENSITY = 0.3
# FLOPs of the seeds of a guided search, as shares of the whole network's
_SMALLEST_SEED = 0.1
# every third one
_SEEDS_BY_MAGNITUDE = 3
_REMOVAL_STEPS = 16
_IMPORTANCE_IMAGES = 500


class FilterPruningProblem(BitProblem):
    """Which filters should a trained convolutional network keep?

    A vectorised pymoo problem, as :class:`~moevoprune.PruningProblem`: ``vtype=bool``, no bounds, ``F`` minimised.
    A bit is a filter with all that has to go with it, see :class:`~moevoprune.filters.graph.FilterGraph`. A mask
    that empties a layer is repaired: the layer's strongest filter (L1 norm) stays. (DeepPruningES, arXiv
    1912.11527, keeps the first.)

    Parameters
    ----------
    network
        A trained image classifier; it is copied.
    data
        :class:`~moevoprune.filters.images.LabelledImages`, or what
        :func:`~moevoprune.filters.images.load_images` takes. Its test part is not read.
    objectives
        ``error`` (of validation images), ``accuracy``, ``flops``, ``parameters``, ``latency`` (shares of the whole
        network's), ``cka:dense``, instances of :class:`~moevoprune.Objective` or functions of a
        :class:`~moevoprune.filters.objectives.FilterCandidate`. Default: error and FLOPs, as in DeepPruningES.
        Latency is a measurement: a mask's value is that of the first time.
    tuning
        How candidates are trained before they are scored; None for not at all: their batch-norm statistics are
        taken anew, which is a fraction of the work. DeepPruningES trains for 3 epochs on all images,
        ``TuningSettings.preset("paper")``.
    n_tuning
        Training images that candidates are trained on, at least 2; None for all that do not score them.
    distil
        Whether candidates, while they are trained, are also taught the whole network's answers
        (``teacher_logits`` of :func:`moevoprune.filters.training.tune`); ours, not DeepPruningES's.
    normalisation
        What the network's inputs were normalised by; None for the training images' own mean and deviation.
    validation_share
        Share of the training images that scores candidates, in (0, 1); default the published .2.
    n_recalibration
        Images that batch-norm statistics are taken from, at least 2.
    seed
        Of the split and of training, at least 0.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    jobs
        Threads that evaluate candidates side by side on a CPU, at least 1; changes nothing but time.
    keep
        Names of modules whose filters are kept whole.

    Attributes
    ----------
    fitness
        The :class:`~moevoprune.filters.fitness.FilterEvaluator`.
    images, normalisation
        ``data`` and ``normalisation``, resolved.

    Raises
    ------
    InputError
        Any of these cannot be used; the message says which and why.

    Examples
    --------
    >>> problem = FilterPruningProblem(network, "digits")  # doctest: +SKIP
    >>> result = run_search(problem, algorithm="guided", n_gen=10)  # doctest: +SKIP
    """

    size_objective = "flops"

    def __init__(
        self,
        network: nn.Module,
        data: LabelledImages | str,
        objectives: Sequence[str | Objective | Callable[[Candidate], float]] | None = None,
        tuning: TuningSettings | None = None,
        n_tuning: int | None = None,
        distil: bool = False,
        normalisation: Normalisation | None = None,
        validation_share: float = 0.2,
        n_recalibration: int = 500,
        seed: int = 0,
        device: str = "auto",
        jobs: int = 1,
        keep: Sequence[str] = (),
    ) -> None:
        if not isinstance(network, nn.Module):
            raise InputError(f"network is a {type(network).__name__}: give a torch.nn.Module")
        if not (isinstance(validation_share, float) and 0 < validation_share < 1):
            raise InputError(f"validation_share = {validation_share!r}: use a share between 0 and 1")
        self.images = data if isinstance(data, LabelledImages) else load_images(data)
        self.normalisation = normalisation or Normalisation.of(self.images)
        self.tuning = tuning or TuningSettings(epochs=0)
        self._seed = whole_number("seed", seed, 0, _LARGEST_SEED)
        self._validation_share = validation_share
        self._n_tuning = None if n_tuning is None else whole_number("n_tuning", n_tuning, 2)
        self._distil = bool(distil)
        self._n_recalibration = whole_number("n_recalibration", n_recalibration, 2)
        resolved = resolve_filter_objectives(DEFAULT_FILTER_OBJECTIVES if objectives is None else objectives)
        self.fitness = FilterEvaluator(
            network,
            self.images,
            self.normalisation,
            resolved,
            self.tuning,
            self._n_tuning,
            self._distil,
            validation_share,
            self._n_recalibration,
            self._seed,
            device,
            whole_number("jobs", jobs, 1, 1024),
            keep,
        )
        self._keep = tuple(keep)
        self.graph = self.fitness.graph
        self.costs = self.fitness.costs
        self._strength = magnitude(self.graph, self.fitness.network)
        super().__init__(self.graph.n_bits, resolved)

    def repair(self, bits: Bits) -> Bits:
        """Give the strongest filter back to layers that a mask empties."""
        bits = bits.copy()
        for layer in self.graph.layers:
            emptied = ~bits[:, layer.bits].any(axis=1)
            bits[emptied, layer.bits.start + int(np.argmax(self._strength[layer.bits]))] = True
        return bits

    def identity(self) -> dict[str, object]:
        """Everything that values depend on besides the mask, as plain values."""
        tuning = {f"tuning.{key}": value for key, value in self.tuning.model_dump(mode="json").items()}
        return {
            "data": f"{self.images.name} ({self.images.content_hash[:16]})",
            "network": f"{type(self.fitness.network).__name__} ({_digest(self.fitness.network)})",
            "filters": self.n_var,
            "keep": list(self._keep),
            "mean": list(self.normalisation.mean),
            "std": list(self.normalisation.std),
            "n_tuning": self._n_tuning or "all",
            "distil": self._distil,
            "validation_share": self._validation_share,
            "n_recalibration": self._n_recalibration,
            "seed": self._seed,
            "device": self.fitness.device.type,
            "version": FILTERS_VERSION,
            "torch": torch.__version__,
            **tuning,
        }

    def guidance(self, n_seeds: int) -> Guidance:
        """What a guided search starts from: masks on the way of two removals, at equal steps of FLOPs.

        Two of three are on the way of :func:`moevoprune.filters.removal.removal_order`, by what the loss is
        sensitive to, which also gives the filters their scores: how late they go. The others are on that by
        magnitude. The rest of the start population is drawn by tournaments of these scores.
        """
        parts = self.fitness.parts
        some = parts.training[:_IMPORTANCE_IMAGES]
        order = removal_order(
            self.graph,
            self.fitness.network,
            self.costs,
            parts.images[some],
            parts.labels[some],
            self.fitness.recalibration,
            _REMOVAL_STEPS,
        )
        scores = np.full(self.n_var, float(len(order)))
        scores[order] = np.arange(len(order))
        by_magnitude = weakest_first(self.graph, np.ones(self.n_var, np.bool_), self._strength)
        shares = np.linspace(1.0, _SMALLEST_SEED, n_seeds)
        turns = np.arange(n_seeds) % _SEEDS_BY_MAGNITUDE == 1
        seeds = np.concatenate(
            [
                masks_along(self.graph, order, self.costs, shares[~turns]),
                masks_along(self.graph, by_magnitude, self.costs, shares[turns]),
            ]
        )
        different = np.unique(seeds, axis=0, return_index=True)[1]
        low = max(round(_LOWEST_DENSITY * self.n_var), 1)
        return Guidance(scores, seeds[np.sort(different)], DensitySampling("log", low=low, scores=scores))

    def blind_sampling(self) -> Sampling:
        """Draw masks of densities that leave a network something to work with."""
        return DensitySampling("uniform", densities=(_LOWEST_DENSITY, 1.0))

    def _measure(self, bits: Bits) -> Iterator[tuple[Values, bool]]:
        yield from self.fitness.evaluate(bits)


def _digest(network: nn.Module) -> str:
    """Hash of a network's modules, weights and buffers, 16 hexadecimal characters."""
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
