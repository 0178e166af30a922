"""The population trainer on a GPU: seconds for a population, and where they go.

* **The population**: 100 feature masks, half of 2048 features each, trained for 600 epochs on 480 rows with 512
  hidden units: the ``paper`` preset, which has no bias in the hidden layer, with a patience that lets nothing stop
  early, so that all work is done. Ours is ``SlotTrainer`` in float32 without tf32. Its first call, with
  construction and the capture of the CUDA graph, stands beside later calls, of which a search has many.
* **The sequential loop** on the same GPU, see ``sequential.py``. Its cost is linear in masks and epochs, so it
  trains few of both, and its seconds for the population are extrapolated.
* **Floors**: what a step cannot go below on this GPU, and what is left above them.
* **Independence**: whether masks get the same heads, bit for bit, whatever is trained beside them.

Run it with nothing else on the GPU::

    python benchmarks/gpu.py --save
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from common import Case, Report, make_masks, make_parser, make_task, parse, plural, start
from sequential import SEQUENTIAL, train_in_a_loop
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from moevoprune.device import reproducible, resolve_device
from moevoprune.heads.batches import n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.slots import SlotTrainer
from moevoprune.heads.stack import HeadStack
from moevoprune.heads.start import StartWeights

SEED = 0
MOST_SECONDS = 3.0
LEAST_RATIO = 100.0


@dataclass(frozen=True)
class Work:
    """Rows, head, masks and device of a run."""

    features: Tensor
    labels: Tensor
    shape: HeadShape
    masks: list[HeadMask]
    arguments: argparse.Namespace

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Work:
        device = resolve_device(arguments.device)
        shape = HeadShape(arguments.features, (arguments.hidden,), arguments.classes)
        features, labels = make_task(arguments.rows, arguments.features, arguments.classes)
        masks = make_masks("features", 0.5, shape, arguments.masks, SEED)
        return cls(
            torch.tensor(features, device=device), torch.tensor(labels, device=device), shape, masks, arguments
        )

    @property
    def row_sets(self) -> list[np.ndarray]:
        return [np.arange(len(self.features))]

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def steps_per_epoch(self) -> int:
        return n_steps(len(self.features), self.arguments.batch)

    def settings(self, epochs: int) -> HeadSettings:
        """The published training, with a patience that no head exhausts."""
        return HeadSettings.preset(
            "paper", hidden=self.shape.hidden, epochs=epochs, patience=epochs, batch_size=self.arguments.batch
        )

    def trainer(self, epochs: int, dtype: torch.dtype = torch.float32, n_slots: int | None = None) -> SlotTrainer:
        settings = self.settings(epochs)
        return SlotTrainer(
            self.features.to(dtype),
            torch.nn.functional.one_hot(self.labels, self.shape.n_outputs).to(dtype),
            self.labels.cpu().numpy(),
            self.shape,
            settings,
            StartWeights(self.shape, settings, SEED),
            SEED,
            n_slots=n_slots or self.arguments.slots,
        )

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        """Wall seconds of some work on the device, the mean over several times."""
        self.wait()
        before = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - before) / times

    def best_seconds(self, work: Callable[[], object], times: int) -> float:
        """Seconds of a small piece of work: the fastest of some rounds, after a warm-up."""
        with reproducible(self.device):
            work()
            return min(self.seconds(work, times) for _ in range(self.arguments.repeats))


def measure_population(report: Report, work: Work) -> float:
    """Time the population and the loop; returns seconds of ours per step of all slots."""
    arguments = work.arguments
    epochs = arguments.epochs
    trainer: list[SlotTrainer] = []

    def first() -> list[HeadStack]:
        trainer.append(work.trainer(epochs))
        return list(trainer[0].fit(work.masks, work.row_sets))

    first_seconds = work.seconds(first)
    later = [
        work.seconds(lambda: list(trainer[0].fit(work.masks, work.row_sets))) for _ in range(arguments.repeats)
    ]
    seconds = min(later)
    n_slots = trainer[0].n_slots(work.row_sets)
    loop_settings = work.settings(arguments.loop_epochs)
    loop_masks = work.masks[: arguments.loop_masks]
    torch.manual_seed(SEED)

    def loop() -> object:
        return train_in_a_loop(work.features, work.labels, work.shape, loop_settings, loop_masks)

    loop()
    share = len(work.masks) * epochs / (len(loop_masks) * arguments.loop_epochs)
    loop_seconds = min(work.seconds(loop) for _ in range(arguments.repeats)) * share

    report.section("The population")
    report.text(
        f"{plural(len(work.masks), 'mask')} of {arguments.features // 2} of {arguments.features} features,",
        f"{plural(epochs, 'epoch')}, {arguments.rows} rows, batches of {arguments.batch},",
        f"{arguments.hidden} hidden units, {arguments.classes} classes, {n_slots} slots, float32 without tf32.",
        f"Fastest of {plural(arguments.repeats, 'run')}, in brackets the slowest.",
    )
    report.table("", "seconds", "times ours")
    report.row("ours, later calls", f"{seconds:.2f} ({max(later):.2f})", "1.0")
    report.row("ours, first call, all included", f"{first_seconds:.2f}", f"{first_seconds / seconds:.1f}")
    report.row("sequential loop, extrapolated", f"{loop_seconds:.0f}", f"{loop_seconds / seconds:.0f}")
    report.end_table()
    report.text(
        f"The loop ({SEQUENTIAL}; no early stopping) ran {plural(len(loop_masks), 'mask')} for",
        f"{plural(arguments.loop_epochs, 'epoch')} on the same device; its figure is that times {share:g}.",
    )
    details = {"seconds": seconds, "seconds_of_all_runs": later, "seconds_of_the_first_call": first_seconds}
    speed = Case(
        "population, ours against the loop",
        loop_seconds / seconds,
        f"on the same device, extrapolated: {SEQUENTIAL}",
        at_least=LEAST_RATIO,
        details={**details, "extrapolated_by": share},
    )
    time_case = Case(
        "population, seconds over the target's",
        seconds / MOST_SECONDS,
        f"{MOST_SECONDS:g} seconds",
        at_most=1.0,
        details=details,
    )
    for case in (report.case(speed), report.case(time_case)):
        if case.met is not None:
            report.text(f"{case.name}: {case.ratio:.2f}; {case.verdict()}.")
    rounds = -(-len(work.masks) // n_slots)
    return seconds / (rounds * epochs * work.steps_per_epoch)


def measure_floors(report: Report, work: Work, n_slots: int, seconds_per_step: float) -> None:
    """Time the parts of a step that no arrangement of the rest can avoid."""
    arguments, like = work.arguments, work.features
    rows, hidden, batch = arguments.rows, arguments.hidden, arguments.batch
    generator = torch.Generator(like.device).manual_seed(SEED)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=like.device)

    grams, states, values = (
        random(n_slots, batch, rows),
        random(n_slots, rows, hidden),
        random(n_slots, batch, hidden),
    )
    velocity, factor = torch.zeros_like(states), random(n_slots, 1, 1)
    times = 20 if like.is_cuda else 1
    product = work.best_seconds(lambda: values.baddbmm_(grams, states, beta=0), times)
    pull = work.best_seconds(lambda: states.addcmul_(velocity, factor), times)
    n_numbers = arguments.copy_megabytes * 2**20 // 4
    source = random(n_numbers)
    target = torch.empty_like(source)
    copy = work.best_seconds(lambda: target.copy_(source), times)
    side = arguments.peak_size
    left, right = random(side, side), random(side, side)
    square = work.best_seconds(lambda: left @ right, times)
    bandwidth, peak = 2 * 4 * n_numbers / copy, 2 * side**3 / square

    flops, state_bytes = 2.0 * n_slots * batch * rows * hidden, 4.0 * n_slots * rows * hidden
    report.section("Where a step goes")
    report.text(
        f"One step of all {n_slots} slots. Copy bandwidth {bandwidth / 1e9:.0f} GB/s (read and write),",
        f"float32 product of {side} x {side} matrices {peak / 1e12:.2f} TFLOP/s, both measured here.",
    )
    report.table("part", "µs", "share of a step", "reached")
    parts = [
        ("batched product K[b] A, alone", product, f"{flops / product / peak:.0%} of the product's peak"),
        ("pass over A and U, alone", pull, f"{3 * state_bytes / pull / bandwidth:.0%} of the copy bandwidth"),
        ("the rest: upper layer, gradients, gathers, launches", seconds_per_step - product - pull, ""),
        ("a step of ours, early stopping and all included", seconds_per_step, ""),
        ("least possible: product at its peak, one read of A", max(flops / peak, state_bytes / bandwidth), ""),
        ("least possible: one pass over A and U", 3 * state_bytes / bandwidth, ""),
    ]
    for name, seconds, reached in parts:
        report.row(name, f"{seconds * 1e6:.1f}", f"{seconds / seconds_per_step:.0%}", reached)
    report.end_table()
    report.case(
        Case(
            "a step against its two large parts",
            seconds_per_step / (product + pull),
            "the bare batched product and the bare pass over A and U on the same device",
            details={
                "step_us": seconds_per_step * 1e6,
                "product_us": product * 1e6,
                "pass_us": pull * 1e6,
                "copy_gb_per_s": bandwidth / 1e9,
                "float32_tflops": peak / 1e12,
            },
        )
    )


def show_kernels(report: Report, work: Work) -> None:
    """Print what the profiler finds to take most time, over a few epochs."""
    trainer = work.trainer(3)
    list(trainer.fit(work.masks, work.row_sets))
    on_cuda = work.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_cuda else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        list(trainer.fit(work.masks, work.row_sets))
        work.wait()
    found = []
    for event in profiler.key_averages():
        if on_cuda and event.device_type == DeviceType.CUDA:
            found.append((event.self_device_time_total, event.count, event.key))
        elif not on_cuda:
            found.append((event.self_cpu_time_total, event.count, event.key))
    total = sum(microseconds for microseconds, _, _ in found)
    report.section("Kernels")
    report.text("Three epochs, with the heads' way in and out; by time, from PyTorch's profiler.")
    report.table("kernel", "ms", "share", "calls")
    for microseconds, count, name in sorted(found, reverse=True)[: work.arguments.kernels]:
        shown = name if len(name) <= 90 else name[:87] + "..."
        share = f"{microseconds / total:.0%}" if total else ""
        report.row(f"`{shown.replace('|', ' ')}`", f"{microseconds / 1e3:.2f}", share, f"{count}")
    report.end_table()


def check_independence(report: Report, work: Work, n_slots: int) -> None:
    """Train masks in several companies and count those whose heads are not the same to the last bit."""
    epochs = work.arguments.check_epochs

    def heads(order: Sequence[int], slots: int = n_slots) -> dict[int, list[Tensor]]:
        masks = [work.masks[number] for number in order]
        stacks = work.trainer(epochs, n_slots=slots).fit(masks, work.row_sets)
        return {
            number: [tensor.cpu() for tensor in (*stack.weights, *stack.biases) if tensor is not None]
            for number, stack in zip(order, stacks, strict=True)
        }

    everyone = list(range(len(work.masks)))
    together = heads(everyone)
    rng = np.random.default_rng(SEED)
    companies: list[tuple[str, list[int], int]] = [
        ("once more", everyone, n_slots),
        ("in reverse order", everyone[::-1], n_slots),
        ("shuffled", rng.permutation(everyone).tolist(), n_slots),
        ("half of them", everyone[1::2], n_slots),
        ("one alone", everyone[-1:], n_slots),
    ]
    report.section("The same heads in other company")
    report.table("trained", "masks", "other heads, bit for bit")
    different = 0
    for name, order, slots in companies:
        found = heads(order, slots)
        unequal = sum(not _all_equal(found[number], together[number]) for number in order)
        different += unequal
        report.row(name, f"{len(order)}", f"{unequal}")
    fewer = max(n_slots // 2, 2)
    other = heads(everyone, fewer)
    unequal = sum(not _all_equal(other[number], together[number]) for number in everyone)
    report.row(f"in {fewer} instead of {n_slots} slots (not promised)", f"{len(everyone)}", f"{unequal}")
    report.end_table()
    total = sum(len(order) for _, order, _ in companies)
    # a promise, not a speed: judged in a quick run, too
    same = (total - different) / total
    report.case(Case("masks with the same heads in other company", same, "the same masks together", at_least=1.0))
    verdict = "independent of their company" if different == 0 else "NOT independent of their company: a bug"
    report.text(f"Heads are {verdict}.")


def _all_equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def check_precision(report: Report, work: Work) -> None:
    """Compare logits of float32 and float64 heads after the whole training."""
    masks = work.masks[: work.arguments.precision_masks]
    single, double = (
        list(work.trainer(work.arguments.epochs, dtype).fit(masks, work.row_sets))
        for dtype in (torch.float32, torch.float64)
    )
    largest, flipped, rows = 0.0, 0, 0
    with reproducible(work.device):
        for ours, exact in zip(single, double, strict=True):
            inputs = work.features[:, torch.from_numpy(ours.mask.inputs).to(work.device)].double()
            logits, expected = ours.to(torch.float64).forward(inputs, 0)[0], exact.forward(inputs, 0)[0]
            largest = max(largest, float((logits - expected).abs().max()))
            flipped += int((logits.argmax(1) != expected.argmax(1)).sum())
            rows += len(inputs)
    report.section("Against double precision")
    report.text(
        f"{plural(len(masks), 'mask')}, {plural(work.arguments.epochs, 'epoch')}: the logits of float32 heads",
        f"differ by {largest:.1e} at most from those trained in float64 on the same device;",
        f"{flipped} of {rows} rows get another label.",
    )
    report.case(
        Case(
            "rows with the same label in float32 and float64",
            (rows - flipped) / rows,
            "the same heads trained in float64 on the same device",
            details={"largest_logit_difference": largest},
        )
    )


def describe_device(work: Work) -> str:
    """Name, memory and CUDA version of the GPU."""
    if work.device.type != "cuda":
        return "No GPU: everything runs on the CPU, to see that it runs; no figure means anything."
    found = torch.cuda.get_device_properties(work.device)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the program out")
    parser.add_argument("--rows", type=int, default=480, help="training rows")
    parser.add_argument("--features", type=int, default=2048, help="features of a row")
    parser.add_argument("--hidden", type=int, default=512, help="units of the hidden layer")
    parser.add_argument("--classes", type=int, default=14, help="classes")
    parser.add_argument("--batch", type=int, default=32, help="rows of a mini-batch")
    parser.add_argument("--masks", type=int, default=100, help="masks of the population")
    parser.add_argument("--epochs", type=int, default=600, help="epochs")
    parser.add_argument("--slots", type=int, help="heads side by side; left out, by free memory")
    parser.add_argument("--loop-masks", type=int, default=2, help="masks that the sequential loop trains")
    parser.add_argument("--loop-epochs", type=int, default=10, help="epochs that the sequential loop trains")
    parser.add_argument("--repeats", type=int, default=3, help="repeats")
    parser.add_argument("--check-epochs", type=int, default=20, help="epochs of the check of independence")
    parser.add_argument("--precision-masks", type=int, default=4, help="masks compared with double precision")
    parser.add_argument("--copy-megabytes", type=int, default=1024, help="size of the copy that is timed")
    parser.add_argument("--peak-size", type=int, default=8192, help="rows of the square product that is timed")
    parser.add_argument("--kernels", type=int, default=15, help="lines of the profiler's table")
    quick = {
        "rows": 40, "features": 24, "hidden": 8, "classes": 3, "batch": 16, "masks": 5, "epochs": 3, "slots": 4,
        "loop_masks": 1, "loop_epochs": 1, "repeats": 1, "check_epochs": 2, "precision_masks": 2,
        "copy_megabytes": 1, "peak_size": 64,
    }  # fmt: skip
    arguments = parse(parser, argv, quick)
    work = Work.of(arguments)
    report = Report("gpu", "The population trainer on a GPU", arguments)
    report.text(describe_device(work))
    n_slots = work.trainer(1).n_slots(work.row_sets)
    seconds_per_step = measure_population(report, work)
    measure_floors(report, work, n_slots, seconds_per_step)
    show_kernels(report, work)
    check_independence(report, work, n_slots)
    check_precision(report, work)
    return report.close()


if __name__ == "__main__":
    start(main)
