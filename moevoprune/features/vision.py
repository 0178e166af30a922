"""What everything that uses torchvision needs: importing it, and building networks without global randomness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from moevoprune.errors import InputError
from moevoprune.features.decoding import silenced_warnings

__all__ = ["import_torchvision", "own_randomness", "reason_of"]

# a fixed start makes random weights repeatable; the number means nothing
SEED = 20_230_210


def import_torchvision(wanted_by: str = "backbones") -> ModuleType:
    """Import torchvision with its models, transforms and data sets.

    Parameters
    ----------
    wanted_by
        What needs it, for the message.

    Raises
    ------
    InputError
        It is missing, or does not fit the installed torch.
    """
    try:
        # versions of torch and torchvision that do not match warn, or fail in any way
        with silenced_warnings():
            import torchvision
            import torchvision.datasets
            import torchvision.models.feature_extraction
            import torchvision.transforms.functional
    except Exception as error:  # a torchvision built for another torch fails in many ways, not only ImportError
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{wanted_by} need a working torchvision ({reason}): "
            "pip install torch torchvision in matching versions"
        ) from None
    module: ModuleType = torchvision
    return module


@contextmanager
def own_randomness() -> Iterator[None]:
    """Draw from a generator with a fixed seed, and give the global one back as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the CUDA generators, which are not given back
        torch.default_generator.manual_seed(SEED)
        yield


def reason_of(error: BaseException) -> str:
    """What an error of torch says, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # load_state_dict says in its first line only that something is wrong
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines[0] if lines else "")
    # the traced network does not know numbers yet when it writes what it wants to say
    text = re.sub(r",? but got Proxy\([^)]*\)", "", text)
    return text[:200] or type(error).__name__
