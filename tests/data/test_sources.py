"""Sources in, checked tables out; what can't be learned from is refused with its column and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sweeper.data import load
from sweeper.errors import DataError
from sweeper.records import Task

CSV = "age,dose,label\n31,0.5,yes\n42,1.5,no\n53,2.5,yes\n"


@pytest.fixture
def csv(tmp_path: Path):
    """Writes rows.csv and loads it."""

    def write_and_load(text: str, **arguments):
        (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
        return load("csv:rows.csv", folder=tmp_path, **{"target": "label", **arguments})

    return write_and_load


def refusal(load_it, *arguments, **named) -> str:
    with pytest.raises(DataError) as caught:
        load_it(*arguments, **named)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "task", "classes"),
    [
        ("breast_cancer", (569, 30), Task.BINARY, ("0", "1")),
        ("diabetes", (442, 10), Task.REGRESSION, ()),
        ("digits", (1797, 64), Task.MULTICLASS, tuple("0123456789")),
        ("iris", (150, 4), Task.MULTICLASS, tuple("012")),
        ("wine", (178, 13), Task.MULTICLASS, tuple("012")),
    ],
)
def test_scikit_learns_bundled_sets_load(name, shape, task, classes):
    table = load(f"sklearn:{name}")
    assert table.x.shape == shape
    assert len(table.feature_names) == shape[1]
    assert (table.task, table.classes) == (task, classes)


def test_columns_of_a_bundled_set_are_chosen_by_name_and_order():
    every, two = load("sklearn:wine"), load("sklearn:wine", columns=["hue", "alcohol"])
    assert two.feature_names == ("hue", "alcohol")
    at = [every.feature_names.index(name) for name in two.feature_names]
    np.testing.assert_array_equal(two.x, every.x[:, at])


def test_the_same_rows_are_the_same_table_from_any_file(csv, tmp_path):
    from_csv = csv(CSV)
    rows = {"age": [31, 42, 53], "dose": [0.5, 1.5, 2.5], "label": ["yes", "no", "yes"]}
    parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    from_parquet = load("parquet:rows.parquet", folder=tmp_path, target="label")
    np.testing.assert_array_equal(from_csv.x, [[31, 0.5], [42, 1.5], [53, 2.5]])
    np.testing.assert_array_equal(from_csv.y, [1, 0, 1])
    assert from_csv.classes == ("no", "yes")
    assert from_csv.sha256 == from_parquet.sha256


def test_an_npz_file_holds_x_and_y(tmp_path):
    x, y = np.arange(6.0).reshape(3, 2), np.array([0.1, 0.2, 0.3])
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    table = load("npz:rows.npz", folder=tmp_path)
    np.testing.assert_array_equal(table.x, x)
    np.testing.assert_array_equal(table.y, y)
    assert table.feature_names == ("x0", "x1")
    assert table.task is Task.REGRESSION


@pytest.mark.parametrize(
    ("target", "task"),
    [
        pytest.param(["a", "b", "c"], Task.MULTICLASS, id="text"),
        pytest.param(["true", "false", "true"], Task.BINARY, id="booleans"),
        pytest.param([3, 1, 3], Task.BINARY, id="few whole numbers"),
        pytest.param(list(range(30)), Task.REGRESSION, id="many whole numbers"),
        pytest.param([0.0, 1.0, 0.5], Task.REGRESSION, id="numbers"),
    ],
)
def test_the_task_is_read_off_the_target(csv, target, task):
    rows = "\n".join(f"{row},{value}" for row, value in enumerate(target))
    assert csv(f"x,label\n{rows}\n").task is task


def test_the_task_can_be_said(csv):
    text = "x,label\n1,3\n2,1\n3,3\n"
    np.testing.assert_array_equal(csv(text, task="classification").y, [1, 0, 1])
    table = csv(text, task="regression")
    np.testing.assert_array_equal(table.y, [3.0, 1.0, 3.0])
    assert table.task is Task.REGRESSION


def test_large_offsets_keep_their_precision(csv):
    table = csv("x,label\n1700000000.25,a\n1700000000.75,b\n")
    assert table.x[1, 0] - table.x[0, 0] == 0.5, "float32 would make both equal"


def test_numbers_that_a_file_keeps_as_text_or_decimals_are_numbers(tmp_path):
    decimals = pa.array(["1.5", "2.5"]).cast(pa.decimal128(4, 2))
    parquet.write_table(pa.table({"x": decimals, "t": ["7", "8"], "y": [0.1, 0.2]}), tmp_path / "rows.parquet")
    np.testing.assert_array_equal(load("parquet:rows.parquet", folder=tmp_path, target="y").x, [[1.5, 7], [2.5, 8]])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        pytest.param(
            CSV,
            {"target": "lable"},
            "csv:rows.csv has no column 'lable'. Did you mean 'label'? There are: age, dose, label.",
            id="target",
        ),
        pytest.param(
            CSV,
            {"columns": ["age", "does"]},
            "csv:rows.csv has no column 'does'. Did you mean 'dose'? There are: age, dose, label.",
            id="column",
        ),
        pytest.param(
            CSV.replace("42", "old"),
            {},
            "csv:rows.csv, column 'age' holds 'old' in row 2, which is no number. Turn the column into numbers, or "
            "list only the others under columns.",
            id="not a number",
        ),
        pytest.param(
            CSV.replace("1.5", ""),
            {},
            "csv:rows.csv, column 'dose' has no value in row 2 (1 missing in all). Fill the value in, or drop the row "
            "or the column.",
            id="missing number",
        ),
        pytest.param(
            CSV.replace("no", ""),
            {},
            "csv:rows.csv, target column 'label' has no value in row 2 (1 missing in all). Fill the value in, or drop "
            "the row or the column.",
            id="missing label",
        ),
        pytest.param(
            CSV.replace("2.5", "inf"),
            {},
            "csv:rows.csv, column 'dose' holds inf in row 3. Give a finite number, or drop the row.",
            id="infinite",
        ),
        pytest.param(
            CSV.replace("no", "yes"),
            {},
            "csv:rows.csv, target column 'label' has a single class, yes: there is nothing to tell apart.",
            id="single class",
        ),
        pytest.param(
            "x,label\n1,2.5\n2,2.5\n",
            {},
            "csv:rows.csv, target column 'label' is 2.5 in every row: there is nothing to learn.",
            id="constant target",
        ),
        pytest.param(
            CSV,
            {"task": "regression"},
            "csv:rows.csv, target column 'label' holds 'yes' in row 1, which is no number. Turn the column into "
            "numbers, or list only the others under columns.",
            id="regression on words",
        ),
        pytest.param(
            CSV,
            {"columns": ["age", "label"]},
            "csv:rows.csv: 'label' is the target and can't be predicted from. Take it out of columns.",
            id="target among the columns",
        ),
        pytest.param(
            CSV,
            {"target": None},
            "csv:rows.csv needs a target: name the column to predict.",
            id="no target",
        ),
        pytest.param(
            "label\na\nb\n",
            {},
            "csv:rows.csv has no column but the target 'label': there is nothing to predict from.",
            id="target alone",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_named(csv, text, arguments, message):
    assert refusal(csv, text, **arguments) == message


def test_an_unfit_file_is_refused(csv, tmp_path):
    assert "has more than one column 'x'. Give each a name of its own." in refusal(csv, "x,x,label\n1,2,a\n2,3,b\n")
    assert "has no rows." in refusal(csv, "x,label\n")
    assert "can't be read as a CSV file: " in refusal(csv, "x,label\n1,2,3,4\n")
    (tmp_path / "rows.parquet").write_bytes(b"PAR0")
    assert "can't be read as a Parquet file: " in refusal(load, "parquet:rows.parquet", folder=tmp_path, target="y")
    (tmp_path / "rows.npz").write_bytes(b"")
    assert "can't be read as a NumPy archive" in refusal(load, "npz:rows.npz", folder=tmp_path)


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path):
    (tmp_path / "patients.csv").write_text(CSV, encoding="utf-8")
    assert refusal(load, "csv:patient.csv", folder=tmp_path, target="label") == (
        f"there is no file {tmp_path / 'patient.csv'}. Did you mean patients.csv? A relative path starts at the sweep "
        "file's folder."
    )


def test_an_archive_with_pickles_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.array([[object()]], dtype=object), y=np.zeros(1))
    assert "allow_pickle=False" in refusal(load, "npz:rows.npz", folder=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.zeros((2, 1)), "y": np.zeros(2)}, "holds inputs, y, but no array 'x'."),
        (
            {"x": np.zeros((2, 1)), "y": np.zeros(3)},
            "y rows, but they have shapes (2, 1), (3,).",
        ),
        ({"x": np.zeros((2, 1, 1)), "y": np.zeros(2)}, "but they have shapes (2, 1, 1), (2,)."),
    ],
)
def test_an_archive_needs_arrays_that_match(tmp_path, arrays, message):
    np.savez(tmp_path / "rows.npz", **arrays)
    assert message in refusal(load, "npz:rows.npz", folder=tmp_path)


def test_unknown_sources_are_told_the_known_ones():
    assert refusal(load, "hdf:x") == "'hdf:x' is no data source. Known: sklearn:, csv:, parquet:, npz:."
    assert refusal(load, "sklearn:digit") == (
        "scikit-learn bundles no data set 'digit'. Did you mean 'digits'? "
        "There are: breast_cancer, diabetes, digits, iris, wine."
    )


def test_the_hash_changes_with_any_value_or_name_and_nothing_else(csv):
    before = csv(CSV).sha256
    assert csv(CSV).sha256 == before
    assert csv(CSV.replace("0.5", "0.50")).sha256 == before
    changes = [CSV.replace("0.5", "0.6"), CSV.replace("dose", "rate"), CSV.replace("no", "zz")]
    assert len({before, *(csv(text).sha256 for text in changes)}) == 4
