"""What a generation costs on a cluster, and how far more GPUs help: a model fitted to measurements of one
machine.

A Ray of its own on this machine has a few actors of one CPU core each. Measured are

* the start of Ray, and of actors until each has made its evaluator (import of PyTorch, features, folds);
* **tasks**: round trips of empty tasks, one after the other and many at once, of several numbers of masks.
  What a task costs the driver is fitted to them by least squares: ``seconds = per_task * tasks + per_byte *
  bytes``;
* **bytes** of a mask on its way there and of its scores, and its outputs, on their way back, as they are
  pickled;
* **features**: seconds and bytes of putting them into the object store;
* **training**: seconds per mask in an actor (their spread over masks is what makes some wait for others), and
  the wall time of whole generations on all actors, with and without the driver's own part.

The model of a generation plays the work queue: the driver hands out one chunk after the other, each costing
it what was fitted (it is one process, which more devices do not make faster); a device takes the next chunk
as soon as it is free; the generation ends with the last chunk. Times of masks are drawn from the measured
ones, scaled to the mean in question. Efficiency is ``masks * mean / (devices * seconds)``: the share of the
devices' time in which they train. What the model says of this machine's own actors stands beside their
measured times. For other machines it assumes what is printed with it.

Run it with nothing else going on::

    python benchmarks/cluster.py --json cluster.json --save
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import pickle
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune import FeatureSet, HeadSettings, PruningProblem
from moevoprune.search.mask_memory import MaskValues
from moevoprune.search.ray_engine import RayEngine, _Scored, _Worker, connect, disconnect

RESULTS = Path(__file__).parent / "results" / "cluster.md"
ROWS, FEATURES, CLASSES, FOLDS = 480, 2048, 4, 5
GPUS = (10, 100, 1000)
POPULATIONS = (100, 1000, 10_000)
# seconds of a mask on a device: from small heads on a GPU that trains many side by side to the papers' 600 epochs
# of 512 units on a core
MASK_SECONDS = (0.01, 0.1, 1.0, 10.0)
# of a network between machines, and its way there and back; on one machine bytes go through shared memory
NETWORK_BYTES_PER_SECOND, NETWORK_LATENCY = 1.25e9, 0.5e-3

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """Everything that was measured on this machine; seconds and bytes."""

    actors: int
    ray_start: float
    actors_start: float
    features_bytes: int
    features_put: float
    recipe_bytes: int
    mask_bytes_out: float
    mask_bytes_back: float
    output_bytes_back: float
    task_bytes_out: float
    task_bytes_back: float
    round_trip: float
    tasks: list[list[float]]
    mask_seconds: float
    mask_seconds_cv: float
    all_mask_seconds: list[float]
    generations: list[list[float]]


@dataclass(frozen=True)
class Model:
    """Costs that the model is made of: seconds, seconds per byte, bytes."""

    per_task: float
    per_byte: float
    latency: float
    bytes_per_mask: float
    relative_times: list[float]

    def driver(self, masks: int, chunk: int) -> float:
        return math.ceil(masks / chunk) * self.per_task + masks * self.bytes_per_mask * self.per_byte

    def generation(self, masks: int, devices: int, seconds: float, chunk: int) -> float:
        generator = np.random.default_rng(0)
        times = seconds * generator.choice(self.relative_times, size=masks)
        starts = range(0, masks, chunk)
        per_chunk = self.driver(masks, chunk) / len(starts)
        free = [0.0] * devices
        for number, start in enumerate(starts, 1):
            begin = max(heapq.heappop(free), number * per_chunk)
            heapq.heappush(free, begin + float(times[start : start + chunk].sum()))
        return max(free) + self.latency

    def best_chunk(self, masks: int, devices: int, seconds: float) -> int:
        largest = max(1, math.ceil(masks / devices))
        sizes = sorted({max(1, largest // parts) for parts in (1, 2, 4, 8, 16, 32)})
        return min(sizes, key=lambda size: self.generation(masks, devices, seconds, size))


def features(rows: int, columns: int) -> FeatureSet:
    """Synthetic features of the shape of the papers' reference run."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows + 100) % CLASSES
    centres = generator.normal(scale=0.3, size=(CLASSES, columns))
    values = np.maximum(centres[labels] + generator.normal(size=(rows + 100, columns)), 0).astype(np.float32)
    return FeatureSet(values[:rows], labels[:rows], values[rows:], labels[rows:], name="synthetic")


