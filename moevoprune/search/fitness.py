"""Fitness of masks: trained on folds of the training part, scored by the objectives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.baselines.data import RankingData
from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.features.feature_folder import MappedRows
from moevoprune.features.feature_set import FeatureSet
from moevoprune.features.folds import make_folds, training_part
from moevoprune.features.ood import ood_selection
from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.row_sources import PreparedRows, is_large
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import TRAINER_VERSION, HeadStack, PopulationTrainer
from moevoprune.memory import Chunk
from moevoprune.objectives import (
    MIN_CKA_ROWS,
    MOST_REPRESENTED,
    Candidate,
    FoldPrediction,
    Objective,
    evenly,
    odin_perturb,
)

__all__ = ["DEFAULT_ODIN_EPSILON", "FitnessEvaluator", "pack", "settled"]

# tried on six pairs of real sets: steps up to .01 change little (Liang et al.'s .0014 of a pixel's range is about
# .005 of its deviation), up to .2 nearly all gain, and beyond that some lose
DEFAULT_ODIN_EPSILON = 0.2

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# numbers of outputs kept in memory, 256 MB
_MOST_REMEMBERED = 2**26
# numbers of outputs per mask that are kept for validation rows; of more rows, evenly spread ones are
_MOST_PREDICTED, _FEWEST_PREDICTED = 100_000, 1000
# numbers of outputs of heads that read the same rows of a large set together, 256 MB
_MOST_OUTPUTS = 2**26
# validation rows that a head is given at once; a row's last digits may depend on the others beside it
_ROWS_AT_ONCE = 8192

# what objectives that compare hidden representations need
_CKA_NEEDS = frozenset({"noise", "dense"})

# in variances of the target: errors beyond are a diverged head's, and would drown all others in a mean
_LARGEST_ERROR = 1e3

# outputs that are compared across rows are kept to this part of a unit
_OUTPUT_STEPS = 2.0**32


class FitnessEvaluator:
    """Objective values of masks: a pure function of mask, data, settings and seed.

    A large training part (:func:`moevoprune.heads.row_sources.is_large`) is read batch by batch, from wherever it
    is; other sets are prepared in memory. Both give the same bits.

    Parameters
    ----------
    features
        The data; its test part is not read.
    encoding
        Name of the encoding.
    objectives
        What to measure.
    head
        How heads are built and trained.
    cv
        Folds, as in :func:`moevoprune.features.folds.make_folds`.
    seed
        Seed of folds, start weights, row order and noise.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    noise
        Standard deviation of the Gaussian noise that ``cka:noise`` adds to the features, in training standard
        deviations of each feature.
    repeats
        How often the rows are split into folds, at least 1.
    odin_epsilon
        Step of ODIN's perturbation, in training standard deviations of each feature; only ``ood_auroc:odin`` uses
        it.
    jobs
        Processes that train heads side by side; changes nothing but time.

    Attributes
    ----------
    odin_step
        That step for each feature in the units that heads read, shape (features,).
    predicted
        Places, in the validation rows of one fold after the other, that :meth:`predict_validation` is about; by
        rising row number.
    n_heads
        Heads trained so far: one per mask and fold, and those trained on the whole training part.
    """

    def __init__(
        self,
        features: FeatureSet,
        encoding: str,
        objectives: tuple[Objective, ...],
        head: HeadSettings,
        cv: int | None,
        seed: int,
        device: str,
        noise: float,
        repeats: int = 1,
        odin_epsilon: float = DEFAULT_ODIN_EPSILON,
        jobs: int = 1,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "encoding": encoding,
            "objectives": objectives,
            "head": head,
            "cv": cv,
            "seed": seed,
            "noise": noise,
            "repeats": repeats,
            "odin_epsilon": odin_epsilon,
        }
        self.features = features
        self.objectives = objectives
        self.encoding = make_encoding(encoding, HeadShape(features.n_features, head.hidden, features.n_outputs))
        self.folds = make_folds(features, cv, seed, repeats)
        raw_features, raw_targets = training_part(features)
        self.scaling = Scaling.fit(raw_features, raw_targets, head.standardise)
        prepared: Floats | PreparedRows
        if isinstance(raw_features, MappedRows) or is_large(raw_features.shape):
            rows = raw_features if isinstance(raw_features, MappedRows) else MappedRows([raw_features])
            prepared = PreparedRows(rows, self.scaling)
            if not is_large(rows.shape):
                prepared = prepared.rows(np.arange(len(rows)))
        else:
            prepared = self.scaling.apply(raw_features)
        prepared_targets = self.scaling.apply_to_targets(raw_targets)
        if features.task == "classification":
            prepared_targets = prepared_targets.astype(np.int64)
        else:
            spread = raw_targets.astype(np.float64).std(axis=0)
            self._target_spread = np.where(spread > 0, spread, 1.0)
        self._prepared_targets = prepared_targets
        self.trainer = PopulationTrainer(
            prepared, prepared_targets, self.encoding.shape, head, seed, device, jobs=jobs
        )
        self.device = self.trainer.device
        self._source = prepared if isinstance(prepared, PreparedRows) else None
        self._chunk = Chunk("predict with masks' heads", self.trainer.free, self._relieve)
        self._noise = noise
        self._seed = seed
        self._head = head
        self.n_heads = 0
        self._outputs: dict[bytes, Floats] = {}
        needs = self._needs = frozenset[str]().union(*(objective.needs for objective in objectives))
        smallest = min(len(rows) for rows in self.folds.validation)
        if needs & _CKA_NEEDS and smallest < MIN_CKA_ROWS:
            fewer = "use fewer folds (--cv), or " if len(self.folds) > 1 else ""
            raise InputError(
                f"{features.name}: a fold has {smallest} validation rows, but CKA needs at least {MIN_CKA_ROWS}: "
                f"{fewer}leave CKA out (--objectives accuracy,active_neurons)"
            )
        self._validation = [_ValidationRows(prepared, rows, self.device) for rows in self.folds.validation]
        targets = raw_targets if features.task == "regression" else raw_targets.astype(np.int64)
        self._targets = [torch.from_numpy(targets[rows]).to(self.device) for rows in self.folds.validation]
        self._noisy = self._noisy_validation() if "noise" in needs else None
        # rising rows are the same for every seed of the folds, so that fronts can be merged
        order = np.argsort(np.concatenate(self.folds.validation), kind="stable")
        most = max(_MOST_PREDICTED // features.n_outputs, _FEWEST_PREDICTED)
        self.predicted = order[evenly(len(order), most)]
        self._dense_hidden: list[Tensor] | None = None
        if "dense" in needs:
            self._dense_hidden = self._hidden_of_dense_head()
        if "odin" in needs and features.task == "regression":
            raise InputError(f"{features.name}: ODIN needs class labels, but the targets are real numbers")
        self.odin_step: Values = odin_epsilon * self._deviation().astype(np.float64)
        self._odin_epsilon = odin_epsilon
        self._ood: Tensor | None = None
        if needs & {"ood", "odin"}:
            # rows from elsewhere may be too large once standardised: a head's outputs then say so
            with np.errstate(over="ignore"):
                self._ood = torch.from_numpy(self.scaling.apply(ood_selection(features))).to(self.device)

    def identity(self) -> dict[str, object]:
        """Everything that a fitness value depends on besides the mask, as plain values."""
        head = {f"head.{key}": value for key, value in self._head.model_dump(mode="json").items()}
        odin = {"odin_epsilon": self._odin_epsilon} if "odin" in self._needs else {}
        largest = max(len(rows) for rows in self.folds.validation)
        cka = {"cka_rows": MOST_REPRESENTED} if self._needs & _CKA_NEEDS and largest > MOST_REPRESENTED else {}
        return {
            "data": f"{self.features.name} ({self.features.content_hash[:16]})",
            "encoding": self.encoding.name,
            "folds": self.folds.description,
            "seed": self._seed,
            "noise": self._noise,
            "device": self.device.type,
            "dtype": str(self.trainer.dtype).removeprefix("torch."),
            "trainer": TRAINER_VERSION,
            "torch": torch.__version__,
            **cka,
            **odin,
            **head,
        }

    def recipe(self) -> dict[str, Any]:
        """Arguments that make the same evaluator again, without ``features``, ``device`` and ``jobs``."""
        return dict(self._arguments)

    def close(self) -> None:
        """End the worker processes, if there are any; they start again when they are needed."""
        self.trainer.close()

    def adopt(self, mask: Bits, outputs: Floats | None) -> None:
        """Take note of a mask that another evaluator of the same recipe has trained and scored.

        Parameters
        ----------
        mask
            Shape (n_bits,).
        outputs
            What :meth:`predict_validation` yields for it; None where that did not come along.
        """
        self.n_heads += len(self.folds)
        if outputs is not None:
            self._remember(pack(mask[None])[0], outputs)

    def forget(self, but: Collection[bytes] = ()) -> None:
        """Forget the outputs of masks that :meth:`evaluate` has scored, e.g. where they were sent elsewhere.

        Parameters
        ----------
        but
            Packed masks, see :func:`pack`, whose outputs stay.
        """
        kept = set(but)
        for key in [key for key in self._outputs if key not in kept]:
            del self._outputs[key]

    def evaluate(self, bits: Bits) -> Iterator[tuple[Values, bool]]:
        """Train and score masks, one after the other as they are done.

        Parameters
        ----------
        bits
            Shape (n, n_bits).

        Yields
        ------
        values, diverged
            Objective values in natural units, shape (n_obj,), and whether training left a head without finite
            weights (it then has every objective's value for that).
        """
        for key, candidate in zip(pack(bits), self._candidates(bits), strict=True):
            ((values, outputs),) = self._chunk.work(1, partial(self._scored, candidate), self._described)
            self._remember(key, outputs)
            yield values, not candidate.finite

    def predict_validation(self, bits: Bits) -> Iterator[Floats]:
        """What masks' heads predict for validation rows of their folds, those at the places :attr:`predicted`.

        The masks that :meth:`evaluate` scored last are remembered, up to some memory; others are trained again, to
        the same bits.

        Parameters
        ----------
        bits
            Shape (n, n_bits).

        Yields
        ------
        ndarray, shape (places, outputs)
            Logits, or predicted targets in their own units. NaN for a fold that diverged.
        """
        for row, key in zip(bits, pack(bits), strict=True):
            known = self._outputs.get(key)
            if known is None:
                (candidate,) = self._candidates(row[None])
                known = self._outputs_of(candidate)
            yield known

    def train_final(self, bits: Bits) -> Iterator[TrainedHead]:
        """Retrain masks on the whole training part.

        Parameters
        ----------
        bits
            Shape (n, n_bits).

        Yields
        ------
        TrainedHead
            One per mask, in order.
        """
        masks = [self.encoding.decode(row) for row in bits]
        everything = [np.arange(len(self._prepared_targets))]
        for stack in self.trainer.fit(masks, everything):
            self.n_heads += 1
            yield TrainedHead.from_stack(stack, 0, self.scaling)

    def _candidates(self, bits: Bits) -> Iterator[Candidate]:
        """Train masks on the folds, and have them predict what the objectives look at."""
        masks = [self.encoding.decode(row) for row in bits]
        active = [int(self.encoding.count_active(row)) for row in bits]
        trained = zip(self.trainer.fit(masks, self.folds.train), active, strict=True)
        n_outputs = sum(len(targets) for targets in self._targets) * self.features.n_outputs
        # rows that have to be read are so for many heads at once; others for one, the sooner to be told
        together = max(_MOST_OUTPUTS // n_outputs, 1) if self._validation[0].on_demand else 1
        while group := list(itertools.islice(trained, together)):
            self.n_heads += len(self.folds) * len(group)
            candidates = self._chunk.work(len(group), partial(self._predicted, group), self._described)
            while candidates:
                yield candidates.pop(0)

    def _predicted(self, group: Sequence[tuple[HeadStack, int]], most: int) -> list[Candidate]:
        """Have individuals' heads predict, so many individuals at once."""
        with reproducible(self.device):
            parts = [group[start : start + most] for start in range(0, len(group), most)]
            return [candidate for part in parts for candidate in self._candidates_of(part)]

    def _scored(self, candidate: Candidate, _: int) -> list[tuple[Values, Floats]]:
        with reproducible(self.device):
            values = np.array([objective(candidate) for objective in self.objectives])
        return [(values, self._outputs_of(candidate))]

    def _relieve(self) -> bool:
        """Do without whatever can be computed again, and without worker processes."""
        remembered = bool(self._outputs)
        self._outputs.clear()
        return self.trainer.relieve() or remembered

    def _described(self) -> str:
        rows = max(len(rows) for rows in self.folds.validation)
        return (
            f"what a single head predicts for {rows:,} validation rows, and its scores: use fewer hidden units "
            "(e.g. --set hidden=64), more folds (--cv) or fewer rows"
        )

    def _remember(self, key: bytes, outputs: Floats) -> None:
        """Keep the outputs of a mask; those scored longest ago make room, as they are the least likely members."""
        self._outputs[key] = outputs
        while len(self._outputs) * outputs.size > _MOST_REMEMBERED:
            del self._outputs[next(iter(self._outputs))]

    def row_scores(self, bits: Bits, fold: int) -> Values:
        """Train masks on one fold, and score them on each of its validation rows.

        Parameters
        ----------
        bits
            Shape (n, n_bits).
        fold
            Number of the fold.

        Returns
        -------
        ndarray, shape (n, validation rows of the fold)
            Classification: 1 where the head is right, else 0. Regression: minus the squared error in variances of
            the target, the mean over the targets, at least -1e3. A head that diverged has the worst score for
            every row.
        """
        masks = [self.encoding.decode(row) for row in bits]
        classification = self.features.task == "classification"
        targets = self._targets[fold]
        scores = np.zeros((len(bits), len(targets)))
        for of_mask, stack in zip(scores, self.trainer.fit(masks, [self.folds.train[fold]]), strict=True):
            self.n_heads += 1
            with reproducible(self.device):
                inputs = torch.from_numpy(stack.mask.inputs).to(self.device)
                outputs = self._validation_outputs(stack, fold, inputs)
                if stack.diverged[0] or not bool(outputs.isfinite().all()):
                    of_mask[:] = 0.0 if classification else -_LARGEST_ERROR
                elif classification:
                    of_mask[:] = (outputs.argmax(1) == targets).double().cpu().numpy()
                else:
                    differences = (self._in_target_units(outputs) - targets).double().cpu().numpy()
                    errors = np.square(differences / self._target_spread).mean(axis=1)
                    of_mask[:] = -np.minimum(errors, _LARGEST_ERROR)
        return scores

    def ranking_data(
        self,
        evaluate: Callable[[Bits], Values] | None = None,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> RankingData:
        """All that rankings of bits may look at.

        Parameters
        ----------
        evaluate
            Validation score of masks, for baselines that search.
        rows
            Row numbers of the training part to keep to, e.g. a fold's; None for all.
        """
        prepared: Floats | PreparedRows | None = self._source
        if prepared is None:
            # on CPU a view, no copy
            prepared = self.trainer.features.float().cpu().numpy()
        return RankingData(
            prepared,
            self._prepared_targets,
            self.features.task,
            self.encoding,
            self._head,
            self._seed,
            self.trainer,
            evaluate,
            rows,
        )

    def _noisy_validation(self) -> list[Tensor]:
        """Rows whose hidden representation is looked at, with Gaussian noise, the same for every mask."""
        deviation = self._deviation()
        noisy = []
        for fold, rows in enumerate(self._validation):
            clean = rows.represented
            generator = np.random.default_rng([self._seed, 0x9015, fold])
            noise = generator.standard_normal(tuple(clean.shape), dtype=np.float32)
            # beyond float32 it is infinite, and no representation of it is like that of the clean rows
            with np.errstate(over="ignore"):
                noise = noise * np.float32(self._noise) * deviation
            noisy.append(clean + torch.from_numpy(noise).to(self.device))
        return noisy

    def _deviation(self) -> npt.NDArray[np.float32]:
        """Training standard deviation of each feature in the units that heads read, shape (features,)."""
        if self._head.standardise:
            return np.ones(self.features.n_features, np.float32)
        return Scaling.fit(*training_part(self.features), standardise=True).scale

    def _hidden_of_dense_head(self) -> list[Tensor]:
        mask = self.encoding.decode(self.encoding.dense())
        (stack,) = self.trainer.fit([mask], self.folds.train)
        with reproducible(self.device):
            return [stack.forward(rows.represented, fold)[1] for fold, rows in enumerate(self._validation)]

    def _candidates_of(self, trained: Sequence[tuple[HeadStack, int]]) -> list[Candidate]:
        """What individuals' heads predict; every validation row is read once for all of them."""
        heads = [_Predictor(stack, self.device) for stack, _ in trained]
        if self._ood is not None:
            step = torch.from_numpy(self.odin_step).to(self.device) if "odin" in self._needs else None
            for predictor in heads:
                predictor.add_confidence(self._ood, step, self._in_target_units)
        folds: list[list[FoldPrediction]] = [[] for _ in heads]
        for fold, rows in enumerate(self._validation):
            for predictor in heads:
                predictor.open(fold)
            for block in rows.blocks():
                for predictor in heads:
                    predictor.read(block)
            for predictor, predictions in zip(heads, folds, strict=True):
                predictions.append(self._fold_prediction(predictor, fold))
        return [
            Candidate(tuple(predictions), active, self.encoding.n_bits)
            for predictions, (_, active) in zip(folds, trained, strict=True)
        ]

    def _fold_prediction(self, predictor: _Predictor, fold: int) -> FoldPrediction:
        outputs, further = predictor.outputs()
        if predictor.diverged[fold]:
            outputs = torch.full_like(outputs, float("nan"))
        rows = self._validation[fold]
        return FoldPrediction(
            self._targets[fold],
            self._in_target_units(outputs),
            predictor.hidden(rows.represented),
            None if self._noisy is None else predictor.hidden(self._noisy[fold]),
            None if self._dense_hidden is None else self._dense_hidden[fold],
            **further,
        )

    def _validation_outputs(self, stack: HeadStack, fold: int, inputs: Tensor) -> Tensor:
        """Outputs of a stack's only head on the validation rows of a fold."""
        blocks = self._validation[fold].blocks()
        return torch.cat([stack.forward(_columns(block, stack.mask, inputs), 0)[0] for block in blocks])

    def _outputs_of(self, candidate: Candidate) -> Floats:
        outputs = torch.cat([fold.outputs for fold in candidate.folds])
        places = torch.from_numpy(self.predicted).to(outputs.device)
        return outputs.index_select(0, places).float().cpu().numpy()

    def _in_target_units(self, outputs: Tensor) -> Tensor:
        scale, mean = self.scaling.target_scale, self.scaling.target_mean
        if scale is None or mean is None:
            return outputs
        return outputs * torch.from_numpy(scale).to(outputs) + torch.from_numpy(mean).to(outputs)


class _ValidationRows:
    """Prepared validation rows of a fold: a copy of them, or read when they are asked for.

    Parameters
    ----------
    prepared
        Prepared rows of the training part.
    rows
        Numbers of those that the fold is scored on.
    device
        Where they are wanted.
    """

    def __init__(self, prepared: Floats | PreparedRows, rows: npt.NDArray[np.int64], device: torch.device) -> None:
        self._rows = rows
        self._device = device
        self._source = prepared if isinstance(prepared, PreparedRows) else None
        chosen = rows[evenly(len(rows), MOST_REPRESENTED)]
        if isinstance(prepared, PreparedRows):
            self.represented = torch.tensor(prepared.rows(chosen), device=device)
            return
        # copies: a product's last digits may depend on how memory is aligned, which NumPy's is by chance
        self._all = torch.tensor(prepared[rows], device=device)
        self.represented = self._all
        if len(chosen) < len(rows):
            self.represented = torch.tensor(prepared[chosen], device=device)

    @property
    def on_demand(self) -> bool:
        """Whether rows have to be read and prepared."""
        return self._source is not None

    def blocks(self) -> Iterator[Tensor]:
        """All rows in order, some at a time."""
        for start in range(0, len(self._rows), _ROWS_AT_ONCE):
            if self._source is None:
                # the tensor itself where it is one block, so that nobody predicts it twice
                whole = len(self._all) <= _ROWS_AT_ONCE
                yield self._all if whole else self._all[start : start + _ROWS_AT_ONCE]
            else:
                rows = self._source.rows(self._rows[start : start + _ROWS_AT_ONCE])
                yield torch.tensor(rows, device=self._device)


class _Predictor:
    """What one individual's heads say of the validation rows of one fold after the other.

    Parameters
    ----------
    stack
        Its heads.
    device
        Where they are.
    """

    def __init__(self, stack: HeadStack, device: torch.device) -> None:
        self._stack = stack
        self._inputs = torch.from_numpy(stack.mask.inputs).to(device)
        self._confidence: _Confidence | None = None
        self._fold = 0
        self._parts: list[tuple[Tensor, Tensor | None]] = []
        # rows that were read last, with their hidden representation
        self._last: tuple[Tensor, Tensor] | None = None
        self.diverged = stack.diverged

    def add_confidence(self, ood: Tensor, odin_step: Tensor | None, in_units: Callable[[Tensor], Tensor]) -> None:
        """Have outputs computed as precisely as out-of-distribution scores need them; see :class:`_Confidence`."""
        step = None if odin_step is None else odin_step[self._inputs]
        self._confidence = _Confidence(self._stack, self._columns(ood).double(), step, in_units)

    def open(self, fold: int) -> None:
        """Turn to a fold."""
        self._fold = fold
        self._parts = []
        self._last = None

    def read(self, block: Tensor) -> None:
        """Predict some of the fold's rows."""
        columns = self._columns(block)
        if self._confidence is None:
            outputs, hidden = self._stack.forward(columns, self._fold)
            self._parts.append((outputs, None))
            self._last = block, hidden
        else:
            self._parts.append(self._confidence.inside(columns.double(), self._fold))

    def outputs(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs for all rows read, and by name those that out-of-distribution scores compare beside them."""
        outputs = torch.cat([part for part, _ in self._parts])
        if self._confidence is None:
            return outputs, {}
        named = self._confidence.outside(self._fold)
        perturbed = [part for _, part in self._parts if part is not None]
        if perturbed:
            named["odin_outputs"] = torch.cat(perturbed)
        return outputs, named

    def hidden(self, rows: Tensor) -> Tensor:
        """Last hidden representation of rows by the fold's head."""
        if self._last is not None and self._last[0] is rows:
            return self._last[1]
        return self._stack.forward(self._columns(rows), self._fold)[1]

    def _columns(self, rows: Tensor) -> Tensor:
        return _columns(rows, self._stack.mask, self._inputs)


class _Confidence:
    """Outputs that out-of-distribution scores compare.

    A score ranks rows by differences far below float32's last digit, hence float64.

    Parameters
    ----------
    stack
        An individual's heads.
    ood
        Out-of-distribution rows, shape (rows, kept inputs), float64.
    odin_step
        ODIN's step for each input, shape (kept inputs,); None where it is not asked for.
    in_units
        Turns outputs into the targets' units.
    """

    def __init__(
        self, stack: HeadStack, ood: Tensor, odin_step: Tensor | None, in_units: Callable[[Tensor], Tensor]
    ) -> None:
        self._exact = stack.to(torch.float64)
        self._ood = ood
        self._step = odin_step
        self._outside_of_all = in_units(settled(self._exact.outputs_of_all(ood)))

    def inside(self, rows: Tensor, fold: int) -> tuple[Tensor, Tensor | None]:
        """Outputs of a fold's head on validation rows, as they are and as ODIN moves them."""
        perturbed = None if self._step is None else self._perturbed(rows, fold, self._step)
        return settled(self._exact.forward(rows, fold)[0]), perturbed

    def outside(self, fold: int) -> dict[str, Tensor]:
        """By name, outputs of a fold's head on the out-of-distribution rows."""
        named = {"ood_outputs": self._outside_of_all[fold]}
        if self._step is not None:
            named["odin_ood_outputs"] = self._perturbed(self._ood, fold, self._step)
        return named

    def _perturbed(self, rows: Tensor, fold: int, step: Tensor) -> Tensor:
        def forward(inputs: Tensor) -> Tensor:
            return self._exact.forward(inputs, fold)[0]

        return settled(forward(odin_perturb(forward, rows, step)))


def settled(outputs: Tensor) -> Tensor:
    """Cut off the digits that depend on a row's place in a matrix product: equal rows then have equal outputs."""
    return (outputs * _OUTPUT_STEPS).round() / _OUTPUT_STEPS


def _columns(rows: Tensor, mask: HeadMask, inputs: Tensor) -> Tensor:
    return rows if len(mask.inputs) == rows.shape[1] else rows.index_select(1, inputs)


def pack(bits: Bits) -> Sequence[bytes]:
    """Pack each mask into bytes, to be used as a key."""
    return [row.tobytes() for row in np.packbits(bits, axis=1)]
