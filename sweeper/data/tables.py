"""A source's columns -> a checked table of numbers to learn from.

Letters: N rows, D columns to predict from, C classes. Rows are counted from 1 in messages, a header left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sweeper.data.sources import Column, Columns, near, read_columns
from sweeper.errors import DataError
from sweeper.records import Ints, Task
from sweeper.roots import ANYWHERE, Roots

Kind = Literal["auto", "classification", "regression"]

MOST_CLASSES = 20
"""Whole numbers with more distinct values than this are taken for quantities, not for classes."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to learn from, whole and checked.

    Attributes:
        x: `N x D` float64, finite. Kept in full precision, so that standardising a column with a large offset
            (a year, a time stamp) loses nothing; folds are float32.
        y: `N`; int64 class indices for classification, float64 in the target's units for regression.
        feature_names: D.
        task: what a network's output means.
        classes: C names, in the order of the indices; none for regression.
        sha256: of x, y and the feature names.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64] | Ints
    feature_names: tuple[str, ...]
    task: Task
    classes: tuple[str, ...]
    sha256: str


def load(
    source: str,
    *,
    folder: Path | str = ".",
    target: str | None = None,
    columns: Sequence[str] | None = None,
    task: Kind = "auto",
    roots: Roots = ANYWHERE,
) -> Table:
    """Read a data source.

    Args:
        source: `sklearn:NAME`, `csv:PATH`, `parquet:PATH` or `npz:PATH` (arrays x of `N x D` and y of `N`).
        folder: where relative paths start.
        target: column to predict; sklearn's sets call theirs `target`, npz files theirs `y`.
        columns: columns to predict from; None takes all but the target.
        task: what to predict. "auto" takes text, booleans and whole numbers of at most 20 distinct values for
            classes, anything else for quantities.
        roots: where files may lie.

    Returns:
        The table. Two classes make it BINARY, more MULTICLASS.

    Raises:
        DataError: the source is unknown, missing, unreadable or under no root, a column is missing or repeated, a value
            is missing or no finite number, or the target has a single value.
    """
    table, usual_target = read_columns(source, Path(folder), roots)
    target = target or usual_target
    if target is None:
        raise DataError(f"{source} needs a target: name the column to predict.")
    names = _chosen(table, source, target, columns)
    y, classes = _target(table[target], f"{source}, target column {target!r}", task)
    x = np.column_stack([_numbers(table[name], f"{source}, column {name!r}") for name in names])
    return Table(x, y, names, _task(classes), classes, _digest(x, y, names))


def _chosen(table: Columns, source: str, target: str, columns: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(columns) if columns is not None else tuple(name for name in table if name != target)
    for name in (target, *names):
        if name not in table:
            raise DataError(f"{source} has no column {name!r}.{near(name, table)}")
    if target in names:
        raise DataError(f"{source}: {target!r} is the target and can't be predicted from. Take it out of columns.")
    if not names:
        raise DataError(f"{source} has no column but the target {target!r}: there is nothing to predict from.")
    return names


def _task(classes: Sequence[str]) -> Task:
    if not classes:
        return Task.REGRESSION
    return Task.BINARY if len(classes) == 2 else Task.MULTICLASS


def _target(column: Column, what: str, task: Kind) -> tuple[npt.NDArray[np.float64] | Ints, tuple[str, ...]]:
    _refuse_missing(column, what)
    by_class = task == "classification" or (task == "auto" and _looks_like_classes(column))
    if not by_class:
        y = _numbers(column, what)
        if np.all(y == y[0]):
            raise DataError(f"{what} is {y[0]:g} in every row: there is nothing to learn.")
        return y, ()
    values, indices = np.unique(column.astype(str) if column.dtype.kind in "OS" else column, return_inverse=True)
    if len(values) < 2:
        raise DataError(f"{what} has a single class, {values[0]}: there is nothing to tell apart.")
    return indices.astype(np.int64), tuple(map(str, values))


def _looks_like_classes(column: Column) -> bool:
    if column.dtype.kind in "OUSb":
        return True
    return column.dtype.kind in "iu" and len(np.unique(column)) <= MOST_CLASSES


def _numbers(column: Column, what: str) -> npt.NDArray[np.float64]:
    """A column as float64, every value of it finite."""
    _refuse_missing(column, what)
    if column.dtype.kind not in "biuf":
        column = np.array([_number(value, row, what) for row, value in enumerate(column, start=1)])
    numbers = column.astype(np.float64)
    if not np.all(np.isfinite(numbers)):
        row = int(np.argmin(np.isfinite(numbers)))
        raise DataError(f"{what} holds {numbers[row]} in row {row + 1}. Give a finite number, or drop the row.")
    return numbers


def _number(value: object, row: int, what: str) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise DataError(
            f"{what} holds {str(value)!r} in row {row}, which is no number. "
            "Turn the column into numbers, or list only the others under columns."
        ) from None


def _refuse_missing(column: Column, what: str) -> None:
    missing = np.array([_is_missing(value) for value in column]) if column.dtype == object else column != column
    if np.any(missing):
        rows = np.flatnonzero(missing)
        raise DataError(
            f"{what} has no value in row {rows[0] + 1} ({len(rows)} missing in all). "
            "Fill the value in, or drop the row or the column."
        )


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and value == "")


def _digest(x: Column, y: Column, names: Sequence[str]) -> str:
    """SHA-256 over type, shape and little-endian bytes of x and y, and the feature names."""
    digest = sha256("\0".join(names).encode())
    for array in (x, y):
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"\0{plain.dtype.str}{plain.shape}".encode())
        digest.update(plain.data)
    return digest.hexdigest()
