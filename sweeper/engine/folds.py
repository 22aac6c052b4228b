"""The folds' rows on the device, stacked so that a slot reaches its own by an index.

Letters: S folds, M training rows of the longest fold, V validation rows of the longest. Shorter ones are padded with
zeros that no index and no mean reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sweeper.errors import EngineError
from sweeper.records import Fold

Array = npt.NDArray[np.generic]


class DeviceFolds:
    """Training and validation rows of S folds on the device; test rows stay apart, one tensor per fold.

    Attributes:
        x, y: `S x (M + V) x ...`, a fold's training rows from 0 on and its validation rows from M on.
        longest: M, training rows of the longest fold; V is the same for validation.
        train_rows, validation_rows: int64 `S`, how many of them are real.
        target_scale: float32 `S`.
    """

    def __init__(self, folds: Sequence[Fold], device: torch.device) -> None:
        if not folds:
            raise EngineError("an engine needs at least one fold of data, but got none.")
        self.device = device
        self.x = _stacked([fold.x_train for fold in folds], [fold.x_validation for fold in folds], device)
        self.y = _stacked([fold.y_train for fold in folds], [fold.y_validation for fold in folds], device)
        self._rows = [(len(fold.y_train), len(fold.y_validation)) for fold in folds]
        self.longest = max(rows for rows, _ in self._rows)
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

    def test(self, fold: int) -> tuple[Tensor, Tensor]:
        """The sealed test rows of one fold, brought to the device."""
        x, y = self._test[fold]
        return x.to(self.device), y.to(self.device)

    def test_rows(self, fold: int) -> int:
        """How many test rows a fold has."""
        return int(self._test[fold][1].shape[0])


def _stacked(train: Sequence[Array], held: Sequence[Array], device: torch.device) -> Tensor:
    padded = [
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)
        for arrays in (train, held)
    ]
    return torch.cat(padded, dim=1).to(device)
