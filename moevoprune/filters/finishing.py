"""What a search chose, made real: networks physically cut, tuned alike, measured side by side, tested once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.device import single_threaded
from moevoprune.errors import InputError, whole_number
from moevoprune.filters.baselines import METHODS, magnitude_mask
from moevoprune.filters.costs import count
from moevoprune.filters.cutting import GATE_TOLERANCE, cut, gate_difference
from moevoprune.filters.images import to_tensor
from moevoprune.filters.objectives import latencies
from moevoprune.filters.problem import FilterPruningProblem
from moevoprune.filters.training import TuningSettings, predict, recalibrate, tune
from moevoprune.search.fitness import pack

__all__ = ["LATENCY_BATCH", "ORIGINAL", "ORIGINAL_TUNED", "FinishedNetwork", "finish", "weights_of"]

Bits = npt.NDArray[np.bool_]

ORIGINAL, ORIGINAL_TUNED = "original", "original, tuned"
LATENCY_BATCH = 64
"""Images of the larger latency measurement."""

_KNEE = "knee"
_LARGEST_SEED = 2**32 - 1
# single images take so little time that more turns cost nothing
_SINGLE_REPEATS, _BATCH_REPEATS = 31, 9


@dataclass(frozen=True, eq=False)
class FinishedNetwork:
    """A network as it can be used, and what it costs.

    Attributes
    ----------
    role
        ``"original"``, ``"original, tuned"``, what the mask was called (``"heavy"``, ``"knee"``, ``"light"``), or
        the role of a baseline (:data:`~moevoprune.filters.baselines.METHODS`).
    network
        Physically cut, tuned (but for the original), in evaluation mode, on the problem's device.
    mask
        Filters that it kept, shape (n_bits,).
    flops
        Multiply-accumulates for one image, in torch-pruning's count.
    parameters
        Their number, in torch-pruning's count.
    bytes
        Size of its weights and buffers as a safetensors file.
    latency, latency_batch
        Median seconds for one image and for :data:`LATENCY_BATCH` of them, on the problem's device (one thread of
        a CPU), all networks measured in turns.
    test_error
        Share of the test images that it gets wrong, in [0, 1].
    test_error_before
        The same before tuning: cut, and with batch-norm statistics taken anew.
    validation_error
        What the search saw, in [0, 1]; None for networks that are not from a search, and where error and accuracy
        were no objectives.
    """

    role: str
    network: nn.Module
    mask: Bits
    flops: int
    parameters: int
    bytes: int
    latency: float
    latency_batch: float
    test_error: float
    test_error_before: float
    validation_error: float | None


def finish(
    problem: FilterPruningProblem,
    masks: Mapping[str, Bits],
    settings: TuningSettings,
    baselines: Sequence[str] | None = None,
    baseline_flops: float | None = None,
    distil: bool = False,
    *,
    seed: int = 0,
    jobs: int = 1,
    unreached: Callable[[InputError], None] | None = None,
) -> list[FinishedNetwork]:
    """Cut, tune, measure and test the networks that a search chose, and what they are compared with.

    The original, the chosen networks and the baselines are all treated alike: cut, batch-norm statistics taken
    anew, tuned with the same settings on the same batches of all training images (those that scored the search
    included). The original is listed a second time as it was given. Roles with the same mask share one network.

    Test images are read at the very end, when nothing is left to decide, and each network sees them once before
    tuning and once after.

    Parameters
    ----------
    problem
        The problem, with the network and the images.
    masks
        What to finish, by role; filters that stay, shape (n_bits,).
    settings
        How to tune.
    baselines
        Keys of :data:`~moevoprune.filters.baselines.METHODS`; None for none.
    baseline_flops
        What baselines may cost; None for the FLOPs of the mask called ``"knee"``.
    distil
        Whether all are also taught the original's answers (``teacher_logits`` of
        :func:`~moevoprune.filters.training.tune`).
    seed
        Of the batches, at least 0.
    jobs
        Threads that tune networks side by side on a CPU, at least 1; changes nothing but time.
    unreached
        Told of baselines that do not get to these FLOPs, which are left out then; None to raise the error.

    Returns
    -------
    list of FinishedNetwork
        The original as given, the original tuned, the masks in their order, the baselines in theirs.

    Raises
    ------
    InputError
        A mask, a baseline or a number cannot be used; a cut network does not compute what its gates say; the loss
        of one stopped being finite.
    """
    seed = whole_number("seed", seed, 0, _LARGEST_SEED)
    jobs = whole_number("jobs", jobs, 1, 1024)
    if problem.fitness.device.type != "cpu":
        jobs = 1
    wanted = _all_masks(problem, masks, baselines or (), baseline_flops, unreached)
    keys = pack(np.stack(list(wanted.values())))
    first_roles: dict[bytes, str] = {}
    for role, key in zip(wanted, keys, strict=True):
        first_roles.setdefault(key, role)
    distinct = {role: wanted[role] for role in first_roles.values()}
    before = [_cut(problem, role, mask) for role, mask in distinct.items()]
    recalibrate(before, problem.fitness.recalibration)
    tuned = copy.deepcopy(before)
    _tune(problem, tuned, list(distinct), settings, distil, seed, jobs)

    seen = {role: _validation_error(problem, mask) for role, mask in masks.items()}
    measured = _measured(problem, distinct, before, tuned)
    return [
        measured[ORIGINAL],
        *(
            replace(measured[first_roles[key]], role=role, validation_error=seen.get(role))
            for role, key in zip(wanted, keys, strict=True)
        ),
    ]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """State dict as safetensors takes it: on the CPU, contiguous, nothing shared."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}


