"""Devices, and what makes results on them repeatable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from moevoprune.errors import InputError

__all__ = ["reproducible", "resolve_device", "single_threaded", "usable_cores"]


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"`` into a device.

    Raises
    ------
    InputError
        The name is no device, or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda") or (resolved.type == "cpu" and resolved.index):
        raise InputError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (resolved.index or 0):
            raise InputError(f"device {device!r} is not available ({count} CUDA devices here): use auto or cpu")
    return resolved


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Make tensor results depend on nothing but their inputs: one thread on CPU, full float32 on CUDA.

    One thread is also the faster choice for the small products of this package: two that wait for one another
    on a busy machine take several times as long.

    Parameters
    ----------
    device
        Where the work is done.
    """
    if device.type == "cpu":
        with single_threaded(), torch.no_grad():
            yield
        return
    tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = False
        with torch.no_grad():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32


@contextmanager
def single_threaded() -> Iterator[None]:
    """Compute with one thread on the CPU, so that no sum depends on the number of cores; gradients are as outside.

    Where several threads of Python compute at once, enter it before they start: they take the number over.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def usable_cores() -> int:
    """Cores that this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
