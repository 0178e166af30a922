"""How heads tell the test rows from out-of-distribution rows that were held back for the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moevoprune.device import reproducible
from moevoprune.errors import InputError
from moevoprune.features import FeatureSet
from moevoprune.features.folds import training_part
from moevoprune.features.ood import ood_test
from moevoprune.fronts.front import Front
from moevoprune.heads.head import TrainedHead
from moevoprune.heads.scaling import Scaling
from moevoprune.objectives import OOD_SCORES, auroc, fpr_at_tpr, odin_perturb, ood_score, ood_scores_of
from moevoprune.search.fitness import settled
from moevoprune.search.problem import DEFAULT_ODIN_EPSILON, PruningProblem

__all__ = ["DIVERGED_OOD", "OodTest"]

Values = npt.NDArray[np.float64]

# AUROC and FPR95 of a head whose outputs are not finite
DIVERGED_OOD = (0.0, 1.0)

# test rows may be on disk, and as many as there is no memory for
_ROWS_AT_ONCE = 8192

_MEASURES = ("ood_auroc", "ood_fpr95")
_DEFAULT_SCORE = "temperature"


@dataclass(frozen=True, eq=False)
class OodTest:
    """The rows to tell apart, and by which scores.

    Attributes
    ----------
    inside
        Test rows, shape (rows, features).
    outside
        Out-of-distribution rows held back for the test, shape (rows, features).
    odin_step
        Step of ODIN's perturbation for each feature, in the units that heads read, shape (features,).
    scores
        Names of the scores, see :data:`moevoprune.objectives.OOD_SCORES`; at least one.
    """

    inside: npt.NDArray[np.float32]
    outside: npt.NDArray[np.float32]
    odin_step: Values
    scores: tuple[str, ...]

    @classmethod
    def of(cls, problem: PruningProblem) -> OodTest | None:
        """Rows and scores of a problem; None where there is nothing to measure."""
        scores = ood_scores_of(problem.objectives) or (_DEFAULT_SCORE,)
        return cls._of(problem.features, scores, problem.fitness.odin_step)

    @classmethod
    def of_front(
        cls, front: Front, features: FeatureSet, odin_epsilon: float = DEFAULT_ODIN_EPSILON
    ) -> OodTest | None:
        """Rows and scores for the members of a front; None where there is nothing to measure.

        Parameters
        ----------
        front
            The score is that of its first ``ood_auroc`` objective, without one the temperature-scaled softmax.
        features
            The data it was evolved on.
        odin_epsilon
            The run's step of ODIN's perturbation, in training standard deviations; only ODIN uses it.
        """
        names = [name.partition(":") for name in front.objectives]
        scores = [score or _DEFAULT_SCORE for kind, _, score in names if kind == "ood_auroc"]
        score = next((score for score in scores if score in OOD_SCORES), _DEFAULT_SCORE)
        # in the units that heads read: 1 where they standardise
        deviation = Scaling.fit(*training_part(features), standardise=True).scale / front.dense_head.scale
        return cls._of(features, (score,), odin_epsilon * deviation.astype(np.float64))

    @classmethod
    def _of(cls, features: FeatureSet, scores: tuple[str, ...], odin_step: Values) -> OodTest | None:
        if features.X_ood is None or features.task == "regression":
            return None
        try:
            outside = ood_test(features)
        except InputError:
            # too few to split: the search would have refused them, had it needed them
            return None
        return cls(features.X_test, outside, odin_step, scores)

    def columns(self, heads: Sequence[TrainedHead]) -> Mapping[str, Values]:
        """Measures by name, each of shape (heads,)."""
        table = np.array([[self.measure(self.confidences(head, s)) for s in self.scores] for head in heads])
        table = table.reshape(len(heads), len(self.scores), len(_MEASURES))
        return {
            measure + (f":{score}" if s > 0 else ""): table[:, s, m]
            for s, score in enumerate(self.scores)
            for m, measure in enumerate(_MEASURES)
        }

    def confidences(self, head: TrainedHead, score: str) -> tuple[Tensor, Tensor] | None:
        """How sure a head is of the rows inside and outside, each of shape (rows,), float64.

        None where its outputs are not finite.
        """
        with reproducible(torch.device("cpu")):
            inside, outside = (self._outputs(head, rows, score) for rows in (self.inside, self.outside))
            if not (inside.isfinite().all() and outside.isfinite().all()):
                return None
            return ood_score(settled(inside), score), ood_score(settled(outside), score)

    @staticmethod
    def measure(confidences: tuple[Tensor, Tensor] | None) -> tuple[float, float]:
        """AUROC and FPR95 of confidences inside and outside; :data:`DIVERGED_OOD` of None."""
        if confidences is None:
            return DIVERGED_OOD
        return auroc(*confidences).item(), fpr_at_tpr(*confidences).item()

    def _outputs(self, head: TrainedHead, rows: npt.NDArray[np.float32], score: str) -> Tensor:
        # as the search compares them: in float64, since scores differ far below float32's last digit
        module = head.to_module(prepared=True).double()
        outputs = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            prepared = torch.from_numpy(head.prepare(rows[start : start + _ROWS_AT_ONCE])).double()
            if score == "odin":
                prepared = odin_perturb(module, prepared, torch.from_numpy(self.odin_step[head.inputs]))
            outputs.append(module(prepared))
        return torch.cat(outputs)
