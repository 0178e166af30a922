"""Made-up data that figures are drawn from; a module of its own, as the picture tests draw the same."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from moevoprune.fronts.comparison import MethodResult
from moevoprune.fronts.ensemble_tables import WindowResult
from moevoprune.fronts.explanation import Explanation
from moevoprune.fronts.front import Axis, Front
from moevoprune.fronts.robustness import RobustnessCurve
from moevoprune.heads.head import TrainedHead

AXES = (Axis("accuracy", True), Axis("active_neurons", False), Axis("cka", True), Axis("cka:dense", True))
HEAD = TrainedHead(
    task="classification",
    n_features=1,
    inputs=np.array([0]),
    weights=(np.ones((1, 2), np.float32),),
    biases=(None,),
    mean=np.zeros(1, np.float32),
    scale=np.ones(1, np.float32),
)


def make_front(n=20, n_obj=3, n_bits=128, low=1, **changes):
    """Accuracy and CKA rise with size, with some noise; members need not be non-dominated."""
    rng = np.random.default_rng(n)
    active = np.sort(rng.integers(low, n_bits + 1, n))
    share = active / n_bits
    values = np.column_stack(
        [0.3 + 0.6 * share**0.3 - 0.05 * rng.random(n), share, 0.5 + 0.3 * share + 0.1 * rng.random(n), share**2]
    )[:, :n_obj]
    up = np.array([axis.maximise for axis in AXES[:n_obj]])
    generations = np.arange(1.0, 6.0)
    front = Front(
        axes=AXES[:n_obj],
        encoding="neurons",
        masks=np.arange(n_bits) < active[:, None],
        active=active,
        values=values,
        F=np.where(up, 1 - values, values),
        ideal=np.zeros(n_obj),
        corner=np.ones(n_obj),
        heads=(HEAD,) * n,
        test_metric="accuracy",
        test=values[:, 0] + 0.02 * rng.normal(size=n),
        dense_values=np.array([0.9, 1.0, 0.85, 1.0])[:n_obj],
        dense_test=0.91,
        dense_head=HEAD,
        history={
            "number": generations,
            "evaluations": 20 * generations,
            "hypervolume": 0.7 - 0.3 / generations,
            "best": 0.9 - 0.1 / generations,
        },
        class_names=("$a$", "b_c"),
    )
    return replace(front, **changes)


def constant_front():
    return make_front(values=np.full((20, 3), 0.5), F=np.full((20, 3), 0.5), dense_values=np.full(3, 0.5))


def regression_front():
    front = make_front(axes=(Axis("mse", False), *AXES[1:3]), encoding="features+neurons", test_metric="r2")
    errors = 300 * front.F[:, :1]
    return replace(
        front,
        values=np.hstack([errors, front.values[:, 1:]]),
        F=np.hstack([errors, front.F[:, 1:]]),
        dense_values=np.array([40.0, 1.0, 0.8]),
    )


def make_results():
    """Three methods with two seeds each; one of them has nothing but the dense head."""
    results = []
    for method, ceiling in (("guided", 0.92), ("anova", 0.85), ("dense", 0.9)):
        for seed in (1, 2):
            active = np.array([128]) if method == "dense" else np.array([1, 3, 10, 40, 100]) + seed
            scores = ceiling - 0.5 / active**0.7
            results.append(
                MethodResult("some $data", method, seed, 128, active, scores, scores + 0.01 * seed, 9, 1.0)
            )
    return results


def make_windows():
    """Eight windows; the third holds no members."""
    windows = []
    for number in range(8):
        soft = math.nan if number == 2 else 0.9 + 0.004 * number
        offsets = {"hard": -0.006, "best_member": -0.012, "best_by_validation": -0.03, "mean_member": -0.05}
        values = {name: soft + offset + 0.002 * (number % 3) for name, offset in offsets.items()}
        members = 0 if number == 2 else 10 + number
        windows.append(
            WindowResult(low=50 + 5 * number, high=60 + 5 * number, members=members, soft=soft, **values)
        )
    return windows


def make_curves(kinds=("feature_noise",), names=("knee", "best", "member 7", "dense", "ensemble")):
    """Accuracy falls by severity, for every name from another level."""
    severities = (0.0, 0.5, 1.0, 2.0)
    return [
        RobustnessCurve(
            name,
            kind,
            severities,
            tuple(0.9 - 0.02 * place - 0.05 * (k + 1) * severity for severity in severities),
            (0.03,) * 4,
        )
        for k, kind in enumerate(kinds)
        for place, name in enumerate(names)
    ]


def make_explanation():
    """Twelve features, ten members, importance measured."""
    members = np.array([10, 9, 9, 7, 5, 5, 3, 1, 0, 0, 2, 4])
    return Explanation(
        encoding="features",
        n_members=10,
        quality="accuracy",
        members=members,
        weight=members / 8,
        importance=members**2 / 400,
        mean_quality=np.full(12, 0.5),
        units=None,
        prunes_features=True,
    )


def make_runs():
    """Fronts of three seeds; the smallest member of the last is larger than those of the others."""
    fronts = []
    for seed in range(3):
        active = np.sort(
            np.random.default_rng(seed).choice(np.arange(1 + 5 * (seed == 2), 100), 12, replace=False)
        )
        front = make_front(12, active=active)
        scores = 0.5 + 0.4 * (active / 128) ** 0.3 + 0.02 * seed
        values = np.column_stack([scores, active / 128, front.values[:, 2]])
        losses = np.column_stack([1 - scores, active / 128, 1 - values[:, 2]])
        fronts.append(
            replace(front, masks=np.arange(128) < active[:, None], values=values, F=losses, test=scores - 0.05)
        )
    return fronts
