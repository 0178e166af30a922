"""What EvoPruneDeepTL (arXiv 2202.03844) reports of its encodings on LEAVES.

ResNet-50 features, 512 units per hidden layer, and a fitness of test accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AT_FS_DENSITY", "PUBLISHED", "PublishedHead", "is_leaves"]


@dataclass(frozen=True)
class PublishedHead:
    """An evolved head.

    Attributes
    ----------
    accuracy
        On the test rows, in [0, 1].
    active
        Active bits in percent.
    dense
        Test accuracy of the dense head with as many layers.
    """

    accuracy: float
    active: int
    dense: float


PUBLISHED = {
    "1 layer": PublishedHead(0.935, 38, 0.923),
    "FC1": PublishedHead(0.937, 28, 0.919),
    "FC2": PublishedHead(0.935, 12, 0.919),
    "both layers": PublishedHead(0.936, 34, 0.919),
    "FS": PublishedHead(0.943, 59, 0.923),
    "connections": PublishedHead(0.932, 45, 0.923),
}
"""By the encoding."""

AT_FS_DENSITY = {"weight pruning": 0.947, "polynomial decay": 0.940, "neuron pruning": 0.946}
"""Test accuracy of the baselines with as many active bits as the head that FS evolved."""


def is_leaves(name: str) -> bool:
    """Whether a data set goes by the name of the papers' LEAVES."""
    return "leaves" in name.casefold()
