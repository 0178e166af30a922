"""Claims about constructed networks are answered by their rules."""

from __future__ import annotations

import re

import pytest

from moevoprune.construction.comparison import MethodScore
from moevoprune.construction.records import ComparisonRecord
from moevoprune.studies.constructed_networks_claims import beats_original, beats_scratch, no_loss

LARGE = (0.90, 0.91, 0.92, 0.93)
GAIN, LOSS = (0.92, 0.932, 0.941, 0.951), (0.88, 0.891, 0.901, 0.909)
# higher, but by too different amounts
UNSURE = (0.901, 0.912, 0.925, 0.99)
LESS_UNSURE = (0.899, 0.908, 0.915, 0.86)


def record(refined_size=200, **tests):
    sizes = {"large": 1000, "refined": refined_size, "best_scoring": 300, "scratch": 200}
    scores = tuple(MethodScore(method, (5,), sizes[method], test) for method, test in tests.items())
    return ComparisonRecord("accuracy", 1.0, 0.5, scores)


def records(refined, large=LARGE, scratch=LARGE, refined_size=200):
    return [
        record(refined_size, large=a, refined=b, best_scoring=b, scratch=c)
        for a, b, c in zip(large, refined, scratch, strict=True)
    ]


@pytest.mark.parametrize(
    ("sets", "counts", "answer"),
    [
        ([GAIN], (4, 4, 0, 0, 1, 1, 0), "holds"),
        # one gain is enough where most of the others are higher too
        ([GAIN, UNSURE], (8, 8, 0, 0, 2, 1, 0), "holds"),
        # a loss elsewhere
        ([GAIN, UNSURE, LOSS], (12, 8, 0, 4, 3, 1, 1), "holds in part"),
        # half is not more than half
        ([GAIN, LARGE], (8, 4, 4, 0, 2, 1, 0), "holds in part"),
        ([GAIN, LESS_UNSURE], (8, 4, 0, 4, 2, 1, 0), "does not hold"),
        # higher everywhere, and shown nowhere
        ([UNSURE], (4, 4, 0, 0, 1, 0, 0), "does not hold"),
        ([LARGE], (4, 0, 4, 0, 1, 0, 0), "does not hold"),
        ([LOSS], (4, 0, 0, 4, 1, 0, 1), "does not hold"),
    ],
)
def test_most_must_beat_the_original(sets, counts, answer):
    text = beats_original({f"set{place}": records(values) for place, values in enumerate(sets)})
    for line, claim in (("Best-scoring threshold: ", "The claim"), ("Smallest within the", "Read so, the claim")):
        (sentence,) = (part for part in text.splitlines() if part.startswith(line))
        assert tuple(map(int, re.findall(r"\d+", sentence))) == counts
        assert sentence.endswith(f"**{claim} {answer}.**")


def test_the_two_thresholds_are_judged_apart():
    made = [
        record(large=a, refined=b, best_scoring=c, scratch=a) for a, b, c in zip(LARGE, LOSS, GAIN, strict=True)
    ]
    text = beats_original({"made": made})
    assert "**The claim holds.**" in text
    assert "**Read so, the claim does not hold.**" in text


def test_losses_are_held_to_the_margin():
    # within .01, and two points below
    near = {"near": records((0.900, 0.911, 0.921, 0.929))}
    far = {"far": records(LOSS)}
    assert "**The claim holds** (1 of 1 data sets)" in no_loss(near)
    assert "**The claim does not hold** (0 of 1 data sets)" in no_loss(far)
    assert "**The claim holds in part** (1 of 2 data sets)" in no_loss({**near, **far})


def test_parameters_that_stay_are_no_success():
    assert "**The claim holds**" in no_loss({"made": records(LARGE, refined_size=299)})
    assert "**The claim does not hold**" in no_loss({"made": records(LARGE, refined_size=301)})


def test_the_network_from_scratch_must_be_beaten_by_a_test():
    ahead, even = records(GAIN), records(UNSURE)
    assert "**The claim holds** (1 of 1 data sets)" in beats_scratch({"ahead": ahead})
    assert "**The claim does not hold** (0 of 1 data sets)" in beats_scratch({"even": even})
    assert "**The claim holds in part** (1 of 2 data sets)" in beats_scratch({"ahead": ahead, "even": even})