def _all_masks(
    problem: FilterPruningProblem,
    masks: Mapping[str, Bits],
    baselines: Sequence[str],
    flops: float | None,
    unreached: Callable[[InputError], None] | None,
) -> dict[str, Bits]:
    """By role, whatever is to be cut and tuned."""
    graph, network = problem.graph, problem.fitness.network
    taken = {ORIGINAL, ORIGINAL_TUNED, *(method.role for method in METHODS.values())}
    for role, mask in masks.items():
        if role in taken:
            raise InputError(f"a mask cannot be called {role!r}, which is another network's role: rename it")
        if mask.dtype != np.bool_ or mask.ndim != 1:
            raise InputError(
                f"the mask {role!r} is {mask.dtype} of shape {mask.shape}: give ({graph.n_bits},) of bool"
            )
        graph.check_masks(mask[None])
    if baselines and flops is None:
        if _KNEE not in masks:
            raise InputError("baselines need baseline_flops, as no mask is called 'knee'")
        flops = float(problem.costs(masks[_KNEE][None])[0, 0])
    found = {ORIGINAL_TUNED: np.ones(graph.n_bits, np.bool_), **masks}
    for method in baselines:
        try:
            mask = magnitude_mask(graph, network, problem.costs, method, flops or 0.0)
        except InputError as error:
            if unreached is None:
                raise
            unreached(error)
        else:
            found[METHODS[method].role] = mask
    return found


def _cut(problem: FilterPruningProblem, role: str, mask: Bits) -> nn.Module:
    graph, network = problem.graph, problem.fitness.network
    smaller = cut(graph, network, mask)
    with single_threaded():
        difference = gate_difference(graph, network, smaller, mask, _images(problem, LATENCY_BATCH))
    if not difference <= GATE_TOLERANCE:
        raise InputError(
            f"the network {role!r}, cut, gives outputs that differ by {difference:.2g} from those with gates shut:"
            " name the modules that its forward slices or reshapes with keep"
        )
    return smaller


def _tune(
    problem: FilterPruningProblem,
    networks: Sequence[nn.Module],
    roles: Sequence[str],
    settings: TuningSettings,
    distil: bool,
    seed: int,
    jobs: int,
) -> None:
    """Tune networks in place, on as many threads as there are jobs."""
    parts = problem.fitness.parts
    taught = predict(problem.fitness.network, parts.images) if distil and settings.epochs else None
    stopped = threading.Event()

    def go_on(_: int) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt

    def work(some: slice) -> list[str]:
        diverged = tune(networks[some], parts.images, parts.labels, settings, seed, go_on, taught)
        return [roles[some][position] for position in diverged]

    shares = [slice(first, None, jobs) for first in range(min(jobs, len(networks)))]
    # threads take the number over that is set when they start
    with single_threaded(), ThreadPoolExecutor(len(shares)) as pool:
        try:
            diverged = [role for found in pool.map(work, shares) for role in found]
        finally:
            stopped.set()
    if diverged:
        raise InputError(
            f"the loss of the network {diverged[0]!r} is no longer finite: use a smaller learning_rate"
        )


def _measured(
    problem: FilterPruningProblem,
    masks: Mapping[str, Bits],
    before: Sequence[nn.Module],
    tuned: Sequence[nn.Module],
) -> dict[str, FinishedNetwork]:
    """By role the original and each different network; latency side by side, and last of all the test images."""
    original = copy.deepcopy(problem.fitness.network).eval()
    networks = [original, *tuned]
    single = latencies(networks, _images(problem, 1), _SINGLE_REPEATS)
    batch = latencies(networks, _images(problem, LATENCY_BATCH), _BATCH_REPEATS)
    costs = [count(network, problem.graph.example) for network in networks]
    errors = _test_errors(problem, [*networks, *before])
    # the original is not changed by tuning
    errors_before = [errors[0], *errors[len(networks) :]]
    found = {}
    roles = {ORIGINAL: np.ones(problem.graph.n_bits, np.bool_), **masks}
    for place, (role, mask) in enumerate(roles.items()):
        found[role] = FinishedNetwork(
            role=role,
            network=networks[place],
            mask=mask,
            flops=costs[place][0],
            parameters=costs[place][1],
            bytes=_n_bytes(networks[place]),
            latency=single[place],
            latency_batch=batch[place],
            test_error=errors[place],
            test_error_before=errors_before[place],
            validation_error=None,
        )
    return found


def _images(problem: FilterPruningProblem, n_images: int) -> Tensor:
    """So many training images, again from the first where there are fewer."""
    images = problem.fitness.parts.images
    return images[torch.arange(n_images, device=images.device) % len(images)]


def _test_errors(problem: FilterPruningProblem, networks: Sequence[nn.Module]) -> list[float]:
    images = to_tensor(problem.images.X_test, problem.normalisation).to(problem.fitness.device)
    classes = torch.tensor(problem.images.y_test, device=problem.fitness.device)
    return [float((predict(network, images).argmax(dim=1) != classes).double().mean()) for network in networks]


def _validation_error(problem: FilterPruningProblem, mask: Bits) -> float | None:
    error, accuracy = problem.column("error"), problem.column("accuracy")
    if error is None and accuracy is None:
        return None
    (values,) = problem.values(mask[None])
    return float(values[error]) if error is not None else 1.0 - float(values[accuracy])


def _n_bytes(network: nn.Module) -> int:
    from safetensors.torch import save

    return len(save(weights_of(network)))
