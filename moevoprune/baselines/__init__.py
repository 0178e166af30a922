"""Baselines: cheap ways to choose masks, all behind one interface (training data and sizes in, masks out).

To add a baseline that ranks bits, write a function from :class:`RankingData` to one score per bit, enter it in
``RANKINGS`` in ``rankings.py``, and add ``Ranked("its_name")`` to ``BASELINES`` in ``methods.py``. Any other
baseline is a subclass of :class:`Baseline` with a ``name`` and a ``_choose`` method, entered in ``BASELINES`` too.
"""

from moevoprune.baselines.data import RankingData
from moevoprune.baselines.methods import (
    BASELINES,
    Baseline,
    BestFixed,
    GradualMagnitude,
    RandomBest,
    Ranked,
    default_sizes,
    make_baseline,
)
from moevoprune.baselines.rankings import RANKINGS, combine, rank_bits, top_bits

__all__ = [
    "BASELINES",
    "RANKINGS",
    "Baseline",
    "BestFixed",
    "GradualMagnitude",
    "RandomBest",
    "Ranked",
    "RankingData",
    "combine",
    "default_sizes",
    "make_baseline",
    "rank_bits",
    "top_bits",
]
