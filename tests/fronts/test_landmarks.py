"""Members worth naming: the same ones in a figure and on a page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plot_data import AXES, make_front

from moevoprune.errors import InputError
from moevoprune.fronts.front import Axis
from moevoprune.fronts.landmarks import CLOSE, find_landmarks, staircase
from moevoprune.fronts.plots import plot_front
from moevoprune.fronts.report.members import named_members
from moevoprune.fronts.wording import counted, short_number


def with_scores(active, accuracy):
    """A front of accuracy and size alone, and members that need not be non-dominated."""
    front = make_front(len(active), n_obj=2, active=np.array(active))
    values = np.column_stack([accuracy, np.array(active) / 128])
    return replace(front, values=values, F=values * [-1, 1] + [1, 0], test=values[:, 0])


@pytest.mark.parametrize("seed", range(20))
def test_against_a_loop_over_all_members(seed):
    generator = np.random.default_rng(seed)
    active = np.sort(generator.integers(1, 12, 30))
    # exact in binary, so that no difference is about CLOSE
    accuracy = generator.integers(900, 960, 30) / 1024
    found = find_landmarks(with_scores(active, accuracy))
    members = range(30)
    assert found.quality == "accuracy"
    assert accuracy[found.best] == max(accuracy)
    assert active[found.best] == min(active[i] for i in members if accuracy[i] == max(accuracy))
    near = [i for i in members if accuracy[i] >= max(accuracy) - CLOSE]
    assert active[found.close] == min(active[i] for i in near)
    # of the members of that size, the best
    assert accuracy[found.close] == max(accuracy[i] for i in near if active[i] == active[found.close])
    assert accuracy[found.smallest] == max(accuracy[i] for i in members if active[i] == min(active))
    stairs = {
        (active[i], accuracy[i])
        for i in members
        if all(accuracy[j] < accuracy[i] for j in members if active[j] < active[i])
        and all(accuracy[j] <= accuracy[i] for j in members if active[j] == active[i])
    }
    assert {(active[i], accuracy[i]) for i in found.stairs} == stairs
    assert len(found.stairs) == len(stairs)


def test_values_that_are_not_finite_are_on_no_stair():
    losses = np.array([np.nan, 0.5, np.inf, 0.2])
    assert staircase(np.array([1, 2, 3, 4]), losses).tolist() == [1, 3]
    front = with_scores([1, 2], [0.5, 0.6])
    with np.errstate(invalid="ignore"):
        found = find_landmarks(replace(front, F=np.array([[np.inf, 0.1], [np.inf, 0.2]])))
    assert (found.close, found.best, found.smallest) == (found.knee,) * 3
    empty = replace(front, masks=front.masks[:0], F=front.F[:0])
    with pytest.raises(InputError, match="no members"):
        find_landmarks(empty)


def test_figure_and_page_name_the_same_members():
    # the first objective is not the test metric's, and two members have one size
    front = make_front(40, axes=(Axis("cka", True), AXES[1], Axis("accuracy", True)))
    front = replace(front, active=np.repeat(np.arange(1, 21), 2))
    found = find_landmarks(front)
    assert found.quality == "accuracy"
    assert sorted(named_members(front)) == sorted({found.knee, found.close, found.best})
    ax = plot_front(front)
    assert ax.get_ylabel().startswith("accuracy")
    labels = [text.get_text() for text in ax.texts]
    for role, member in (("knee", found.knee), ("best", found.best), ("smallest", found.smallest)):
        value = short_number(front.values[member, 2])
        assert any(
            role in text and f"{counted(front, int(front.active[member]))}, {value}" in text for text in labels
        )
