"""The objectives that go by a name, and how a list of names, functions and objectives is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moevoprune.errors import InputError, nearest
from moevoprune.objectives import predictive
from moevoprune.objectives.base import TASKS, Candidate, Objective
from moevoprune.objectives.cka import debiased_linear_cka_of_folds
from moevoprune.objectives.ood import OOD_SCORES, auroc, ood_score

__all__ = ["MIN_CKA_ROWS", "available_objectives", "ood_scores_of", "resolve_objectives"]

_R2_FLOOR = -1e3
_MSE_CEILING = 1e6
MIN_CKA_ROWS = 4

_CLASSIFICATION = frozenset({"classification"})
_REGRESSION = frozenset({"regression"})


def _pooled(candidate: Candidate) -> tuple[Tensor, Tensor]:
    """Outputs and targets of the validation rows of all folds together."""
    outputs = torch.cat([fold.outputs for fold in candidate.folds])
    targets = torch.cat([fold.targets for fold in candidate.folds])
    return outputs, targets


def _accuracy(candidate: Candidate) -> float:
    return predictive.accuracy(*_pooled(candidate)).item()


def _r2(candidate: Candidate) -> float:
    return max(predictive.r2_score(*_pooled(candidate)).item(), _R2_FLOOR)


def _mse(candidate: Candidate) -> float:
    # Bounded, as R2 is: a head that all but diverged must not score worse than one that did, nor overflow.
    return min(predictive.mean_squared_error(*_pooled(candidate)).item(), _mse_diverged(candidate))


def _mse_diverged(candidate: Candidate) -> float:
    targets = _pooled(candidate)[1].to(torch.float64)
    return _MSE_CEILING * (targets.var(0, correction=0).mean().item() + 1.0)


def _active_neurons(candidate: Candidate) -> float:
    return candidate.active_fraction


def _cka_noise(candidate: Candidate) -> float:
    return _mean_cka(candidate, "noise", "hidden_noisy")


def _cka_dense(candidate: Candidate) -> float:
    return _mean_cka(candidate, "dense", "hidden_dense")


def _mean_cka(candidate: Candidate, kind: str, field: str) -> float:
    for index, fold in enumerate(candidate.folds):
        if fold.n_rows < MIN_CKA_ROWS:
            raise InputError(
                f"objective 'cka:{kind}': fold {index} has {fold.n_rows} validation rows, but CKA needs at "
                f"least {MIN_CKA_ROWS}; use fewer folds, more data, or another objective"
            )
        if getattr(fold, field) is None:
            raise InputError(
                f"objective 'cka:{kind}': fold {index} has no {field}; evaluate candidates with {field}, "
                f"which the objective asks for by needs={{{kind!r}}}"
            )
    if candidate.active == 0:
        return 0.0
    pairs = [(fold.hidden, getattr(fold, field)) for fold in candidate.folds]
    return debiased_linear_cka_of_folds(pairs).mean().item()


def _mean_over_folds(measure: Callable[[Tensor, Tensor], Tensor], pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Mean of what is measured on each fold's pair of tensors.

    Folds of equal size go together: on few rows most of the time is that of calling each operation.
    """
    alike: dict[tuple[torch.Size, torch.Size], list[tuple[Tensor, Tensor]]] = {}
    for pair in pairs:
        alike.setdefault((pair[0].shape, pair[1].shape), []).append(pair)
    values = [measure(*(torch.stack(side) for side in zip(*group, strict=True))) for group in alike.values()]
    return torch.cat(values).mean().item()


@dataclass(frozen=True)
class _OodAuroc:
    """Mean over folds of the AUROC between validation and OoD rows: every fold's head has a scale of its own."""

    score: str

    def __call__(self, candidate: Candidate) -> float:
        needs = ("odin_outputs", "odin_ood_outputs") if self.score == "odin" else ("outputs", "ood_outputs")
        pairs = []
        for index, fold in enumerate(candidate.folds):
            inside, outside = (getattr(fold, name) for name in needs)
            if inside is None or outside is None:
                lacking, need = needs[inside is not None], "odin" if self.score == "odin" else "ood"
                raise InputError(
                    f"objective 'ood_auroc:{self.score}': fold {index} has no {lacking}; evaluate candidates with "
                    f"{lacking}, which the objective asks for by needs={{{need!r}}}"
                )
            pairs.append((inside, outside))
        # Outputs that see no input tie; a matrix product may yet tell rows apart by their place.
        if candidate.active == 0:
            return 0.5

        def of_folds(inside: Tensor, outside: Tensor) -> Tensor:
            return auroc(ood_score(inside, self.score), ood_score(outside, self.score))

        return _mean_over_folds(of_folds, pairs)


def _ood_auroc(score: str) -> Objective:
    needs = frozenset({"ood", "odin"}) if score == "odin" else frozenset({"ood"})
    return Objective(
        f"ood_auroc:{score}",
        _OodAuroc(score),
        best=1.0,
        worst=0.0,
        tasks=_CLASSIFICATION,
        needs=needs,
        diverged_value=0.0,
    )


_ALIASES = {"cka": "cka:noise", "ood_auroc": "ood_auroc:temperature"}

