"""Memory that is refused: fewer heads, images or networks at a time, the same results, one line."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moevoprune import HeadSettings
from moevoprune.cli.main import main
from moevoprune.errors import RunWarning
from moevoprune.fronts.plots import style
from moevoprune.heads import trainer as trainer_module
from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding
from moevoprune.heads.row_sources import RowSource
from moevoprune.heads.stack import HeadStack
from moevoprune.heads.trainer import PopulationTrainer
from moevoprune.heads.workers import WorkerPool
from moevoprune.memory import Chunk, NotEnoughMemory, is_out_of_memory, refused_size
from moevoprune.search.fitness import FitnessEvaluator
from moevoprune.search.journal import EvaluationJournal

# what NumPy, Python and PyTorch say; the first three come from a process with an address-space limit
REFUSALS = (
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 8000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    MemoryError("Unable to allocate 7.45 GiB for an array with shape (10, 100)"),
    MemoryError(),
    RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 24 bytes."),
    torch.cuda.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ..."
    ),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
)
SIZES = ("8 GB", "8 GB", "", "24 bytes", "21 MB", "", "", "")
N_FEATURES, N_ROWS = 20, 60
SHAPE = HeadShape(N_FEATURES, (12,), 3)
FOLDS = [np.delete(np.arange(N_ROWS), slice(start, start + 12)) for start in range(0, N_ROWS, 12)]


@pytest.mark.parametrize(("error", "size"), list(zip(REFUSALS, SIZES, strict=True)))
def test_refusals_are_told_from_other_errors(error: BaseException, size: str) -> None:
    assert is_out_of_memory(error)
    assert refused_size(error) == size


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("out of memory")]
)
def test_other_errors_are_no_refusals(error: BaseException) -> None:
    assert not is_out_of_memory(error)


# --- the rule --------------------------------------------------------------------------------------


def holds(limit: int, calls: list[int], error: BaseException = REFUSALS[0]) -> Callable[[int], list[int]]:
    """Work on ten things that fails with more than ``limit`` of them at once."""

    def compute(most: int) -> list[int]:
        calls.append(most)
        if most > limit:
            raise error
        return list(range(10))

    return compute


@pytest.mark.parametrize("limit", [1, 2, 5, 11])
def test_half_as_many_until_it_fits_which_is_remembered_and_said_once(limit: int) -> None:
    calls: list[int] = []
    chunk = Chunk("train heads")
    with pytest.warns(RunWarning, match="not enough memory to train heads") as said:
        found = [chunk.work(12, holds(limit, calls, error), lambda: "") for error in REFUSALS[:4]]
    assert found == [list(range(10))] * 4
    assert len(said) == 1
    halved = [12, 6, 3, 1][: [12, 6, 3, 1].index(next(n for n in (12, 6, 3, 1) if n <= limit)) + 1]
    assert calls == halved + 3 * halved[-1:]


def test_without_a_refusal_nothing_is_said_or_changed() -> None:
    calls: list[int] = []
    assert Chunk("train heads").work(12, holds(12, calls), lambda: "") == list(range(10))
    assert calls == [12]


def test_what_was_handed_out_is_not_computed_again() -> None:
    asked: list[tuple[int, int]] = []

    def compute(done: int, most: int) -> Iterator[int]:
        asked.append((done, most))
        for number in range(done, 8):
            if number == 5 and most > 2:
                raise REFUSALS[0]
            yield number

    with pytest.warns(RunWarning):
        assert list(Chunk("x").stream(8, compute, lambda: "")) == list(range(8))
    assert asked == [(0, 8), (5, 4), (5, 2)]


def test_a_single_thing_that_does_not_fit_is_described() -> None:
    with (
        pytest.warns(RunWarning),
        pytest.raises(NotEnoughMemory, match=r"^not enough memory for a head: use fewer \(8 GB were refused\)$"),
    ):
        Chunk("x").work(2, holds(0, []), lambda: "a head: use fewer")


def test_what_can_be_done_without_is_given_up_before_a_single_thing_fails() -> None:
    freed, held = [], [True, True]
    calls: list[int] = []

    def relieve() -> bool:
        return bool(held) and held.pop()

    def compute(most: int) -> list[int]:
        calls.append(most)
        if held:
            raise REFUSALS[0]
        return [1]

    chunk = Chunk("x", free=lambda: freed.append(1), relieve=relieve)
    assert chunk.work(1, compute, lambda: "") == [1]
    assert (calls, len(freed)) == ([1, 1, 1], 2)


# --- heads -----------------------------------------------------------------------------------------


def masks_of(encoding: str, seed: int = 0) -> list[HeadMask]:
    codec = make_encoding(encoding, SHAPE)
    generator = np.random.default_rng(seed)
    densities = [0.1, 0.3, 0.3, 0.3, 0.6, 0.9]
    bits = [generator.random(codec.n_bits) < density for density in densities]
    for row in bits:
        row[:2] = True
    return [codec.decode(row) for row in (*bits, np.ones(codec.n_bits, dtype=bool))]


def task_data(seed: int = 1) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(N_ROWS, N_FEATURES)).astype(np.float32), generator.integers(0, 3, N_ROWS)


class _Source:
    """Rows that are read when they are asked for."""

    def __init__(self, rows: np.ndarray[Any, Any]) -> None:
        self._rows = rows
        self.shape = rows.shape

    def rows(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self._rows[numbers]


def trainer_of(form: str, streamed: bool = False, **settings: Any) -> PopulationTrainer:
    features, labels = task_data()
    source: RowSource | np.ndarray[Any, Any] = _Source(features) if streamed else features
    head = HeadSettings(**{"hidden": (12,), "epochs": 3, "batch_size": 16, **settings})
    return PopulationTrainer(source, labels, SHAPE, head, 3, "cpu", form=form)  # type: ignore[arg-type]


def bytes_of(stacks: Iterator[HeadStack]) -> list[tuple[bytes, ...]]:
    return [
        (
            *(tensor.numpy().tobytes() for tensor in (*stack.weights, *stack.biases) if tensor is not None),
            stack.train_loss.tobytes(),
            stack.epochs.tobytes(),
        )
        for stack in stacks
    ]


def refuse_more_than(
    limit: int, monkeypatch: pytest.MonkeyPatch, error: BaseException = REFUSALS[0], after: int = 0
) -> list[int]:
    """Let heads train side by side only so many at a time, from some training on; returns how many did."""
    train, sizes = trainer_module.HeadsInTraining.step, []

    def step(self: Any, step: Any, rate: float, losses: Any = None) -> None:
        heads = len(self.first.state)
        sizes.append(heads)
        if heads > limit and len(sizes) > after:
            raise error
        train(self, step, rate, losses)

    monkeypatch.setattr(trainer_module.HeadsInTraining, "step", step)
    return sizes


WAYS = [
    ("dual", "features", False, {}),
    ("gathered", "features", False, {}),
    ("gathered", "connections", False, {}),
    ("gathered", "features", False, {"optimiser": "adam"}),
    ("auto", "neurons", False, {"early_stop": "training", "patience": 1, "min_delta": 0.05}),
    ("auto", "features", True, {}),
    ("auto", "features", True, {"early_stop": "validation", "patience": 1, "min_delta": 0.05}),
]


@pytest.mark.parametrize("limit", [1, 2, 4, 7])
@pytest.mark.parametrize(("form", "encoding", "streamed", "settings"), WAYS)
def test_heads_are_the_same_bits_however_few_train_side_by_side(
    form: str, encoding: str, streamed: bool, settings: dict[str, Any], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = masks_of(encoding)
    expected = bytes_of(trainer_of(form, streamed, **settings).fit(masks, FOLDS))
    error = REFUSALS[limit % 2]
    sizes = refuse_more_than(limit, monkeypatch, error, after=20)
    trainer = trainer_of(form, streamed, **settings)
    if max(sizes, default=0) > limit or not streamed or limit < len(FOLDS):
        with pytest.warns(RunWarning, match="train heads side by side") as said:
            found = bytes_of(trainer.fit(masks, FOLDS))
        assert len(said) == 1
        assert sizes[-1] <= limit < max(sizes)
    else:
        found = bytes_of(trainer.fit(masks, FOLDS))
    assert found == expected


def test_a_single_head_that_does_not_fit_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_more_than(0, monkeypatch)
    with (
        pytest.warns(RunWarning),
        pytest.raises(NotEnoughMemory, match=r"a single head of [\d,]+ weights .*8 GB were refused") as caught,
    ):
        list(trainer_of("gathered").fit(masks_of("features")[:2], FOLDS))
    assert "\n" not in str(caught.value)


# --- processes -------------------------------------------------------------------------------------


class _Undone:
    """In place of loky's pool: hands out futures that the test fulfils."""

    def __init__(self, **_: Any) -> None:
        self.futures: list[Future[Any]] = []
        self.ended = 0

    def submit(self, *_: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, **_: Any) -> None:
        self.ended += 1
        for future in self.futures:
            if not future.done():
                future.set_exception(RuntimeError("the executor was shut down"))


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> None:
    import loky

    monkeypatch.setattr(loky, "ProcessPoolExecutor", _Undone)


