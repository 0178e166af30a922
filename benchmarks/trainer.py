"""How much faster the population trainer is than the loop a user would write.

Measured is the wall time of training the heads of a few masks, on one thread and in one process, both ways in
turn (ours, the loop, ours, the loop, ...); the figure is the ratio of the fastest repeats. The same ratio in
processor time stands beside it: where other processes compete for the cores, the two differ.

* **The loop**: for each mask one ``nn.Module`` whose weight is multiplied by the mask at every step (a vector
  broadcast over the weight, the cheaper way to write it), one ``torch.optim.SGD`` with Nesterov momentum,
  autograd, mini-batches of 32, reshuffled every epoch, and early stopping on the running training loss that
  keeps a copy of the best weights.
* **Ours**: one ``PopulationTrainer`` in float32 with ``form="auto"`` on the same rows, masks and settings. Its
  construction is in the time: start weights, row orders, Gram matrices, and at the end the weights themselves.

The settings are the ``paper`` preset with fewer epochs (it has 600); what ours pays once per mask weighs more in
so short a run than in a full one. The features are synthetic, of the shape of the
papers' reference run: 480 rows of 2048 ReLU'd features with class structure, 512 hidden units, 4 classes. The
two ways draw different start weights and row orders; their mean training losses are printed as a check that
both do the same work.

Run it with nothing else going on::

    python benchmarks/trainer.py --json trainer.json
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import PopulationTrainer

BASELINE = "one nn.Module and one torch.optim.SGD per mask, mask times weight at each step, autograd"
SEED = 0

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A kind of mask: its name, encoding and share of active bits."""

    name: str
    encoding: str
    share: float


CASES = [
    Case("features, 50 % active", "features", 0.50),
    Case("features, 15 % active", "features", 0.15),
    Case("features, 5 % active", "features", 0.05),
    Case("hidden neurons, 50 % active", "neurons", 0.50),
]


@dataclass(frozen=True)
class Result:
    """Timings of one case: the fastest repeat of each way, and all repeats."""

    name: str
    ratio: float
    ratio_of_cpu_seconds: float
    baseline: str
    seconds_ours: float
    seconds_baseline: float
    all_seconds_ours: list[float]
    all_seconds_baseline: list[float]
    loss_ours: float
    loss_baseline: float
    epochs: int
    individuals: int


class MaskedHead(nn.Module):
    """The papers' head: a hidden layer without bias under a mask, ReLU, an output layer with bias."""

    def __init__(self, shape: HeadShape, on_inputs: Bits, on_hidden: Bits) -> None:
        super().__init__()
        self.hidden = nn.Linear(shape.n_features, shape.hidden[0], bias=False)
        self.output = nn.Linear(shape.hidden[0], shape.n_outputs)
        for layer in (self.hidden, self.output):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.output.bias)
        # whole rows or whole columns go, so the mask is a vector along one side: cheaper than a full matrix
        mask = on_inputs[None] if on_hidden.all() else on_hidden[:, None]
        self.register_buffer("mask", torch.from_numpy(mask.astype(np.float32)))

    def forward(self, rows: Tensor) -> Tensor:
        hidden = nn.functional.linear(rows, self.hidden.weight * self.get_buffer("mask"))
        logits: Tensor = self.output(torch.relu(hidden))
        return logits


def train_in_a_loop(
    features: Tensor, labels: Tensor, shape: HeadShape, settings: HeadSettings, masks: list[HeadMask]
) -> list[float]:
    """Train mask after mask as a user would; returns the last epoch's training loss of each."""
    losses = []
    for mask in masks:
        on_inputs = np.isin(np.arange(shape.n_features), mask.inputs)
        on_hidden = np.isin(np.arange(shape.hidden[0]), mask.hidden[0])
        head = MaskedHead(shape, on_inputs, on_hidden)
        optimiser = torch.optim.SGD(
            head.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )
        loss_of = nn.CrossEntropyLoss()
        step, best, waited, mean_loss = 0, float("inf"), 0, float("nan")
        best_state = copy.deepcopy(head.state_dict())
        for _ in range(settings.epochs):
            total = 0.0
            for rows in torch.split(torch.randperm(len(features)), settings.batch_size):
                optimiser.param_groups[0]["lr"] = settings.learning_rate / (
                    1.0 + settings.learning_rate_decay * step
                )
                optimiser.zero_grad()
                loss = loss_of(head(features[rows]), labels[rows])
                loss.backward()
                optimiser.step()
                total += loss.item() * len(rows)
                step += 1
            mean_loss = total / len(features)
            if mean_loss < best - settings.min_delta:
                best, waited, best_state = mean_loss, 0, copy.deepcopy(head.state_dict())
            else:
                waited += 1
                if waited >= settings.patience:
                    break
        head.load_state_dict(best_state)
        losses.append(mean_loss)
    return losses


def train_ours(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    shape: HeadShape,
    settings: HeadSettings,
    masks: list[HeadMask],
) -> list[float]:
    """Train all masks with the population trainer; returns the last epoch's training loss of each."""
    trainer = PopulationTrainer(features, labels, shape, settings, SEED, device="cpu")
    return [float(stack.train_loss[0]) for stack in trainer.fit(masks, [np.arange(len(features))])]


