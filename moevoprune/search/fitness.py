"""Fitness of masks: trained on folds of the training part, scored by the objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.baselines.data import RankingData
from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.features.feature_set import FeatureSet
from moevoprune.features.folds import make_folds, training_part
from moevoprune.features.ood import ood_selection
from moevoprune.heads.encodings import HeadMask, HeadShape, make_encoding
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.scaling import Scaling
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.trainer import TRAINER_VERSION, HeadStack, PopulationTrainer
from moevoprune.objectives import MIN_CKA_ROWS, Candidate, FoldPrediction, Objective, odin_perturb

__all__ = ["DEFAULT_ODIN_EPSILON", "FitnessEvaluator", "pack", "settled"]

# tried on six pairs of real sets: steps up to .01 change little (Liang et al.'s .0014 of a pixel's range is about
# .005 of its deviation), up to .2 nearly all gain, and beyond that some lose
DEFAULT_ODIN_EPSILON = 0.2

Bits = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# numbers of outputs kept in memory, 256 MB
_MOST_REMEMBERED = 2**26

# in variances of the target: errors beyond are a diverged head's, and would drown all others in a mean
_LARGEST_ERROR = 1e3

# outputs that are compared across rows are kept to this part of a unit
_OUTPUT_STEPS = 2.0**32


class FitnessEvaluator:
    """Objective values of masks: a pure function of mask, data, settings and seed.

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

    Attributes
    ----------
    odin_step
        That step for each feature in the units that heads read, shape (features,).
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
    ) -> None:
        self.features = features
        self.objectives = objectives
        self.encoding = make_encoding(encoding, HeadShape(features.n_features, head.hidden, features.n_outputs))
        self.folds = make_folds(features, cv, seed, repeats)
        raw_features, raw_targets = training_part(features)
        self.scaling = Scaling.fit(raw_features, raw_targets, head.standardise)
        prepared = self.scaling.apply(raw_features)
        prepared_targets = self.scaling.apply_to_targets(raw_targets)
        if features.task == "classification":
            prepared_targets = prepared_targets.astype(np.int64)
        else:
            spread = raw_targets.astype(np.float64).std(axis=0)
            self._target_spread = np.where(spread > 0, spread, 1.0)
        self._prepared_targets = prepared_targets
        self.trainer = PopulationTrainer(prepared, prepared_targets, self.encoding.shape, head, seed, device)
        self.device = self.trainer.device
        self._noise = noise
        self._seed = seed
        self._head = head
        self.n_heads = 0
        self._outputs: dict[bytes, Floats] = {}
        needs = self._needs = frozenset[str]().union(*(objective.needs for objective in objectives))
        smallest = min(len(rows) for rows in self.folds.validation)
        if needs & {"noise", "dense"} and smallest < MIN_CKA_ROWS:
            fewer = "use fewer folds (--cv), or " if len(self.folds) > 1 else ""
            raise InputError(
                f"{features.name}: a fold has {smallest} validation rows, but CKA needs at least {MIN_CKA_ROWS}: "
                f"{fewer}leave CKA out (--objectives accuracy,active_neurons)"
            )
        self._validation = [self._rows(prepared, rows) for rows in self.folds.validation]
        targets = raw_targets if features.task == "regression" else raw_targets.astype(np.int64)
        self._targets = [self._rows(targets, rows) for rows in self.folds.validation]
        self._noisy = self._noisy_validation() if "noise" in needs else None
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
            **odin,
            **head,
        }

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
            with reproducible(self.device):
                values = np.array([objective(candidate) for objective in self.objectives])
            self._remember(key, _outputs_of(candidate))
            yield values, not candidate.finite

    def predict_validation(self, bits: Bits) -> Iterator[Floats]:
        """What masks' heads predict for the validation rows of their folds.

        The masks that :meth:`evaluate` scored last are remembered, up to some memory; others are trained again, to
        the same bits.

        Parameters
        ----------
        bits
            Shape (n, n_bits).

        Yields
        ------
        ndarray, shape (validation rows of all folds, outputs)
            Logits, or predicted targets in their own units; fold after fold. NaN for a fold that diverged.
        """
        for row, key in zip(bits, pack(bits), strict=True):
            known = self._outputs.get(key)
            if known is None:
                (candidate,) = self._candidates(row[None])
                known = _outputs_of(candidate)
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
        everything = [np.arange(self.trainer.features.shape[0])]
        for stack in self.trainer.fit(masks, everything):
            self.n_heads += 1
            yield TrainedHead.from_stack(stack, 0, self.scaling)

    def _candidates(self, bits: Bits) -> Iterator[Candidate]:
        """Train masks on the folds, and have them predict what the objectives look at."""
        masks = [self.encoding.decode(row) for row in bits]
        for row, stack in zip(bits, self.trainer.fit(masks, self.folds.train), strict=True):
            self.n_heads += len(self.folds)
            with reproducible(self.device):
                yield self._candidate(stack, int(self.encoding.count_active(row)))

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
                outputs = stack.forward(_columns(self._validation[fold], stack.mask, inputs), 0)[0]
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

    def _rows(self, array: npt.NDArray[np.generic], rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[rows])).to(self.device)

    def _noisy_validation(self) -> list[Tensor]:
        """Validation rows with Gaussian noise, the same for every mask."""
        deviation = self._deviation()
        noisy = []
        for fold, clean in enumerate(self._validation):
            generator = np.random.default_rng([self._seed, 0x9015, fold])
            noise = generator.standard_normal(tuple(clean.shape), dtype=np.float32)
            noisy.append(clean + torch.from_numpy(noise * np.float32(self._noise) * deviation).to(self.device))
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
            return [stack.forward(rows, fold)[1] for fold, rows in enumerate(self._validation)]

    def _candidate(self, stack: HeadStack, active: int) -> Candidate:
        inputs = torch.from_numpy(stack.mask.inputs).to(self.device)
        diverged = stack.diverged
        confidence = None if self._ood is None else self._confidence(stack, inputs, self._ood)
        folds = []
        for fold, clean in enumerate(self._validation):
            outputs, hidden = stack.forward(_columns(clean, stack.mask, inputs), fold)
            ood: dict[str, Tensor] = {}
            if confidence is not None:
                outputs, ood = confidence(fold)
            if diverged[fold]:
                outputs = torch.full_like(outputs, float("nan"))
            noisy = None
            if self._noisy is not None:
                noisy = stack.forward(_columns(self._noisy[fold], stack.mask, inputs), fold)[1]
            dense = None if self._dense_hidden is None else self._dense_hidden[fold]
            outputs = self._in_target_units(outputs)
            folds.append(FoldPrediction(self._targets[fold], outputs, hidden, noisy, dense, **ood))
        return Candidate(tuple(folds), active, self.encoding.n_bits)

    def _confidence(
        self, stack: HeadStack, inputs: Tensor, ood: Tensor
    ) -> Callable[[int], tuple[Tensor, dict[str, Tensor]]]:
        """Outputs of a fold's head on its validation rows, and by name on the others that OoD scores compare.

        A score ranks rows by differences far below float32's last digit, hence float64.
        """
        exact = stack.to(torch.float64)
        outside = _columns(ood, stack.mask, inputs).double()
        outside_of_all = self._in_target_units(settled(exact.outputs_of_all(outside)))
        step = torch.from_numpy(self.odin_step).to(self.device)[inputs] if "odin" in self._needs else None

        def of_fold(fold: int) -> tuple[Tensor, dict[str, Tensor]]:
            def forward(rows: Tensor) -> Tensor:
                return exact.forward(rows, fold)[0]

            inside = _columns(self._validation[fold], stack.mask, inputs).double()
            named = {"ood_outputs": outside_of_all[fold]}
            if step is not None:
                named["odin_outputs"] = settled(forward(odin_perturb(forward, inside, step)))
                named["odin_ood_outputs"] = settled(forward(odin_perturb(forward, outside, step)))
            return settled(forward(inside)), named

        return of_fold

    def _in_target_units(self, outputs: Tensor) -> Tensor:
        scale, mean = self.scaling.target_scale, self.scaling.target_mean
        if scale is None or mean is None:
            return outputs
        return outputs * torch.from_numpy(scale).to(outputs) + torch.from_numpy(mean).to(outputs)


def settled(outputs: Tensor) -> Tensor:
    """Cut off the digits that depend on a row's place in a matrix product: equal rows then have equal outputs."""
    return (outputs * _OUTPUT_STEPS).round() / _OUTPUT_STEPS


def _outputs_of(candidate: Candidate) -> Floats:
    return np.concatenate([fold.outputs.float().cpu().numpy() for fold in candidate.folds])


def _columns(rows: Tensor, mask: HeadMask, inputs: Tensor) -> Tensor:
    return rows if len(mask.inputs) == rows.shape[1] else rows.index_select(1, inputs)


def pack(bits: Bits) -> Sequence[bytes]:
    """Pack each mask into bytes, to be used as a key."""
    return [row.tobytes() for row in np.packbits(bits, axis=1)]
