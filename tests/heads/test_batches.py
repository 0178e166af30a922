"""Plans of mini-batches: each row once an epoch, and prepared epochs within one budget."""

from __future__ import annotations

import numpy as np
import torch

from moevoprune.heads.batches import BatchPlan, Step, StepCache, epoch_order

TARGETS = torch.eye(3)[torch.arange(50) % 3]
ROW_SETS = [np.arange(40), np.arange(12, 50)]


def same(ours: list[Step], theirs: list[Step]) -> bool:
    return all(
        torch.equal(a.rows, b.rows) and torch.equal(a.targets, b.targets)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_an_epoch_visits_each_row_once_in_its_order() -> None:
    plan = BatchPlan(ROW_SETS, TARGETS, 16, seed=3)
    for epoch in range(2):
        for fold, rows in enumerate(ROW_SETS):
            visited: list[int] = []
            for step in plan.epoch(epoch):
                batch = step.rows.view(step.shape)[fold][step.real[fold] > 0].numpy()
                np.testing.assert_array_equal(step.targets[fold].T[step.real[fold] > 0], TARGETS[batch])
                visited += batch.tolist()
            assert visited == rows[epoch_order(len(rows), 3, epoch)].tolist()


def test_equal_plans_share_their_epochs_and_others_do_not() -> None:
    cache = StepCache()
    plan = BatchPlan(ROW_SETS, TARGETS, 16, 3, cache=cache)
    equal = BatchPlan([rows.copy() for rows in ROW_SETS], TARGETS, 16, 3, cache=cache)
    assert equal.epoch(0) is plan.epoch(0)
    changed = [
        BatchPlan(ROW_SETS[:1], TARGETS, 16, 3, cache=cache),
        BatchPlan(ROW_SETS, TARGETS, 20, 3, cache=cache),
        BatchPlan(ROW_SETS, TARGETS, 16, 4, cache=cache),
        BatchPlan(ROW_SETS, TARGETS, 16, 3, 2, cache=cache),
    ]
    epochs = [plan.epoch(0), plan.epoch(1), *(other.epoch(0) for other in changed)]
    assert len({id(epoch) for epoch in epochs}) == len(epochs)


def test_plans_used_longest_ago_make_room() -> None:
    cache = StepCache(limit_bytes=100)
    epoch: list[Step] = []
    for plan in ("a", "b"):
        for number in range(2):
            cache.keep(plan, number, epoch, 20)
    assert cache.find("a", 0) is epoch
    cache.keep("c", 0, epoch, 30)
    assert cache.used_bytes == 70
    assert cache.find("b", 0) is None
    assert cache.find("b", 1) is None
    assert cache.find("a", 1) is epoch
    # a plan displaces all others, but not what it has kept itself, and nobody for what does not fit anyway
    for number in range(2, 8):
        cache.keep("a", number, epoch, 20)
    cache.keep("d", 0, epoch, 101)
    assert [cache.find("a", number) is epoch for number in range(8)] == [True] * 5 + [False] * 3
    assert cache.find("c", 0) is None
    assert cache.used_bytes == 100


def test_without_room_an_epoch_is_prepared_again() -> None:
    plan = BatchPlan(ROW_SETS, TARGETS, 16, 3, cache=StepCache(limit_bytes=0))
    first = plan.epoch(1)
    again = plan.epoch(1)
    assert again is not first
    assert same(again, first)
