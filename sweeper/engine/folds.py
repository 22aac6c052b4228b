"""The folds' rows on the device, stacked so that a slot reaches its own by an index.

Letters: S folds, M training rows of the longest fold, V validation rows of the longest. Shorter ones are padded with
zeros that no index and no mean reaches.

After each epoch a slot is evaluated on its validation rows and on its first E training rows: all of them, but for data
so large that this would cost more than it tells. Splits are drawn at random, so that any E rows are a fair sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sweeper.errors import EngineError
from sweeper.records import Fold

# A mean over this many rows has a standard error of 4 % of the rows' own spread.
SAMPLE_ROWS = 512

Array = npt.NDArray[np.generic]


class DeviceFolds:
    """Training and validation rows of S folds on the device; test rows stay apart, one tensor per fold.

    Attributes:
        x, y: `S x (V + M) x ...`, a fold's validation rows from 0 on and its training rows from V on.
        longest: M, training rows of the longest fold. held: V, the same for validation.
        sample: E, training rows that are evaluated after an epoch.
        train_rows, validation_rows: int64 `S`, how many of them are real.
        target_scale: float32 `S`.
    """

    def __init__(self, folds: Sequence[Fold], device: torch.device) -> None:
        if not folds:
            raise EngineError("an engine needs at least one fold of data, but got none.")
        self.device = device
        self.x = _stacked([fold.x_validation for fold in folds], [fold.x_train for fold in folds], device)
        self.y = _stacked([fold.y_validation for fold in folds], [fold.y_train for fold in folds], device)
        self._rows = [(len(fold.y_train), len(fold.y_validation)) for fold in folds]
        self.longest = max(rows for rows, _ in self._rows)
        self.held = max(held for _, held in self._rows)
        self.sample = min(self.longest, max(self.held, SAMPLE_ROWS))
        self.train_rows = torch.tensor([rows for rows, _ in self._rows], device=device)
        self.validation_rows = torch.tensor([held for _, held in self._rows], device=device)
        self.target_scale = torch.tensor([fold.target_scale for fold in folds], dtype=torch.float32, device=device)
        self._test = [(torch.from_numpy(fold.x_test), torch.from_numpy(fold.y_test)) for fold in folds]

    @property
    def count(self) -> int:
        """S."""
        return len(self._rows)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row's inputs."""
        return tuple(self.x.shape[2:])

    def rows_of(self, fold: int) -> tuple[int, int]:
        """Training and validation rows of one fold."""
        return self._rows[fold]

    def training(self, fold: int) -> tuple[Tensor, Tensor]:
        """All training rows of one fold."""
        rows = slice(self.held, self.held + self._rows[fold][0])
        return self.x[fold, rows], self.y[fold, rows]

    def test(self, fold: int) -> tuple[Tensor, Tensor]:
        """The sealed test rows of one fold, brought to the device."""
        x, y = self._test[fold]
        return x.to(self.device), y.to(self.device)

    def test_rows(self, fold: int) -> int:
        """How many test rows a fold has."""
        return int(self._test[fold][1].shape[0])


def _stacked(held: Sequence[Array], train: Sequence[Array], device: torch.device) -> Tensor:
    padded = [
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)
        for arrays in (held, train)
    ]
    return torch.cat(padded, dim=1).to(device)
