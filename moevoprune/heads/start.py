"""Start weights: one seeded draw for the dense head, of which every masked head takes its part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.settings import HeadSettings

__all__ = ["StartWeights"]

Floats = npt.NDArray[np.float64]


class StartWeights:
    """Glorot-uniform start weights of masked heads.

    All heads of a seed share one uniform draw on (-1, 1) per weight of the dense head; a masked head takes the
    entries of its own weights times its own Glorot limit ``sqrt(6 / (fan_in + fan_out))`` (Glorot & Bengio
    2010). Biases start at 0.

    Parameters
    ----------
    shape
        Widths of the dense head.
    settings
        ``settings.start`` says whether the fans are those of the masked or of the dense head.
    seed
        Seed of the draw.

    Attributes
    ----------
    draws
        The draw of each layer of the dense head, shape (inputs, units).
    """

    def __init__(self, shape: HeadShape, settings: HeadSettings, seed: int) -> None:
        self._widths = shape.widths
        self._active = settings.start == "active"
        self.draws = [
            np.random.default_rng([seed, 0x57A7, layer]).uniform(-1.0, 1.0, size=(fan_in, fan_out))
            for layer, (fan_in, fan_out) in enumerate(zip(self._widths[:-1], self._widths[1:], strict=True))
        ]

    def weights(self, mask: HeadMask) -> list[Floats]:
        """Start weights of the physically small head, one array (kept inputs, kept units) per layer."""
        kept = [mask.inputs, *mask.hidden, np.arange(self._widths[-1])]
        weights = []
        for layer, draw in enumerate(self.draws):
            rows, columns = kept[layer], kept[layer + 1]
            limit: Floats = np.asarray(self.limit(layer, len(rows), len(columns)))
            # whole rows are copied several times faster than single entries
            part = draw[rows] if len(columns) == draw.shape[1] else draw[np.ix_(rows, columns)]
            if mask.connections is not None and layer < len(mask.connections):
                connections = mask.connections[layer]
                if self._active:
                    limit = np.sqrt(6.0 / (connections.sum(axis=0) + len(columns)))
                part = part * connections
            weights.append(part * limit)
        return weights

    def limit(self, layer: int, n_rows: int, n_columns: int) -> float:
        """Glorot limit of a layer of which so many inputs and units are kept, all connections between them."""
        if not self._active:
            n_rows, n_columns = self._widths[layer], self._widths[layer + 1]
        return float(np.sqrt(6.0 / max(n_rows + n_columns, 1)))
