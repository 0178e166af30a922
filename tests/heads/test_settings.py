"""Head settings: presets, validation, step sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moevoprune.errors import InputError
from moevoprune.heads.settings import PRESETS, HeadSettings


def test_the_default_preset_is_the_default() -> None:
    assert HeadSettings.preset("default") == HeadSettings()


def test_the_paper_preset_is_the_published_protocol() -> None:
    settings = HeadSettings.preset("paper")
    assert settings.model_dump() == {
        "hidden": (512,),
        "bias": False,
        "start": "dense",
        "standardise": False,
        "optimiser": "sgd",
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.0,
        "learning_rate_decay": 1e-6,
        "schedule": "constant",
        "epochs": 600,
        "batch_size": 32,
        "early_stop": "training",
        "patience": 10,
        "min_delta": 1e-5,
    }


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_can_be_changed_and_keep_the_rest(name: str) -> None:
    changed = HeadSettings.preset(name, epochs=7)
    assert changed.epochs == 7
    assert changed.model_dump(exclude={"epochs"}) == HeadSettings.preset(name).model_dump(exclude={"epochs"})
    assert HeadSettings.preset(name).epochs != 7


def test_unknown_presets_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'papr'.*default, paper"):
        HeadSettings.preset("papr")


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("learning_rat", "learning_rate"),
        ("optimizer", "optimiser"),
        ("hiden", "hidden"),
        ("epoch", "epochs"),
        ("standardize", "standardise"),
        ("min_delt", "min_delta"),
    ],
)
def test_unknown_keys_get_the_nearest(key: str, suggestion: str) -> None:
    with pytest.raises(InputError) as caught:
        HeadSettings.preset("default", **{key: 1})
    message = str(caught.value)
    assert message == f"head settings: unknown key {key!r}; did you mean {suggestion!r}?"


def test_keys_like_no_other_get_the_list() -> None:
    with pytest.raises(InputError) as caught:
        HeadSettings.preset("default", zzz=1)
    assert "\n" not in str(caught.value)
    assert all(key in str(caught.value) for key in HeadSettings.model_fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": (0,)},
        {"hidden": (8, -1)},
        {"hidden": (8, 8, 8)},
        {"hidden": (8.0,)},
        {"hidden": "64"},
        {"hidden": True},
        {"hidden": [True]},
        {"hidden": None},
        {"bias": 1},
        {"start": "sparse"},
        {"optimiser": "rmsprop"},
        {"learning_rate": 0.0},
        {"learning_rate": -0.1},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"learning_rate": "0.1"},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"momentum": math.nan},
        {"weight_decay": -1.0},
        {"weight_decay": math.inf},
        {"learning_rate_decay": -1e-6},
        {"learning_rate_decay": math.nan},
        {"schedule": "linear"},
        {"epochs": 0},
        {"epochs": 2.5},
        {"batch_size": 0},
        {"early_stop": "test"},
        {"patience": 0},
        {"min_delta": -1e-9},
    ],
    ids=str,
)
def test_bad_values_are_refused_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        HeadSettings.preset("default", **changes)
    message = str(caught.value)
    (key,) = changes
    assert "\n" not in message
    assert message.startswith(f"head settings: {key}")
    assert "http" not in message


@pytest.mark.parametrize(
    ("given_as", "meant"),
    [([], ()), ([64], (64,)), ([64, 32], (64, 32)), (64, (64,)), ((5,), (5,)), ((), ())],
    ids=str,
)
def test_hidden_widths_become_a_tuple(given_as: Any, meant: tuple[int, ...]) -> None:
    assert HeadSettings(hidden=given_as).hidden == meant


def test_settings_are_frozen_and_hashable() -> None:
    settings = HeadSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.epochs = 3  # type: ignore[misc]
    assert settings == HeadSettings()
    assert hash(settings) == hash(HeadSettings())
    assert len({settings, HeadSettings(), HeadSettings(epochs=3)}) == 2


def test_whole_numbers_do_for_reals() -> None:
    assert HeadSettings(learning_rate=1, momentum=0, weight_decay=0).learning_rate == 1.0


def test_settings_survive_their_own_dump() -> None:
    settings = HeadSettings.preset("paper", hidden=(64, 32))
    assert HeadSettings(**settings.model_dump()) == settings
    assert HeadSettings(**settings.model_dump(mode="json")) == settings


@given(
    rate=st.floats(1e-6, 10.0),
    decay=st.sampled_from([0.0, 1e-6, 0.5]),
    epochs=st.integers(1, 6),
    steps=st.integers(1, 7),
)
def test_step_sizes_have_their_closed_forms(rate: float, decay: float, epochs: int, steps: int) -> None:
    def rates(schedule: str) -> list[float]:
        settings = HeadSettings.preset(
            "default", learning_rate=rate, learning_rate_decay=decay, epochs=epochs, schedule=schedule
        )
        return settings.learning_rates(steps)

    total = epochs * steps
    constant = [rate / (1 + decay * t) for t in range(total)]
    assert rates("constant") == pytest.approx(constant, rel=1e-12)
    half_cosine = [c * math.cos(math.pi * t / (2 * total)) ** 2 for t, c in enumerate(constant)]
    assert rates("cosine") == pytest.approx(half_cosine, rel=1e-9)
    assert rates("cosine")[0] == rates("constant")[0] == rate
    assert min(rates("cosine")) > 0