@pytest.mark.parametrize("error", [REFUSALS[0], MemoryError(), NotEnoughMemory("not enough memory for a head")])
@pytest.mark.usefixtures("undone")
def test_what_a_worker_has_no_memory_for_is_done_here_and_the_workers_end(error: BaseException) -> None:
    pool: WorkerPool[int, int] = WorkerPool(2, lambda: abs)
    executor: Any = pool._executor
    for future in executor.futures[:2]:
        future.set_result(1)

    def work(task: int) -> int:
        if task == 9:
            # the first task elsewhere fails while this one is done here
            executor.futures[2].set_exception(error)
        return task

    with pytest.warns(RunWarning, match="not enough memory for all processes that train heads") as said:
        found = [*pool.map(range(10), work), *pool.map([3], abs)]
    assert sorted(found[:-1]) == [(number, number) for number in range(10)]
    assert found[-1] == (0, 3)
    assert len(said) == 1
    assert pool.broken
    assert executor.ended == 1


@pytest.mark.usefixtures("undone")
def test_workers_are_given_up_before_a_head_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "_SECONDS_ALONE", 0.0)
    masks = masks_of("features")
    features, labels = task_data()
    head = HeadSettings(hidden=(12,), epochs=3, batch_size=16)
    trainer = PopulationTrainer(features, labels, SHAPE, head, 3, "cpu", jobs=3)
    expected = bytes_of(PopulationTrainer(features, labels, SHAPE, head, 3, "cpu").fit(masks, FOLDS))
    step = trainer_module.HeadsInTraining.step

    def crowded(self: Any, *arguments: Any) -> None:
        if trainer._pool is None or not trainer._pool.broken:
            raise REFUSALS[1]
        step(self, *arguments)

    monkeypatch.setattr(trainer, "_start_workers", partial(WorkerPool, 2, lambda: abs))
    monkeypatch.setattr(trainer_module.HeadsInTraining, "step", crowded)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert bytes_of(trainer.fit(masks, FOLDS)) == expected
    assert sorted(str(warning.message)[:40] for warning in said) == [
        "not enough memory for all processes that",
        "not enough memory to train heads side by",
    ]
    trainer.close()


