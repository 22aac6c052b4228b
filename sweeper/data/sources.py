"""Data sources: where a URI points -> named columns.

Columns of one source have one length and hold numbers, booleans or anything else as objects; a missing value is NaN
or None. Nothing is judged here but whether the source can be read (`tables` does the rest).
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sweeper.errors import DataError
from sweeper.roots import ANYWHERE, Roots

Column = npt.NDArray[Any]
Columns = Mapping[str, Column]

FILES = ("csv", "parquet", "npz")  # schemes whose rest is a path
SKLEARN_SETS = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_MOST_NAMES = 12


def read_columns(source: str, folder: Path, roots: Roots = ANYWHERE) -> tuple[Columns, str | None]:
    """Read all columns of a source.

    Args:
        source: `sklearn:NAME`, `csv:PATH`, `parquet:PATH` or `npz:PATH`.
        folder: where relative paths start.
        roots: where files may lie.

    Returns:
        The columns, and the name of the one that is usually predicted, where the source has such a name.

    Raises:
        DataError: the source is unknown, missing, empty, unreadable, or under no root.
    """
    scheme, _, rest = source.partition(":")
    if scheme not in _READERS:
        raise DataError(f"{source!r} is no data source. Known: {', '.join(f'{name}:' for name in _READERS)}.")
    read, usual_target = _READERS[scheme]
    return read(rest, folder, roots), usual_target


def near(name: str, known: Iterable[str]) -> str:
    """Which name may have been meant, and which there are."""
    known = list(known)
    meant = get_close_matches(name, known, n=1)
    hint = f" Did you mean {meant[0]!r}?" if meant else ""
    more = f", ... ({len(known)} in all)" if len(known) > _MOST_NAMES else ""
    return f"{hint} There are: {', '.join(islice(known, _MOST_NAMES))}{more}."


def _read_sklearn(name: str, _: Path, __: Roots) -> Columns:
    from sklearn import datasets  # slow to import, and most sweeps of one's own data don't need it

    if name not in SKLEARN_SETS:
        raise DataError(f"scikit-learn bundles no data set {name!r}.{near(name, SKLEARN_SETS)}")
    bundle = getattr(datasets, f"load_{name}")()
    names = map(str, bundle.feature_names)
    return {**dict(zip(names, bundle.data.T, strict=True)), "target": bundle.target}


def _read_csv(rest: str, folder: Path, roots: Roots) -> Columns:
    from pyarrow import csv

    path = _file(rest, folder, roots)
    return _columns(_readable(path, "a CSV file", lambda: csv.read_csv(path)), path)


def _read_parquet(rest: str, folder: Path, roots: Roots) -> Columns:
    from pyarrow import parquet

    path = _file(rest, folder, roots)
    return _columns(_readable(path, "a Parquet file", lambda: parquet.ParquetFile(path).read()), path)


def _columns(table: Any, path: Path) -> Columns:
    """The columns of an Arrow table."""
    twice = [name for name, times in Counter(table.column_names).items() if times > 1]
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}. Give each a name of its own.")
    if not table.num_rows:
        raise DataError(f"{path} has no rows.")
    return {name: _column(table[name]) for name in table.column_names}


def _column(column: Any) -> Column:
    """One Arrow column; dictionaries, dates and decimals become objects, which the checks then name."""
    values: Column = column.to_numpy()
    return values.astype(object) if values.dtype.kind not in "biuf" else values


def _read_npz(rest: str, folder: Path, roots: Roots) -> Columns:
    path = _file(rest, folder, roots)
    arrays = _readable(path, "a NumPy archive of plain arrays", lambda: _arrays(path))
    for name in ("x", "y"):
        if name not in arrays:
            found = ", ".join(arrays) or "nothing"
            raise DataError(f"{path} holds {found}, but no array {name!r}. Save it with np.savez(path, x=..., y=...).")
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise DataError(f"{path}: x must be rows x columns and y rows, but they have shapes {x.shape}, {y.shape}.")
    return {**{f"x{number}": column for number, column in enumerate(x.T)}, "y": y}


def _arrays(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _file(rest: str, folder: Path, roots: Roots) -> Path:
    path = roots.find(rest, folder)  # first of all: the hints below tell what lies beside it
    if not path.is_file():
        neighbours = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
        meant = get_close_matches(path.name, neighbours, n=1)
        hint = f" Did you mean {meant[0]}?" if meant else ""
        raise DataError(f"there is no file {path}.{hint} A relative path starts at the sweep file's folder.")
    return path


def _readable(path: Path, kind: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except _UNREADABLE as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(f"{path} can't be read as {kind}: {first_line}") from error


# Arrow raises subclasses of ValueError, OSError and NotImplementedError; NumPy the rest.
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile)

_READERS: Mapping[str, tuple[Callable[[str, Path, Roots], Columns], str | None]] = {
    "sklearn": (_read_sklearn, "target"),
    "csv": (_read_csv, None),
    "parquet": (_read_parquet, None),
    "npz": (_read_npz, "y"),
}
