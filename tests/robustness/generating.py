"""How inputs are generated: how many, the same ones each time, and with an end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

__all__ = ["EXAMPLES", "REPEATABLE", "arrays_of_any_kind", "in_time"]

EXAMPLES = {
    "npz": 1200, "feature_folder": 1000, "toml": 900, "csv": 250, "journal": 1300, "front": 500, "heads": 500,
    "predictions": 400, "member_maps": 600, "record": 600, "weights": 600, "pickled_weights": 400, "network": 500,
    "constructed": 600, "exported": 500, "filter_front": 600, "filter_scores": 400, "filter_cost": 200,
    "any bytes": 30, "features": 200, "settings": 300, "tables": 60, "journals": 150, "command lines": 150,
    "individuals": 300,
}  # fmt: skip
"""How many inputs each test generates; of any bytes, for each reader."""

REPEATABLE: dict[str, Any] = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
}

_SECONDS_FOR_ONE = 60.0


_DRAWN = ("<f4", "<f8", "<f2", "<i8", "<u8", "|u1", "|b1", "<c16", "<U3", "|S2", "<M8[s]", "<m8[D]")
_FILLED = ("|V3", "<f4,<i2", "|O", "<U0")


def arrays_of_any_kind() -> st.SearchStrategy[np.ndarray]:
    """Small arrays of any number of dimensions up to 3, of everything that NumPy can hold."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    filled = st.builds(lambda kind, shape: np.zeros(shape, dtype=kind), st.sampled_from(_FILLED), shapes)
    return st.sampled_from(_DRAWN).flatmap(lambda kind: hnp.arrays(kind, shapes)) | filled


class HangError(Exception):
    """One input took a minute."""


@contextmanager
def in_time(seconds: float = _SECONDS_FOR_ONE) -> Iterator[None]:
    """Stop what hangs, where the system can."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError(f"an input took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
