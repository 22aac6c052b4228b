"""What goes beside a report: its pictures as PNG, and tables as CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from sweeper.report.facts import Facts
from sweeper.report.figures import Figure, figures

_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string(), datetime: pa.timestamp("us", tz="UTC")}
_BATCH = 10_000  # rows


def write_pictures(facts: Facts, folder: Path, drawn: Sequence[Figure] | None = None) -> list[Path]:
    """Write every picture that can be drawn as a PNG, two pixels per point.

    Args:
        facts: what they show.
        folder: where; it is made if need be.
        drawn: `figures(facts)`, where they are at hand.

    Returns:
        The files.
    """
    from sweeper.price.plots import save_chart, unchecked

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in figures(facts) if drawn is None else drawn:
        if not figure.missing:
            written.append(folder / f"{figure.name}.png")
            with unchecked():
                save_chart(figure.poster(), written[-1])
    return written


def write_table(columns: Mapping[str, type], rows: Iterable[Sequence[Any]], folder: Path, name: str) -> list[Path]:
    """Write rows as CSV and as Parquet, a batch at a time.

    Args:
        columns: the type of each column by its name: int, float, str or datetime.
        rows: a value or None for each column.
        folder: where; it is made if need be.
        name: of the files, without their endings.

    Returns:
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(column, _TYPES[kind]) for column, kind in columns.items()])
    csv_path, parquet_path = (folder / f"{name}.{ending}" for ending in ("csv", "parquet"))
    with csv.CSVWriter(csv_path, schema) as as_csv, parquet.ParquetWriter(parquet_path, schema) as as_parquet:
        for batch in _batches(rows):
            arrays = [
                pa.array(values, kind) for values, kind in zip(zip(*batch, strict=True), schema.types, strict=True)
            ]
            table = pa.Table.from_arrays(arrays, schema=schema)
            as_csv.write_table(table)
            as_parquet.write_table(table)
    return [csv_path, parquet_path]


def _batches(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    left = iter(rows)
    while batch := list(islice(left, _BATCH)):
        yield batch