def masks_of(number: int, columns: int) -> Bits:
    """Masks of all sizes, as a search has them."""
    generator = np.random.default_rng(1)
    shares = np.exp(generator.uniform(np.log(0.01), np.log(0.9), size=number))
    masks = generator.random((number, columns)) < shares[:, None]
    masks[:, 0] = True
    return masks


def seconds_of(function: Callable[[], Any], repeats: int = 3) -> float:
    """Fastest of a few repeats."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


class Idle(_Worker):
    """An actor that gives as much back as one that has trained, without training."""

    def score(self, packed: npt.NDArray[np.uint8], n_bits: int, with_outputs: bool) -> _Scored:
        outputs = np.zeros((len(packed), ROWS, CLASSES), np.float32) if with_outputs else None
        return _Scored(np.zeros((len(packed), 3)), [False] * len(packed), outputs)


def measure(n_actors: int, population: int) -> Measured:
    started = time.perf_counter()
    ray = connect(cores=n_actors)
    ray_start = time.perf_counter() - started
    try:
        return _measure(ray, n_actors, population, ray_start)
    finally:
        disconnect()


def _measure(ray: Any, n_actors: int, population: int, ray_start: float) -> Measured:
    data = features(ROWS, FEATURES)
    masks = masks_of(population, FEATURES)
    packed = np.packbits(masks, axis=1)

    # what travels, as Ray pickles it; the first term of the fit is what a task has besides its masks
    sizes = (1, 8, 64)
    out = [len(pickle.dumps((packed[:1].repeat(n, axis=0), FEATURES, True), protocol=5)) for n in sizes]
    plain = [len(pickle.dumps(_Scored(np.zeros((n, 3)), [False] * n, None), protocol=5)) for n in sizes]
    out_slope, out_start = np.polyfit(sizes, out, 1)
    back_slope, back_start = np.polyfit(sizes, plain, 1)

    idle = [ray.remote(Idle).options(num_cpus=0).remote() for _ in range(n_actors)]
    ray.get([actor.score.remote(packed[:1], FEATURES, False) for actor in idle])
    one = idle[0]
    round_trip = statistics.median(
        seconds_of(lambda: ray.get(one.score.remote(packed[:1], FEATURES, False)), 1) for _ in range(200)
    )
    tasks = []
    for number, per_task, with_outputs in (
        (200, 1, False),
        (1000, 1, False),
        (2000, 1, False),
        (200, 32, False),
        (1000, 32, False),
        (200, 1, True),
        (1000, 1, True),
        (200, 16, True),
    ):
        rows = packed[:1].repeat(per_task, axis=0)

        def send_all(number: int = number, rows: Any = rows, with_outputs: bool = with_outputs) -> None:
            ray.get([idle[i % n_actors].score.remote(rows, FEATURES, with_outputs) for i in range(number)])

        outputs = per_task * ROWS * CLASSES * 4 * with_outputs
        travelled = number * (out_start + back_start + per_task * (out_slope + back_slope) + outputs)
        tasks.append([float(number), float(travelled), seconds_of(send_all)])
    for actor in idle:
        ray.kill(actor)

    head = HeadSettings()
    local = PruningProblem(data, head=head, cv=FOLDS, objectives=["accuracy", "active_neurons"], device="cpu")
    features_put = seconds_of(lambda: ray.put(data))
    recipe = len(pickle.dumps(local.fitness.recipe()["head"])) + 1000

    started = time.perf_counter()
    engines: list[RayEngine] = []

    def make(fitness: Any) -> RayEngine:
        engines.append(RayEngine(fitness, actors=n_actors))
        return engines[0]

    with PruningProblem(
        data, head=head, cv=FOLDS, objectives=["accuracy", "active_neurons"], device="cpu", engine=make
    ) as problem:
        engine = engines[0]
        while not all(actor.ready for actor in engine._actors):
            problem.values(masks_of(n_actors * 4, FEATURES))
            problem._known = MaskValues(problem.n_obj)
        actors_start = time.perf_counter() - started
        # each mask by itself, in one actor: training without waiting
        worker = engine._actors[0].handle
        each = [
            seconds_of(lambda row=row: ray.get(worker.score.remote(row[None], FEATURES, True)), 1)
            for row in packed
        ]
        generations = []
        for size in sorted({population // 4, population // 2, population}):
            problem._known = MaskValues(problem.n_obj)
            wall = seconds_of(lambda size=size: list(engine.evaluate(masks[:size])), 1)
            generations.append([float(size), wall, float(sum(each[:size]))])
    mean = statistics.fmean(each)
    return Measured(
        actors=n_actors,
        ray_start=ray_start,
        actors_start=actors_start,
        features_bytes=int(sum(array.nbytes for array in (data.X_train, data.X_test))),
        features_put=features_put,
        recipe_bytes=recipe,
        mask_bytes_out=float(out_slope),
        mask_bytes_back=float(back_slope),
        output_bytes_back=float(ROWS * CLASSES * 4),
        task_bytes_out=float(out_start),
        task_bytes_back=float(back_start),
        round_trip=round_trip,
        tasks=tasks,
        mask_seconds=mean,
        mask_seconds_cv=statistics.stdev(each) / mean,
        all_mask_seconds=each,
        generations=generations,
    )


def fit(measured: Measured) -> tuple[Model, float]:
    """Fit what tasks and bytes cost the driver, by relative errors; returns the largest of them too."""
    from scipy.optimize import nnls

    table = np.array(measured.tasks)
    seconds = table[:, 2]
    costs, _ = nnls(table[:, :2] / seconds[:, None], np.ones(len(seconds)))
    errors = np.abs(table[:, :2] @ costs / seconds - 1)
    model = Model(
        per_task=float(costs[0]),
        per_byte=float(costs[1]),
        latency=measured.round_trip,
        bytes_per_mask=measured.mask_bytes_out + measured.mask_bytes_back + measured.output_bytes_back,
        relative_times=[seconds / measured.mask_seconds for seconds in measured.all_mask_seconds],
    )
    return model, float(errors.max())


def over_network(model: Model) -> Model:
    """The same driver, with its bytes going over a network."""
    per_byte = max(model.per_byte, 1 / NETWORK_BYTES_PER_SECOND)
    return replace(model, per_byte=per_byte, latency=model.latency + NETWORK_LATENCY)


def predictions(model: Model) -> list[list[str]]:
    rows = []
    for seconds in MASK_SECONDS:
        for masks in POPULATIONS:
            cells = [f"{seconds:g}", f"{masks:,}", _seconds(masks * seconds)]
            for devices in GPUS:
                chunk = model.best_chunk(masks, devices, seconds)
                wall = model.generation(masks, devices, seconds, chunk)
                cells.append(f"{_seconds(wall)} ({masks * seconds / devices / wall:.0%})")
            rows.append(cells)
    return rows


def _seconds(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f} s"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---:" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def report(measured: Measured, model: Model, error: float) -> str:
    cluster = over_network(model)
    one_by_one = 1 / cluster.driver(1, 1)
    bundled = 1 / (cluster.bytes_per_mask * cluster.per_byte)
    lines = [
        "# Past one machine: what a generation costs, and how far it scales",
        "",
        f"`python benchmarks/cluster.py`, {date.today().isoformat()}, {_machine()}; {measured.actors} actors of "
        f"one core each in a local Ray {version('ray')}; PyTorch {version('torch')}. Features: {ROWS} training "
        f"rows of {FEATURES}, {CLASSES} classes, {FOLDS} folds.",
        "",
        "## Measured",
        "",
        *table(
            ["what", "value"],
            [
                ["start of Ray", _seconds(measured.ray_start)],
                ["start of the actors, once per run", _seconds(measured.actors_start)],
                [
                    f"features into the object store ({measured.features_bytes / 1e6:.1f} MB), once per run",
                    _seconds(measured.features_put),
                ],
                ["a task there and back", _seconds(measured.round_trip)],
                [
                    "a task's own bytes, out and back",
                    f"{measured.task_bytes_out:.0f} + {measured.task_bytes_back:.0f}",
                ],
                [
                    "a mask's bytes, out and back",
                    f"{measured.mask_bytes_out:.0f} + {measured.mask_bytes_back:.0f}, its outputs "
                    f"{measured.output_bytes_back:.0f}",
                ],
                ["training a mask, mean", _seconds(measured.mask_seconds)],
                ["the same, coefficient of variation", f"{measured.mask_seconds_cv:.2f}"],
            ],
        ),
        "",
        "## Fitted",
        "",
        f"Driver: {model.per_task * 1e6:.0f} µs per task and {1e-6 / max(model.per_byte, 1e-15):,.0f} MB/s, from "
        f"{len(measured.tasks)} loads of 200 to 2,000 tasks; largest error {error:.0%}.",
        "",
        *table(
            ["tasks", "MB", "measured", "model"],
            [
                [
                    f"{number:,.0f}",
                    f"{travelled / 1e6:.2f}",
                    _seconds(seconds),
                    _seconds(number * model.per_task + travelled * model.per_byte),
                ]
                for number, travelled, seconds in measured.tasks
            ],
        ),
        "",
        f"Generations on the {measured.actors} actors, and what the model says of them:",
        "",
        *table(
            ["masks", "training, one after the other", "measured", "model", "efficiency"],
            [
                [
                    f"{masks:.0f}",
                    _seconds(training),
                    _seconds(wall),
                    _seconds(
                        model.generation(
                            int(masks), measured.actors, training / masks, math.ceil(masks / measured.actors / 4)
                        )
                    ),
                    f"{training / measured.actors / wall:.0%}",
                ]
                for masks, wall, training in measured.generations
            ],
        ),
        "",
        "## Predicted: seconds of a generation, and the share of the devices' time in which they train",
        "",
        *table(
            ["s per mask", "masks", "one device", *(f"{devices:,} GPUs" for devices in GPUS)], predictions(cluster)
        ),
        "",
        "Assumed: the driver of this machine; a network of "
        f"{NETWORK_BYTES_PER_SECOND * 8 / 1e9:.0f} Gbit/s and {NETWORK_LATENCY * 1e3:.1f} ms; masks whose times "
        f"vary as those measured (coefficient of variation {measured.mask_seconds_cv:.2f}); devices of one speed, "
        "none of which is lost; the best number of masks per task. A GPU's seconds per mask are those of a full "
        "load: one that gets fewer masks than it trains side by side is slower per mask than the table says. The "
        "search's own work between generations (crossover, sorting, archive, journal) is not in it, nor the "
        "ranking of bits before and the retraining of the members after the search, which the driver's machine "
        "does.",
        "",
        "## What follows",
        "",
        f"* The driver hands out and takes back {one_by_one:,.0f} masks per second if each is a task of its own, "
        f"and {bundled:,.0f} however they are bundled. So G devices are kept busy only where a mask takes more "
        f"than about G / {one_by_one:,.0f} seconds: {_seconds(100 / one_by_one)} for 100, "
        f"{_seconds(1000 / one_by_one)} for 1,000; with larger tasks less, at the price of waiting for the last "
        "one.",
        "* A generation cannot use more devices than it has masks, and with as many as masks all wait for the "
        "slowest mask: with times that vary as here, 100 masks on 100 devices use "
        f"{_efficiency(cluster, 100, 100, 10.0):.0%} of them, 1,000 masks "
        f"{_efficiency(cluster, 1000, 100, 10.0):.0%}, and 10,000 masks "
        f"{_efficiency(cluster, 10_000, 100, 10.0):.0%}. "
        "Populations of at least five to ten times the number of devices are what they need.",
        "* Beyond that, seeds and data sets are what scales: runs have nothing to wait for (`moevoprune sweep`).",
    ]
    return "\n".join(lines) + "\n"


def _efficiency(model: Model, masks: int, devices: int, seconds: float) -> float:
    chunk = model.best_chunk(masks, devices, seconds)
    return masks * seconds / devices / model.generation(masks, devices, seconds, chunk)


def _machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=2, help="actors, one core each (default: 2)")
    parser.add_argument("--population", type=int, default=64, help="masks of the largest generation (default: 64)")
    parser.add_argument("--json", metavar="FILE", help="write measurements and model")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name} into benchmarks/results")
    arguments = parser.parse_args()
    measured = measure(arguments.actors, arguments.population)
    model, error = fit(measured)
    text = report(measured, model, error)
    print(text)
    if arguments.json:
        record = {"measured": asdict(measured), "model": asdict(model), "largest_error": error}
        Path(arguments.json).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if arguments.save:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
