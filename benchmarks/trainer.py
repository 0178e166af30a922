"""How much faster the population trainer is than other ways to train the same masked heads.

Measured are, in one process, on one thread and in turns (ours, the others, ours, the others, ...):

* **ours**: one ``PopulationTrainer`` in float32 on all masks. Its construction is in the time, and so is all
  that it does once per mask: start weights, row orders, Gram matrices, and at the end the weights themselves.
* **the sequential loop** that a user would write, see ``sequential.py``: its cost is linear in masks and
  epochs, so it trains few of both and is compared by seconds per mask and epoch.
* **torch.func**: a few masks stacked, ``vmap`` of ``grad``; few epochs, likewise.
* **the published Keras program**, whose processor seconds for eight masks and 600 epochs were recorded in a
  reference run; our processor seconds for the same eight masks stand beside them, and what both have learned.

Run it with nothing else going on::

    python benchmarks/trainer.py --reference FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import (
    Case,
    Clock,
    Report,
    make_masks,
    make_parser,
    make_task,
    mean,
    parse,
    plural,
    spread,
    start,
    take_turns,
)
from sequential import SEQUENTIAL, STACKED, train_in_a_loop, train_stacked
from torch import Tensor

from moevoprune.device import usable_cores
from moevoprune.errors import InputError
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import Form, HeadStack, PopulationTrainer

SEED = 0
BATCH = 32
# beside the checkout, where the project's own data lie
REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "data" / "reference_run"


@dataclass(frozen=True)
class Kind:
    """Masks to be timed: encoding, share of active bits, training rows, and how much faster ours is to be."""

    encoding: str
    share: float
    rows: str
    at_least: float | None = None
    two_layers: bool = False

    @property
    def name(self) -> str:
        layers = ", two layers" if self.two_layers else ""
        return f"{self.encoding} {self.share:.0%} active, {self.rows} rows{layers}"


TARGETS = [
    Kind("features", 0.50, "few", 12.0),
    Kind("neurons", 0.50, "few", 18.0),
    Kind("features", 0.05, "few", 30.0),
    Kind("features", 0.50, "many", 3.3),
    Kind("features", 0.15, "many", 9.0),
]
GRID = [
    *(Kind("features", share, "few") for share in (0.05, 0.15, 0.5, 1.0)),
    Kind("neurons", 0.15, "few"),
    Kind("neurons", 0.5, "few"),
    Kind("features+neurons", 0.5, "few"),
    Kind("connections", 0.5, "few"),
    Kind("neurons:both", 0.5, "few", two_layers=True),
    *(Kind("features", share, "many") for share in (0.05, 0.15, 0.5)),
    Kind("neurons", 0.5, "many"),
]
FORMS: tuple[Form, ...] = ("auto", "dual", "gathered")


class Task:
    """Rows, head and settings that a kind of masks is timed with."""

    def __init__(self, kind: Kind, arguments: argparse.Namespace) -> None:
        self.n_rows: int = arguments.rows if kind.rows == "few" else arguments.many_rows
        hidden = (arguments.hidden,) * (2 if kind.two_layers else 1)
        self.shape = HeadShape(arguments.features, hidden, arguments.classes)
        self.features, self.labels = make_task(self.n_rows, arguments.features, arguments.classes)
        self.tensors = torch.from_numpy(self.features), torch.from_numpy(self.labels)
        self.kind = kind

    def settings(self, epochs: int) -> HeadSettings:
        """The published training without early stopping and with one learning rate: the same work for all."""
        return HeadSettings.preset(
            "paper", hidden=self.shape.hidden, epochs=epochs, early_stop="none", learning_rate_decay=0.0
        )

    def masks(self, n_masks: int, seed: int = SEED) -> list[HeadMask]:
        return make_masks(self.kind.encoding, self.kind.share, self.shape, n_masks, seed)

    def trainer(self, epochs: int, form: Form = "auto", jobs: int = 1) -> PopulationTrainer:
        settings = self.settings(epochs)
        return PopulationTrainer(
            self.features, self.labels, self.shape, settings, SEED, device="cpu", form=form, jobs=jobs
        )

    def fit(self, trainer: PopulationTrainer, masks: Sequence[HeadMask]) -> list[float]:
        """Train the masks on all rows; returns the last epoch's mean training loss of each."""
        return [float(stack.train_loss[0]) for stack in trainer.fit(masks, [np.arange(self.n_rows)])]

    def ours(self, n_masks: int, epochs: int, form: Form = "auto") -> Clock:
        """Clock of the population trainer, per mask and epoch; already warm."""
        self.fit(self.trainer(1, form), self.masks(1))
        masks = self.masks(n_masks)
        return Clock(lambda: self.fit(self.trainer(epochs, form), masks), n_masks * epochs)

    def loop(self, n_masks: int, epochs: int) -> Clock:
        """Clock of the sequential loop, per mask and epoch; already warm."""
        train_in_a_loop(*self.tensors, self.shape, self.settings(1), self.masks(1))
        masks, settings = self.masks(n_masks), self.settings(epochs)
        return Clock(lambda: train_in_a_loop(*self.tensors, self.shape, settings, masks), n_masks * epochs)

    def stacked(self, n_masks: int, epochs: int) -> Clock:
        """Clock of ``torch.func``, per mask and epoch; already warm."""
        masks, settings = self.masks(n_masks), self.settings(epochs)
        rows, labels = self.tensors
        train_stacked(rows[:BATCH], labels[:BATCH], self.shape, settings, masks)
        return Clock(lambda: train_stacked(*self.tensors, self.shape, settings, masks), n_masks * epochs)

    def useful_operations(self, n_masks: int, epochs: int) -> float:
        """Additions and multiplications that the dual form of feature masks cannot do without.

        Per epoch and mask the products with the Gram matrix, and three products of the output layer; once per mask
        the Gram matrix (symmetric, so half of a product), the start of the hidden layer and its final weights.
        """
        n, units, classes = self.n_rows, self.shape.hidden[0], self.shape.n_outputs
        n_active = max(round(self.kind.share * self.shape.n_features), 1)
        per_epoch = 2 * n * n * units + 3 * 2 * n * units * classes
        once = n * n * n_active + 2 * 2 * n * n_active * units
        return float(n_masks * (epochs * per_epoch + once))


