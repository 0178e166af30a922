"""Measurements of runs: made once, and read as they were written."""

from __future__ import annotations

import math

import pytest

from moevoprune.cli.config import parse_config
from moevoprune.cli.sweeping import SweepRun
from moevoprune.studies.measurements import measured


@pytest.fixture
def runs(tmp_path):
    config = parse_config({"data": {"features": "some.npz"}, "problem": {"encoding": "features"}}, "settings")
    found = []
    for seed in (1, 2):
        out = tmp_path / f"some-seed{seed}"
        out.mkdir()
        found.append(SweepRun("some", config.model_copy(update={"seed": seed}), out, "", 0, "guided"))
    return found


def test_each_is_measured_once_and_all_are_read(runs):
    calls, said = [], []

    def measure(run):
        calls.append(run.seed)
        return [
            {"what": "one, other", "count": 7 * run.seed, "share": 2 / 3},
            {"what": "none", "count": 0, "share": math.nan},
        ]

    measured(runs[1:], measure, "found.csv", 1)
    rows = measured(runs, measure, "found.csv", 1, said.append)
    assert calls == [2, 1]
    assert said == ["guided, some, seed 1: measured   (1/1)"]
    known = {"data": "some", "encoding": "features"}
    assert rows[0] == {**known, "seed": 1, "what": "one, other", "count": 7.0, "share": 0.666667}
    assert rows[2] == {**known, "seed": 2, "what": "one, other", "count": 14.0, "share": 0.666667}
    assert [row["seed"] for row in rows] == [1, 1, 2, 2]
    assert math.isnan(rows[3]["share"])


def test_what_fails_leaves_nothing(runs):
    def fail(run):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measured(runs, fail, "found.csv", 1)
    assert not list(runs[0].out.iterdir())
