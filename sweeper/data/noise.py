"""Wrong labels on purpose: some training rows are given another class, as careless annotators would.

A network that can, learns wrong labels by heart, so that regularisation has more to gain (Zhang et al., arXiv
1611.03530). Which rows, and which class instead, comes from (seed, replicate) alone, as the split does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sweeper.errors import DataError


def mislabelled(
    labels: npt.NDArray[np.generic], classes: Sequence[str], share: float, stream: np.random.PCG64
) -> npt.NDArray[np.generic]:
    """Labels of which so many, drawn row by row, are any of the other classes.

    Args:
        labels: `N`, indices of classes.
        classes: C names; none for a regression.
        share: the chance of each row to be mislabelled.
        stream: its raw output decides.

    Raises:
        DataError: there are no classes.
    """
    if not share:
        return labels
    if not classes:
        raise DataError("label_noise gives rows another class, but a regression has none. Take label_noise out.")
    wrong = stream.random_raw(len(labels)) / 2.0**64 < share
    shift = 1 + stream.random_raw(len(labels)) % np.uint64(len(classes) - 1)
    changed = (labels.astype(np.int64) + shift.astype(np.int64)) % len(classes)
    return np.where(wrong, changed, labels.astype(np.int64)).astype(labels.dtype)