def test_a_worker_says_how_many_heads_it_could_train(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = masks_of("features")[1:2] * 2
    sizes = refuse_more_than(2, monkeypatch)
    features, labels = task_data()
    head = HeadSettings(hidden=(12,), epochs=2, batch_size=16)
    recipe = features, labels, SHAPE, head, 3, torch.float32, "auto"
    with warnings.catch_warnings():
        # in a process of its own nobody would hear it
        worker = trainer_module._make_worker(recipe)  # type: ignore[arg-type]
        stacks, most = worker((list(masks), FOLDS))
    assert (len(stacks), most) == (2, 2)
    assert max(sizes) > 2
    main_trainer = trainer_of("auto")
    with pytest.warns(RunWarning, match="train heads"):
        main_trainer._chunk.adopt(most)


# --- scores ----------------------------------------------------------------------------------------


@pytest.fixture
def evaluator(small_features: Any) -> FitnessEvaluator:
    from moevoprune import PruningProblem

    head = HeadSettings(hidden=(8,), epochs=2, batch_size=16)
    objectives = ["accuracy", "cka:noise", "active_neurons"]
    return PruningProblem(small_features, objectives=objectives, head=head, cv=3, seed=1).fitness


def test_what_is_remembered_makes_room_for_a_score(
    evaluator: FitnessEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = np.eye(evaluator.encoding.n_bits, dtype=bool)[:4] | (np.arange(evaluator.encoding.n_bits) % 2 == 0)
    expected = [values.tobytes() for values, _ in evaluator.evaluate(bits)]
    predictions = [outputs.tobytes() for outputs in evaluator.predict_validation(bits)]
    scored = FitnessEvaluator._scored

    def crowded(self: FitnessEvaluator, *arguments: Any) -> Any:
        if len(self._outputs) >= 2:
            raise REFUSALS[1]
        return scored(self, *arguments)

    monkeypatch.setattr(FitnessEvaluator, "_scored", crowded)
    evaluator.forget()
    assert [values.tobytes() for values, _ in evaluator.evaluate(bits)] == expected
    assert [outputs.tobytes() for outputs in evaluator.predict_validation(bits)] == predictions


def test_a_score_that_does_not_fit_ends_in_one_line(
    evaluator: FitnessEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise REFUSALS[1]

    monkeypatch.setattr(FitnessEvaluator, "_candidates_of", never)
    with pytest.raises(NotEnoughMemory, match="a single head predicts for 32 validation rows"):
        list(evaluator.evaluate(np.ones((1, evaluator.encoding.n_bits), dtype=bool)))


# --- commands --------------------------------------------------------------------------------------

RUN = ["--pop", "4", "--gens", "2", "--cv", "2", "--set", "epochs=2", "--set", "hidden=8", "--no-baselines"]
SAME = ("front.csv", "heads.safetensors", "predictions.npz", "evaluations.journal")


@pytest.fixture(scope="module")
def npz(small_features: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("desk") / "small.npz"
    small_features.save(path)
    return path


@pytest.fixture(scope="module")
def whole(npz: Path) -> Path:
    """A run that has all the memory it wants."""
    out = npz.with_name("whole")
    assert run(npz, out) == 0
    return out


def run(npz: Path, out: Path, *more: str) -> int:
    words = ["run", str(npz), "--out", str(out), "--device", "cpu", "--jobs", "1", "--quiet", *RUN, *more]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        # as on a terminal: pytest would keep them
        warnings.simplefilter("default")
        patch.setattr(style, "DPI", 30)
        patch.setattr(warnings, "showwarning", _show)
        return main(words)


def _show(message: Any, category: Any, place: str, number: int, file: Any = None, line: Any = None) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, place, number, line))


def test_a_run_says_it_once_and_its_front_is_the_same(
    npz: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_more_than(1, monkeypatch)
    assert run(npz, tmp_path / "tight") == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("moevoprune: warning: not enough memory to train heads side by side")
    for name in SAME:
        assert (whole / name).read_bytes() == (tmp_path / "tight" / name).read_bytes(), name


@pytest.mark.parametrize("error", [REFUSALS[0], REFUSALS[1]])
def test_a_run_whose_head_does_not_fit_ends_with_one_line_and_can_be_resumed(
    error: BaseException,
    npz: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = EvaluationJournal.append
    with monkeypatch.context() as patch:

        def append_and_refuse(self: Any, *arguments: Any) -> None:
            append(self, *arguments)
            refuse_more_than(0, patch, error)

        patch.setattr(EvaluationJournal, "append", append_and_refuse)
        assert run(npz, tmp_path / "tight") == 2
    warning, line = capsys.readouterr().err.splitlines()
    assert warning.startswith("moevoprune: warning: ")
    assert line.startswith("moevoprune: error: not enough memory for a single head of ")
    _, masks, _ = EvaluationJournal.read(tmp_path / "tight" / "evaluations.journal")
    assert len(masks) > 0
    assert run(npz, tmp_path / "tight", "--resume") == 0
    for name in SAME:
        assert (whole / name).read_bytes() == (tmp_path / "tight" / name).read_bytes(), name


@pytest.mark.parametrize("place", ["_tested", "front_table"])
def test_memory_that_is_refused_elsewhere_is_one_line_too(
    place: str,
    npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from moevoprune.cli import run as run_module
    from moevoprune.fronts import evolve

    def never(*_: Any, **__: Any) -> None:
        raise REFUSALS[0]

    monkeypatch.setattr(evolve if place == "_tested" else run_module, place, never)
    assert run(npz, tmp_path / "r") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("moevoprune: error: not enough memory (8 GB were refused): use fewer")


def test_other_errors_of_the_program_still_show_where_they_are(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moevoprune.fronts import evolve

    def never(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(evolve, "_tested", never)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run(npz, tmp_path / "r")


# --- images and networks ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1])
def test_images_are_computed_fewer_at_a_time_to_the_same_bits(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from moevoprune.features import forward
    from moevoprune.features.backbones import BackboneSettings, load_backbone

    pytest.importorskip("torchvision")
    monkeypatch.setattr(forward, "usable_cores", lambda: 4)
    settings = BackboneSettings(name="mobilenet_v2", args={"width_mult": 0.1}, weights="none", crop=32)
    backbone = load_backbone(settings)
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(21, 3, 32, 32)).astype(np.float32))

    def compute() -> np.ndarray[Any, Any]:
        computing = forward._Computing(backbone, 32, False)
        try:
            return np.concatenate([*computing.start(pixels).result(), *computing.start(pixels[:9]).result()])
        finally:
            computing.stop()

    expected = compute()
    at_work: list[int] = []
    forward_all, most_at_once = forward._forward, []

    def crowded(*arguments: Any) -> torch.Tensor:
        at_work.append(1)
        most_at_once.append(len(at_work))
        try:
            # so that the cores really meet
            if limit == 0 or len(at_work) > limit or not most_at_once[1:]:
                raise REFUSALS[0]
            return forward_all(*arguments)
        finally:
            at_work.pop()

    monkeypatch.setattr(forward, "_forward", crowded)
    if limit == 0:
        with pytest.warns(RunWarning), pytest.raises(NotEnoughMemory, match=r"mobilenet_v2 on 8 images \(cpu\)"):
            compute()
        return
    with pytest.warns(RunWarning, match="compute images") as said:
        found = compute()
    assert len(said) == 1
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_networks_are_tried_fewer_at_a_time_with_the_same_values(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    from moevoprune.filters.fitness import FilterEvaluator
    from moevoprune.filters.images import LabelledImages, Normalisation
    from moevoprune.filters.objectives import FILTER_OBJECTIVES
    from moevoprune.filters.training import TuningSettings

    generator = np.random.default_rng(2)
    labels = np.arange(40) % 2
    images = generator.integers(0, 255, (40, 6, 6, 1), dtype=np.uint8)
    data = LabelledImages("dots", images[:30], labels[:30], images[30:], labels[30:])
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    objectives = (FILTER_OBJECTIVES["error"], FILTER_OBJECTIVES["flops"])
    tuning = TuningSettings(epochs=1)

    def make() -> FilterEvaluator:
        return FilterEvaluator(
            network, data, Normalisation.of(data), objectives, tuning, None, False, 0.3, 16, 1, "cpu", jobs=2
        )

    masks = generator.random((9, 4)) < 0.6
    masks[:, 0] = True
    expected = [values.tobytes() for values, _ in make().evaluate(masks)]
    candidates, sizes = FilterEvaluator._candidates, []

    def crowded(self: Any, all_masks: Any, costs: Any, group: slice) -> Any:
        size = len(all_masks[group])
        sizes.append(size)
        if size > limit:
            raise REFUSALS[0]
        return candidates(self, all_masks, costs, group)

    monkeypatch.setattr(FilterEvaluator, "_candidates", crowded)
    if limit == 0:
        with pytest.warns(RunWarning), pytest.raises(NotEnoughMemory, match="a single network on 30 images"):
            list(make().evaluate(masks))
        return
    with pytest.warns(RunWarning, match="compute candidates") as said:
        found = [values.tobytes() for values, _ in make().evaluate(masks)]
    assert len(said) == 1
    assert found == expected
    assert max(sizes) == 4


# --- for real --------------------------------------------------------------------------------------

LIMITED = """
import json, resource, sys, warnings
import numpy as np, torch
from moevoprune import HeadSettings
from moevoprune.errors import InputError
from moevoprune.heads.encodings import HeadShape, make_encoding
from moevoprune.heads.trainer import PopulationTrainer

torch.set_num_threads(1)
HIDDEN, FEATURES, ROWS = 8192, 600, 48
generator = np.random.default_rng(0)
features = generator.normal(size=(ROWS, FEATURES)).astype(np.float32)
labels = generator.integers(0, 3, ROWS)
shape = HeadShape(FEATURES, (HIDDEN,), 3)
mask = make_encoding("features", shape).decode(np.arange(FEATURES) % 2 == 0)
folds = [np.delete(np.arange(ROWS), slice(start, start + 6)) for start in range(0, 48, 6)]
head = HeadSettings(hidden=(HIDDEN,), epochs=1, batch_size=48, weight_decay=0.001)

def digest(limit, n_folds=8):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    size = resource.RLIM_INFINITY if limit is None else used + limit
    trainer = PopulationTrainer(features, labels, shape, head, 1, "cpu")
    # all heads side by side, as a machine with larger caches would have it
    type(trainer.grouping).heads_together = lambda *_: n_folds
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (stack,) = trainer.fit([mask], folds[:n_folds])
        found = [hash(tensor.numpy().tobytes()) for tensor in stack.weights]
        return found, trainer._chunk.most, [str(one.message)[:40] for one in said]
    except InputError as error:
        return None, trainer._chunk.most, [str(error)]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

results = [digest(mega * 2**20) for mega in map(int, sys.argv[1:])]
print(json.dumps([*results, digest(None)]))
"""


def limited(*megabytes: int) -> list[Any]:
    words = [sys.executable, "-c", LIMITED, *map(str, megabytes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results: list[Any] = json.loads(done.stdout)
    return results


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is set from /proc, which is Linux'")
def test_a_real_limit_of_the_address_space_halves_the_chunk() -> None:
    *tight, roomy = limited(60, 120, 180, 240, 300)
    whole, most, said = roomy
    assert (most, said) == (None, [])
    found, _, (line,) = tight[0]
    assert found is None
    assert line.startswith(
        "not enough memory for a single head of 2,490,371 weights (300 features) on 48 training"
    )
    assert line.endswith("were refused)")
    halved = [(most, said) for found, most, said in tight if found is not None and most is not None]
    assert all(found == whole for found, _, _ in tight if found is not None)
    assert halved
    assert all(most in (1, 2, 4) and said == ["not enough memory to train heads side by"] for most, said in halved)


@pytest.mark.gpu
def test_a_real_limit_on_a_gpu_halves_the_slots_and_the_chunk() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 512)).astype(np.float32)
    labels = generator.integers(0, 3, 400)
    shape = HeadShape(512, (2048,), 3)
    codec = make_encoding("features", shape)
    masks = [codec.decode(generator.permutation(512) < 256) for _ in range(40)]
    folds = [np.arange(0, 300), np.arange(100, 400)]
    _, total = torch.cuda.mem_get_info()
    # in slots, and group by group
    for optimiser in ("sgd", "adam"):
        head = HeadSettings(hidden=(2048,), epochs=2, batch_size=64, optimiser=optimiser)
        trainer = PopulationTrainer(features, labels, shape, head, 1, "cuda")
        try:
            torch.cuda.set_per_process_memory_fraction(300 * 2**20 / total)
            with pytest.warns(RunWarning, match="train heads") as said:
                stacks = list(trainer.fit(masks, folds))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert len(said) == 1
        assert not any(stack.diverged.any() for stack in stacks)
