"""What goes beside a report: pictures and tables that other programs can read."""

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from price.problems import studies
from report.makers import facts
from sweeper.report import write_pictures, write_table

SEVEN = ["curves", "edges", "ladder", "plane", "hits", "curse", "effective"]


def test_the_pictures_are_the_report_s_own_sharp_enough_for_print(tmp_path):
    written = write_pictures(facts(), tmp_path / "new" / "folder")
    assert [path.name for path in written] == [f"{name}.png" for name in SEVEN]
    widths = [int.from_bytes(path.read_bytes()[16:20]) for path in written]  # of a PNG's first chunk
    assert min(widths) > 800


def test_a_picture_that_can_t_be_drawn_is_left_out(tmp_path):
    few = {space: studies(np.random.default_rng(1).random((2, 4))) for space in ("shared", "per_layer")}
    names = [path.stem for path in write_pictures(facts(studies=few), tmp_path)]
    assert "effective" not in names
    assert "curves" in names


def test_csv_and_parquet_hold_the_same_rows(tmp_path):
    columns = {"space": str, "trial": int, "loss": float, "at": datetime}
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    rows = [('a "quoted", name', 0, 1 / 3, noon), ("b", 2**60, None, None)]
    csv, parquet = write_table(columns, iter(rows), tmp_path, "trials")
    found = pyarrow.parquet.read_table(parquet)
    assert [tuple(row.values()) for row in found.to_pylist()] == rows
    as_csv = pyarrow.csv.read_csv(csv).to_pylist()
    assert [(row["space"], row["trial"], row["loss"]) for row in as_csv] == [row[:3] for row in rows]


def test_more_rows_than_a_batch_all_arrive(tmp_path):
    rows = ((i, math.sqrt(i)) for i in range(25_001))
    _, parquet = write_table({"i": int, "root": float}, rows, tmp_path, "many")
    assert pyarrow.parquet.read_table(parquet)["i"].to_pylist() == list(range(25_001))


def test_a_table_without_rows_has_its_columns(tmp_path):
    csv, parquet = write_table({"space": str, "loss": float}, [], tmp_path, "none")
    assert pyarrow.parquet.read_table(parquet).column_names == ["space", "loss"]
    assert csv.read_text().strip() == '"space","loss"'


def test_a_value_of_another_type_is_refused(tmp_path):
    with pytest.raises(pyarrow.ArrowInvalid):
        write_table({"trial": int}, [("one",)], tmp_path, "wrong")