def matrix_peak(size: int) -> Clock:
    """Clock of large float32 matrix products, per addition and multiplication."""
    generator = torch.Generator().manual_seed(SEED)
    left, right, out = (torch.randn(size, size, generator=generator) for _ in range(3))
    torch.mm(left, right, out=out)
    return Clock(lambda: torch.mm(left, right, out=out), 2.0 * size**3)


def measure_targets(report: Report, arguments: argparse.Namespace) -> None:
    """All masks, many epochs, against the two other ways to train them in torch."""
    report.section("Against the loop a user would write, and torch.func")
    report.text(
        f"few rows: {arguments.rows}, many: {arguments.many_rows}; {arguments.features} features, "
        f"{arguments.hidden} hidden units, {arguments.classes} classes, batches of {BATCH}, "
        f"{plural(arguments.masks, 'mask')}; one thread; no early stopping and one learning rate for all.",
        f"Ours trains all masks for {arguments.epochs} epochs (half as many with many rows), its construction "
        f"included. Extrapolated: the sequential loop trains {plural(arguments.loop_masks, 'mask')} and "
        f"torch.func a stack of {plural(arguments.stacked_masks, 'mask')} (larger stacks leave the cache and are "
        f"slower), each for {plural(arguments.loop_epochs, 'epoch')}; both are linear in them.",
        "Ratio: seconds per mask and epoch of the fastest repeats; in brackets the lowest and the highest that "
        "any two repeats give. CPU: the same in processor time. Loss: mean training loss of the loop's masks "
        "after its epochs, ours and the loop's, as a check; start weights and row orders differ.",
    )
    report.table(
        "masks",
        "ours, ms",
        "loop, ms",
        "torch.func, ms",
        "loop / ours",
        "torch.func / ours",
        "loop / ours, CPU",
        "target",
        "loss",
    )
    useful = None
    for number, kind in enumerate(TARGETS):
        task = Task(kind, arguments)
        epochs = arguments.epochs if kind.rows == "few" else max(arguments.epochs // 2, 1)
        repeats = arguments.repeats if kind.rows == "few" else max(arguments.repeats - 1, 1)
        ours, loop = task.ours(arguments.masks, epochs), task.loop(arguments.loop_masks, arguments.loop_epochs)
        stacked, peak = (
            task.stacked(arguments.stacked_masks, arguments.loop_epochs),
            matrix_peak(arguments.peak_size),
        )
        # the loop's runs are short: one before and one after ours keeps both under the same conditions
        take_turns([peak, loop, ours, stacked], repeats)
        take_turns([peak, loop], 1)
        low, high = spread(ours, stacked)
        check = task.fit(task.trainer(arguments.loop_epochs), task.masks(arguments.loop_masks))
        details = {"epochs": epochs, "masks": arguments.masks}
        report.case(Case(f"{kind.name}: torch.func", stacked.seconds / ours.seconds, STACKED, details=details))
        lowest, highest = spread(ours, loop)
        case = report.case(
            Case(
                kind.name,
                loop.seconds / ours.seconds,
                SEQUENTIAL,
                kind.at_least,
                details={
                    **details,
                    "milliseconds_ours": 1e3 * ours.seconds,
                    "milliseconds_baseline": 1e3 * loop.seconds,
                    "ratio_of_cpu_seconds": loop.cpu_seconds / ours.cpu_seconds,
                },
            )
        )
        report.row(
            kind.name,
            f"{1e3 * ours.seconds:.2f}",
            f"{1e3 * loop.seconds:.1f}",
            f"{1e3 * stacked.seconds:.1f}",
            f"{case.ratio:.1f} ({lowest:.1f}–{highest:.1f})",
            f"{stacked.seconds / ours.seconds:.1f} ({low:.1f}–{high:.1f})",
            f"{loop.cpu_seconds / ours.cpu_seconds:.1f}",
            case.verdict(),
            f"{mean(check):.3f}, {mean(loop.result):.3f}",
        )
        if number == 0:
            rate = task.useful_operations(arguments.masks, epochs) / (ours.seconds * ours.units)
            useful = report.case(
                Case(
                    f"useful work, {kind.name}",
                    rate * peak.seconds,
                    f"this thread's measured float32 matrix peak, {1e-9 / peak.seconds:.1f} GFLOP/s",
                    0.5,
                    details={"gflops": 1e-9 * rate, "gflops_peak": 1e-9 / peak.seconds},
                )
            )
    report.end_table()
    if useful is not None:
        report.text(
            f"Useful work in the first case: {useful.details['gflops']:.1f} GFLOP/s, {useful.ratio:.0%} of "
            f"{useful.baseline} ({useful.verdict('%') or 'not judged'}). Counted are the products that the dual "
            "form cannot do without: not the softmax, the momentum, or moving rows."
        )


def measure_grid(report: Report, arguments: argparse.Namespace) -> None:
    """Forms, densities, encodings and numbers of rows against the loop."""
    report.section("Forms, densities and encodings against the sequential loop")
    n_masks, epochs = arguments.grid_masks, arguments.grid_epochs
    report.text(
        f"{plural(n_masks, 'mask')}, {epochs} epochs (a third as many with many rows), otherwise as above. "
        "`auto` is what the cost model chooses; `–` where a form does not exist."
    )
    report.table("masks", "loop, ms", *(f"loop / {form}" for form in FORMS))
    for kind in GRID:
        task = Task(kind, arguments)
        trained = epochs if kind.rows == "few" else max(epochs // 3, 1)
        forms = [form for form in FORMS if form != "dual" or kind.encoding != "connections"]
        clocks = {form: task.ours(n_masks, trained, form) for form in forms}
        loop = task.loop(1, arguments.loop_epochs)
        take_turns([loop, *clocks.values()], max(arguments.repeats - 1, 1))
        ratios = {form: loop.seconds / clock.seconds for form, clock in clocks.items()}
        details = {"epochs": trained, "masks": n_masks, **{f"ratio_{form}": ratios[form] for form in forms}}
        report.case(Case(f"grid: {kind.name}", ratios["auto"], SEQUENTIAL, details=details))
        shown = [f"{ratios[form]:.1f}" if form in ratios else "–" for form in FORMS]
        report.row(kind.name, f"{1e3 * loop.seconds:.1f}", *shown)
    report.end_table()


def measure_workers(report: Report, arguments: argparse.Namespace) -> None:
    """Two worker processes against one, on other masks each time."""
    report.section("Two workers against one")
    if usable_cores() < 2:
        report.text("Left out: this process may use one core only.")
        return
    task = Task(TARGETS[0], arguments)
    trainers = {jobs: task.trainer(arguments.epochs, jobs=jobs) for jobs in (1, 2)}
    current: list[HeadMask] = []

    def turn(clocks: dict[int, Clock], seed: int) -> None:
        # other masks each time, so that nothing that a trainer may remember helps
        current[:] = task.masks(arguments.masks, seed)
        take_turns([clocks[1], clocks[2]], 1)

    def clocks_of_fits() -> dict[int, Clock]:
        return {jobs: Clock(partial(task.fit, trainer, current)) for jobs, trainer in trainers.items()}

    first, clocks = clocks_of_fits(), clocks_of_fits()
    turn(first, SEED)
    for repeat in range(1, arguments.repeats + 1):
        turn(clocks, SEED + repeat)
    trainers[2].close()
    low, high = spread(clocks[2], clocks[1])
    case = report.case(
        Case(
            f"two workers, {TARGETS[0].name}",
            clocks[1].seconds / clocks[2].seconds,
            "the same trainer with one worker",
            1.8,
            details={"seconds_one": clocks[1].seconds, "seconds_two": clocks[2].seconds},
        )
    )
    report.text(
        f"{TARGETS[0].name}: {plural(arguments.masks, 'mask')} and {arguments.epochs} epochs take "
        f"{clocks[1].seconds:.2f} s with one worker and {clocks[2].seconds:.2f} s with two: "
        f"{case.ratio:.2f} times faster ({low:.2f}–{high:.2f}); {case.verdict() or 'not judged'}.",
        "Timed is work at running workers. The first fit, during which the second worker starts, took "
        f"{first[2].seconds:.1f} s ({first[1].seconds:.1f} s with one worker).",
    )


def measure_keras(report: Report, arguments: argparse.Namespace) -> None:
    """The reference run's masks, by the published protocol."""
    report.section("Against the published Keras program")
    folder: Path = arguments.reference
    if not (folder / "results.json").is_file():
        report.text(
            f"Left out: no reference run in {folder.name}/ (--reference FOLDER with results.json, features.npz "
            "and masks.npy)."
        )
        return
    runs = json.loads((folder / "results.json").read_text(encoding="utf-8"))["runs"][: arguments.keras_masks]
    with np.load(folder / "features.npz") as stored:
        features, labels = stored["X_train"], stored["y_train"].astype(np.int64)
        test_features, test_labels = torch.from_numpy(stored["X_test"]), stored["y_test"]
    bits = np.load(folder / "masks.npy").astype(np.bool_)
    settings = HeadSettings.preset("paper", epochs=arguments.keras_epochs)
    published: int = runs[0]["epochs"]
    shape = HeadShape(features.shape[1], settings.hidden, int(labels.max()) + 1)
    masks = [HeadMask(np.flatnonzero(bits[run["mask"]]), (np.arange(settings.hidden[0]),)) for run in runs]

    def fit() -> list[HeadStack]:
        trainer = PopulationTrainer(features, labels, shape, settings, SEED, device="cpu")
        return list(trainer.fit(masks, [np.arange(len(features))]))

    tensors = torch.from_numpy(features), torch.from_numpy(labels)
    short = HeadSettings.preset("paper", epochs=arguments.loop_epochs)
    loop = Clock(
        lambda: train_in_a_loop(*tensors, shape, short, masks[: arguments.loop_masks]),
        min(arguments.loop_masks, len(masks)) * arguments.loop_epochs / published,
    )
    loop.run()
    ours = Clock(fit, len(masks) * settings.epochs / published)
    take_turns([loop, ours, loop], 1)
    stacks: list[HeadStack] = ours.result
    keras = mean([run["keras"]["cpu_seconds"] for run in runs])
    sequential = mean([run["torch_sequential"]["cpu_seconds"] for run in runs])
    case = report.case(
        Case(
            f"the reference run's {plural(len(masks), 'mask')}, {published} epochs, processor seconds",
            keras / ours.cpu_seconds,
            f"the published Keras program on the recorded machine, {keras:.1f} CPU seconds per mask",
            14.0,
            details={"cpu_seconds_ours": ours.cpu_seconds, "cpu_seconds_baseline": keras},
        )
    )
    scaled = "" if settings.epochs == published else f" (trained {settings.epochs}, scaled to {published})"
    report.text(
        f"The `paper` preset, {published} epochs{scaled}: {ours.cpu_seconds:.2f} processor seconds per mask, all "
        f"work of the process included, against {keras:.1f} recorded for the published program: "
        f"{case.ratio:.1f} times fewer; {case.verdict() or 'not judged'}.",
        "Not side by side: that program needs Python 3.7 and TensorFlow 1.15, so its recorded figures are used. "
        f"How the machines compare: the sequential loop took {sequential:.1f} s per mask there and "
        f"{loop.cpu_seconds:.1f} s here (extrapolated from {plural(arguments.loop_epochs, 'epoch')}).",
    )
    report.table("density", "accuracy, ours", "Keras", "torch loop", "training loss, ours", "Keras", "torch loop")
    accuracies = []
    for run, mask, stack in zip(runs, masks, stacks, strict=True):
        theirs, loops = run["keras"], run["torch_sequential"]
        accuracies.append(_accuracy(stack, mask, test_features, test_labels))
        report.row(
            f"{run['density']:.3f}",
            f"{accuracies[-1]:.3f}",
            f"{theirs['accuracy']:.3f}",
            f"{loops['accuracy']:.3f}",
            f"{stack.train_loss[0]:.4f}",
            f"{theirs['final_train_loss']:.4f}",
            f"{loops['final_train_loss']:.4f}",
        )
    report.row(
        "mean",
        f"{mean(accuracies):.3f}",
        f"{mean([run['keras']['accuracy'] for run in runs]):.3f}",
        f"{mean([run['torch_sequential']['accuracy'] for run in runs]):.3f}",
        *["" for _ in range(3)],
    )
    report.end_table()


def _accuracy(stack: HeadStack, mask: HeadMask, features: Tensor, labels: np.ndarray) -> float:
    outputs, _ = stack.forward(features[:, torch.from_numpy(mask.inputs)], 0)
    return float(np.mean(outputs.argmax(1).numpy() == labels))


PARTS = {
    "targets": measure_targets,
    "workers": measure_workers,
    "keras": measure_keras,
    "grid": measure_grid,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, with commas between")
    parser.add_argument("--rows", type=int, default=480, help="training rows of the first shape")
    parser.add_argument("--many-rows", type=int, default=2000, help="training rows of the second shape")
    parser.add_argument("--features", type=int, default=2048, help="features of a row")
    parser.add_argument("--hidden", type=int, default=512, help="units of a hidden layer")
    parser.add_argument("--classes", type=int, default=14, help="classes")
    parser.add_argument("--masks", type=int, default=16, help="masks of a population")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of ours")
    parser.add_argument("--loop-masks", type=int, default=2, help="masks that the sequential loop trains")
    parser.add_argument("--loop-epochs", type=int, default=2, help="epochs that the loop and torch.func train")
    parser.add_argument("--stacked-masks", type=int, default=4, help="masks that torch.func stacks")
    parser.add_argument("--grid-masks", type=int, default=4, help="masks per line of the grid")
    parser.add_argument("--grid-epochs", type=int, default=20, help="epochs per line of the grid")
    parser.add_argument("--repeats", type=int, default=3, help="repeats; one fewer with many rows and in the grid")
    parser.add_argument("--peak-size", type=int, default=2048, help="rows and columns of the peak's matrices")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="folder of the Keras reference run")
    parser.add_argument("--keras-masks", type=int, default=8, help="masks of the reference run, from the first")
    parser.add_argument("--keras-epochs", type=int, default=600, help="epochs for them; fewer are scaled")
    quick = {
        "rows": 64, "many_rows": 96, "features": 48, "hidden": 16, "classes": 3, "masks": 2, "epochs": 2,
        "loop_masks": 1, "loop_epochs": 1, "stacked_masks": 2, "grid_masks": 1, "grid_epochs": 2,
        "repeats": 1, "peak_size": 128,
        "keras_masks": 1, "keras_epochs": 2,
    }  # fmt: skip
    arguments = parse(parser, argv, quick)
    parts = arguments.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"--parts {unknown[0]}: use some of {','.join(PARTS)}")
    report = Report("trainer", "The population trainer against other ways to train masked heads", arguments)
    for part in parts:
        PARTS[part](report, arguments)
    return report.close()


if __name__ == "__main__":
    start(main)
