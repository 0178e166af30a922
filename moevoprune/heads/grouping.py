"""Which heads are trained side by side, and in which form: functions of masks and row sets alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from moevoprune.heads.batches import n_steps
from moevoprune.heads.encodings import HeadMask, HeadShape
from moevoprune.heads.layers import padded_width
from moevoprune.heads.settings import HeadSettings
from moevoprune.heads.streaming import groups_that_fit

__all__ = ["Form", "Grouping"]

Form = Literal["auto", "dual", "gathered"]
Rows = npt.NDArray[np.int64]

# constants of the cost model, in the time of one multiply-add of a matrix product: one element read,
# changed and written in a plain pass over an array costs about as much as this many
_PASS_COST = 9.0
# the Gram matrix must fit comfortably on every device, and the choice must not depend on free memory
_LARGEST_GRAM_BYTES = 2**30
# heads are trained side by side while their changing weights fit into a core's share of the cache; beyond some
# number of them nothing is gained any more
_STACK_BYTES = 2 * 2**20
_MOST_HEADS = 12
# with several processes, each gets at least this many groups of individuals, so that none waits long for another
_TASKS_PER_JOB = 4


@dataclass(frozen=True)
class Grouping:
    """How the heads of a population are divided into groups that are trained together.

    Form, padded size and heads together follow from one mask and the row sets, never from the other masks: they
    decide on the last digits of weights.

    Attributes
    ----------
    shape
        Widths of the dense head.
    settings
        How heads are trained.
    n_rows
        Rows of the training part.
    dtype
        Number format of weights.
    form
        ``"auto"`` to choose by cost, or the form of the first layer for all masks that have it.
    streamed
        Whether rows are read batch by batch.
    jobs
        Processes that the groups are for.
    """

    shape: HeadShape
    settings: HeadSettings
    n_rows: int
    dtype: torch.dtype = torch.float32
    form: Form = "auto"
    streamed: bool = False
    jobs: int = 1

    def chosen_form(self, mask: HeadMask, n_heads: int, rows_per_head: int) -> Literal["dual", "gathered"]:
        """Cheaper exact form for a mask; a function of the mask and the settings alone.

        Parameters
        ----------
        mask
            What the heads keep.
        n_heads
            Heads with this mask: one per row set.
        rows_per_head
            Rows that a head trains on.
        """
        settings = self.settings
        if settings.optimiser != "sgd" or settings.weight_decay or mask.connections is not None:
            return "gathered"
        if self.streamed:
            return "gathered"
        if self.form != "auto":
            return self.form
        n_rows, n_active = self.n_rows, len(mask.inputs)
        if n_rows**2 * 8 > _LARGEST_GRAM_BYTES:
            return "gathered"
        units = self._first_units(mask)
        batch = min(settings.batch_size, rows_per_head)
        steps = n_heads * settings.epochs * n_steps(rows_per_head, batch)
        gathered = steps * n_active * units * (2 * batch + 2 * _PASS_COST)
        dual = steps * n_rows * units * (batch + _PASS_COST) + (n_heads + 1) * n_active * n_rows * units
        if n_active < self.shape.n_features:
            dual += n_rows**2 * min(n_active, self.shape.n_features - n_active) / 2
        return "dual" if dual < gathered else "gathered"

    def form_of(self, mask: HeadMask, row_sets: Sequence[Rows]) -> Literal["dual", "gathered"]:
        """Form of a mask's heads on these row sets."""
        return self.chosen_form(mask, len(row_sets), max(len(rows) for rows in row_sets))

    def size_of(self, mask: HeadMask, row_sets: Sequence[Rows]) -> tuple[object, ...]:
        """What must be equal for heads to be stacked: form and padded widths."""
        form = self.form_of(mask, row_sets)
        everything = len(mask.inputs) == self.shape.n_features
        inputs = self.input_width(mask) if form == "gathered" else 0
        hidden = tuple(padded_width(len(units)) for units in mask.hidden)
        return form, everything, inputs, hidden, mask.connections is None

    def input_width(self, mask: HeadMask) -> int:
        """Padded rows of the first layer's gathered weights: active inputs and the bias."""
        return padded_width(len(mask.inputs) + (self.settings.bias or not mask.hidden))

    def heads_together(self, mask: HeadMask, row_sets: Sequence[Rows]) -> int:
        """Heads whose first layers fit into the cache, at least 1: the same for all of equal padded size."""
        length = self.n_rows if self.form_of(mask, row_sets) == "dual" else self.input_width(mask)
        units = padded_width(self._first_units(mask))
        with_momentum = 2 * self.dtype.itemsize * length * units
        return min(max(_STACK_BYTES // max(with_momentum, 1), 1), _MOST_HEADS)

    def groups(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]) -> list[list[int]]:
        """Numbers of the masks that are trained side by side.

        In memory these are masks of equal padded size, a few at a time; of streamed rows, which are read once
        for a whole group, as many as fit in memory.

        Parameters
        ----------
        masks
            One per individual.
        row_sets
            Row numbers that a head trains on: one set per fold.
        """
        if self.streamed:
            return self._streamed_groups(masks, row_sets)
        alike: dict[tuple[object, ...], list[int]] = {}
        for number, mask in enumerate(masks):
            alike.setdefault(self.size_of(mask, row_sets), []).append(number)
        groups = []
        share = -(-len(masks) // (_TASKS_PER_JOB * self.jobs)) if self.jobs > 1 else len(masks)
        for numbers in alike.values():
            together = max(self.heads_together(masks[numbers[0]], row_sets) // len(row_sets), 1)
            together = min(together, share)
            groups += [numbers[start : start + together] for start in range(0, len(numbers), together)]
        return sorted(groups)

    def _streamed_groups(self, masks: Sequence[HeadMask], row_sets: Sequence[Rows]) -> list[list[int]]:
        alike: dict[int, list[int]] = {}
        for number, mask in enumerate(masks):
            # the same folds share their steps
            folds_together = min(self.heads_together(mask, row_sets), len(row_sets))
            alike.setdefault(folds_together, []).append(number)
        most = -(-len(masks) // self.jobs)
        return [
            group
            for numbers in alike.values()
            for group in groups_that_fit(numbers, masks, self.shape.n_outputs, len(row_sets), self.dtype, most)
        ]

    def _first_units(self, mask: HeadMask) -> int:
        return len(mask.hidden[0]) if mask.hidden else self.shape.n_outputs