def make_task(
    n_rows: int, n_features: int, n_classes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features like pooled ReLU activations: about a third zeros, classes that overlap."""
    rng = np.random.default_rng(SEED)
    labels = rng.permutation(np.arange(n_rows) % n_classes)
    centres = 0.15 * rng.normal(size=(n_classes, n_features))
    values = 0.25 + centres[labels] + 0.65 * rng.normal(size=(n_rows, n_features))
    return np.maximum(values, 0).astype(np.float32), labels.astype(np.int64)


def make_masks(case: Case, shape: HeadShape, n_individuals: int) -> list[HeadMask]:
    """Random masks with exactly the case's share of bits active."""
    encoding = make_encoding(case.encoding, shape)
    rng = np.random.default_rng(SEED)
    masks = []
    for _ in range(n_individuals):
        bits = np.zeros(encoding.n_bits, dtype=np.bool_)
        bits[rng.permutation(encoding.n_bits)[: max(round(case.share * encoding.n_bits), 1)]] = True
        masks.append(encoding.decode(bits))
    return masks


@dataclass
class Clock:
    """Wall and processor seconds of some work, run several times, and the mean loss it returned last."""

    work: Callable[[], list[float]]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    loss: float = float("nan")

    def run(self) -> None:
        """Do the work once more."""
        wall, cpu = time.perf_counter(), time.process_time()
        losses = self.work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        self.loss = statistics.fmean(losses)


def measure(case: Case, arguments: argparse.Namespace) -> Result:
    """Time one case, both ways in turn."""
    shape = HeadShape(arguments.features, (arguments.hidden,), arguments.classes)
    settings = HeadSettings.preset("paper", hidden=shape.hidden, epochs=arguments.epochs)
    features, labels = make_task(arguments.rows, arguments.features, arguments.classes)
    masks = make_masks(case, shape, arguments.individuals)
    rows, answers = torch.from_numpy(features), torch.from_numpy(labels)
    ours = Clock(lambda: train_ours(features, labels, shape, settings, masks))
    loop = Clock(lambda: train_in_a_loop(rows, answers, shape, settings, masks))
    for _ in range(arguments.repeats):
        ours.run()
        loop.run()
    return Result(
        name=case.name,
        ratio=min(loop.wall) / min(ours.wall),
        ratio_of_cpu_seconds=min(loop.cpu) / min(ours.cpu),
        baseline=BASELINE,
        seconds_ours=min(ours.wall),
        seconds_baseline=min(loop.wall),
        all_seconds_ours=ours.wall,
        all_seconds_baseline=loop.wall,
        loss_ours=ours.loss,
        loss_baseline=loop.loss,
        epochs=arguments.epochs,
        individuals=arguments.individuals,
    )


def describe_machine() -> str:
    """CPU model, number of cores, torch version and threads; no host name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    cores = 0
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cores = sum(line.startswith("processor") for line in lines)
        model = models[0] if models else model
    number = f", {cores} cores" if cores else ""
    return (
        f"{model}{number}; {platform.system()}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread"
    )


def main() -> None:
    """Run the benchmark and print its table in Markdown."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=480, help="training rows")
    parser.add_argument("--features", type=int, default=2048, help="features of a row")
    parser.add_argument("--hidden", type=int, default=512, help="units of the hidden layer")
    parser.add_argument("--classes", type=int, default=4, help="classes")
    parser.add_argument("--individuals", type=int, default=3, help="masks per case")
    parser.add_argument("--epochs", type=int, default=120, help="epochs per head (the papers train 600)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each way")
    parser.add_argument("--json", type=Path, help="also write the cases to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    warm_up = argparse.Namespace(**{**vars(arguments), "epochs": 1, "individuals": 1, "repeats": 1})
    for case in CASES:
        measure(case, warm_up)

    print("# Population trainer against the loop a user would write\n")
    print(f"{date.today().isoformat()}, {describe_machine()}\n")
    print(
        f"{arguments.rows} rows, {arguments.features} features, {arguments.hidden} hidden units, "
        f"{arguments.classes} classes; {arguments.individuals} masks per case, {arguments.epochs} epochs "
        f"(the paper preset has 600), batches of 32.\n"
        f"Fastest of {arguments.repeats} repeats, the two ways in turn in one process; in brackets the slowest. "
        f"Baseline: {BASELINE}.\n"
    )
    print("| masks | ours, s | loop, s | ratio | ratio in CPU time | mean loss, ours | mean loss, loop |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    results = []
    for case in CASES:
        result = measure(case, arguments)
        results.append(result)
        print(
            f"| {result.name} | {result.seconds_ours:.2f} ({max(result.all_seconds_ours):.2f}) "
            f"| {result.seconds_baseline:.2f} ({max(result.all_seconds_baseline):.2f}) | {result.ratio:.1f} "
            f"| {result.ratio_of_cpu_seconds:.1f} | {result.loss_ours:.4f} | {result.loss_baseline:.4f} |",
            flush=True,
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
