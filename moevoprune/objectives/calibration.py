"""Whether a classifier is right as often as it says it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moevoprune.errors import InputError, whole_number

__all__ = ["expected_calibration_error"]


def expected_calibration_error(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[Any], bins: int = 15
) -> float:
    r"""Expected calibration error of the predicted class (Guo et al., 2017, eq. 3).

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{n} \left| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \right|

    Rows are put into bins of equal width by their largest probability; bin ``b`` of ``m`` holds
    :math:`((b - 1)/m, b/m]`.

    Parameters
    ----------
    probabilities
        Class probabilities, shape (rows, classes), each in [0, 1]. The predicted class is that of the largest, of
        equal ones the lowest.
    targets
        True class labels in ``0 .. classes - 1``, shape (rows,).
    bins
        Number of bins, at least 1; 15 in the paper.

    Returns
    -------
    float
        In [0, 1]; 0 is perfectly calibrated. On few rows it is biased upwards, since every bin's accuracy varies
        by chance.

    Raises
    ------
    InputError
        There are no rows, the shapes do not fit together, or a probability or label is out of range.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger. On calibration of modern neural networks. ICML 2017.
    """
    bins = whole_number("bins", bins, 1)
    probabilities, targets = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    if probabilities.ndim != 2 or 0 in probabilities.shape or targets.shape != probabilities.shape[:1]:
        raise InputError(
            f"expected_calibration_error: probabilities have shape {probabilities.shape} and targets "
            f"{targets.shape}; give shapes (rows, classes) and (rows,), at least one row"
        )
    # float32 probabilities may sum to a little more than 1
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-5)).all():
        raise InputError("expected_calibration_error: a probability is not between 0 and 1")
    if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= probabilities.shape[1]:
        raise InputError(
            f"expected_calibration_error: targets must be class labels from 0 to {probabilities.shape[1] - 1}"
        )
    confidence = np.minimum(probabilities.max(axis=1), 1.0)
    right = probabilities.argmax(axis=1) == targets
    # the edges themselves, as numpy's: a confidence of b/m belongs to the bin below
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    where = np.searchsorted(edges, confidence, side="left")
    gap = np.bincount(where, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(targets))