_BUILTIN = {
    objective.name: objective
    for objective in (
        Objective("accuracy", _accuracy, best=1.0, worst=0.0, tasks=_CLASSIFICATION, diverged_value=0.0),
        Objective("r2", _r2, best=1.0, worst=0.0, tasks=_REGRESSION, diverged_value=_R2_FLOOR),
        Objective("mse", _mse, maximise=False, best=0.0, tasks=_REGRESSION, diverged_value=_mse_diverged),
        Objective(
            "active_neurons",
            _active_neurons,
            maximise=False,
            best=0.0,
            worst=1.0,
            # A mask's size is known whatever became of the weights.
            diverged_value=_active_neurons,
        ),
        Objective("cka:noise", _cka_noise, best=1.0, worst=0.0, needs=frozenset({"noise"}), diverged_value=0.0),
        Objective("cka:dense", _cka_dense, best=1.0, worst=0.0, needs=frozenset({"dense"}), diverged_value=0.0),
        *(_ood_auroc(score) for score in sorted(OOD_SCORES, key=lambda score: score != "temperature")),
    )
}


def available_objectives() -> tuple[str, ...]:
    """Names that :func:`resolve_objectives` understands.

    Returns
    -------
    tuple of str
        ``accuracy`` (share of correct rows, classification), ``r2`` and ``mse`` (regression), all three on
        the validation rows of all folds pooled; ``active_neurons`` (share of mask bits set); ``cka``, short
        for ``cka:noise``, (mean over folds of the debiased CKA between the last hidden representation of
        clean and of noisy rows) and ``cka:dense`` (that between the pruned and the unpruned head);
        ``ood_auroc``, short for ``ood_auroc:temperature``, ``ood_auroc:msp``, ``ood_auroc:odin`` and
        ``ood_auroc:energy`` (classification: mean over folds of the area under the ROC curve for telling
        out-of-distribution rows from the validation rows by a score of
        :func:`moevoprune.objectives.ood.ood_score`). ``r2`` is bounded below by -1e3 and ``mse`` above by 1e6
        (variance of the targets + 1).
    """
    names = list(_BUILTIN)
    for alias, target in _ALIASES.items():
        names.insert(names.index(target), alias)
    return tuple(names)


def ood_scores_of(objectives: Sequence[Objective]) -> tuple[str, ...]:
    """Names of the OoD scores that built-in objectives use, in their order; whatever the objectives are called."""
    scores = [objective.function.score for objective in objectives if isinstance(objective.function, _OodAuroc)]
    return tuple(dict.fromkeys(scores))


def resolve_objectives(
    specs: Sequence[str | Objective | Callable[[Candidate], float]], task: str
) -> tuple[Objective, ...]:
    """Turn names, objectives and plain functions into objectives that fit the task.

    Parameters
    ----------
    specs : sequence of str, Objective or callable
        Names as in :func:`available_objectives`; :class:`Objective` instances, taken as they are; or
        functions of a :class:`Candidate`, which are maximised under their ``__name__`` (pass an
        :class:`Objective` to minimise one or to name it otherwise).
    task : {"classification", "regression"}
        What the targets are: class labels, or real numbers.

    Returns
    -------
    tuple of Objective
        In the order given. ``"cka"`` is ``"cka:noise"`` with the name ``"cka"``, ``"ood_auroc"`` is
        ``"ood_auroc:temperature"``.

    Raises
    ------
    InputError
        If the list is empty, holds a duplicate, an unknown name or something that is no objective, or an
        objective does not fit the task.
    """
    if task not in TASKS:
        raise InputError(f"task is {task!r}; give one of {', '.join(sorted(TASKS))}")
    if isinstance(specs, str):
        raise InputError(f"objectives: got the string {specs!r}; give a list, for example [{specs!r}]")
    if len(specs) == 0:
        raise InputError(
            f"objectives: the list is empty; name at least one of {', '.join(available_objectives())}"
        )
    objectives = tuple(_resolve(spec) for spec in specs)
    seen: dict[str, str] = {}
    for objective in objectives:
        key = _ALIASES.get(objective.name, objective.name)
        if key in seen:
            raise InputError(
                f"objectives: {objective.name!r} repeats {seen[key]!r}; list each objective once, "
                "or give an Objective another name"
            )
        seen[key] = objective.name
        if task not in objective.tasks:
            raise InputError(_misfit(objective.name, task))
    return objectives


def _resolve(spec: object) -> Objective:
    if isinstance(spec, Objective):
        return spec
    if isinstance(spec, str):
        name = _ALIASES.get(spec, spec)
        if name not in _BUILTIN:
            known = available_objectives()
            raise InputError(
                f"objectives: unknown name {spec!r}{nearest(spec, known) or ';'} choose among {', '.join(known)}"
            )
        return _BUILTIN[name] if name == spec else replace(_BUILTIN[name], name=spec)
    if callable(spec):
        called = getattr(spec, "__name__", None)
        if not isinstance(called, str):
            raise InputError(
                f"objectives: a {type(spec).__name__} has no __name__ to go by; wrap it in "
                "Objective(name=..., function=...)"
            )
        return Objective(called, spec)
    raise InputError(
        f"objectives: {spec!r} is a {type(spec).__name__}; give a name, a function of a Candidate, or an Objective"
    )


def _misfit(name: str, task: str) -> str:
    needed, given = "class labels", "real numbers"
    if task == "classification":
        needed, given = "real-valued targets", "class labels"
    alternatives = [
        other.name
        for other in _BUILTIN.values()
        # not those that need more than the data at hand
        if other.tasks == frozenset({task}) and other.name != name and not other.needs
    ]
    return f"objectives: {name!r} needs {needed} but the targets are {given}: use {' or '.join(alternatives)}"
