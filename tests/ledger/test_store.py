"""Opening a store: its tables come to be once, are what the models say, and survive a power cut."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from ledger.makers import launched, rows
from sweeper.errors import LedgerError
from sweeper.ledger import migrations
from sweeper.ledger.schema import Base, SweepRow
from sweeper.ledger.store import Ledger, sqlite_url

OPEN_AT_ONCE = """
import sys
from sweeper.ledger.store import Ledger
print("ready", flush=True)
sys.stdin.readline()
Ledger(sys.argv[1]).close()
"""


def test_a_fresh_store_has_the_tables_and_views(ledger: Ledger) -> None:
    with ledger.read() as connection:
        found = inspect(connection)
        assert set(found.get_table_names()) >= {*Base.metadata.tables, migrations.VERSION_TABLE}
        assert set(found.get_view_names()) == {"trial_costs", "space_costs"}


def test_the_migrations_make_what_the_models_say(ledger: Ledger) -> None:
    with ledger.read() as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": migrations.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_the_comparison_of_tables_and_models_sees_a_difference(ledger: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(text("ALTER TABLE sweep DROP COLUMN mode"))
        context = MigrationContext.configure(connection, opts={"version_table": migrations.VERSION_TABLE})
        assert [kind for kind, *_ in compare_metadata(context, Base.metadata)] == ["add_column"]


def test_the_version_table_is_our_own(ledger: Ledger) -> None:
    with ledger.read() as connection:
        assert "alembic_version" not in inspect(connection).get_table_names()  # MLflow's and Optuna's
        assert connection.scalar(text("SELECT version_num FROM sweeper_alembic_version")) == migrations.HEAD


def test_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_opening_a_store_again_migrates_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = launched(ledger)

    def refuse(connection: Connection) -> None:
        raise AssertionError("migrated a store that is current")

    monkeypatch.setattr("sweeper.ledger.store.upgrade", refuse)
    again = Ledger(ledger.url)
    assert [row.name for row in rows(again, SweepRow)] == [sweep.name]
    again.close()


def test_a_store_of_a_newer_sweeper_is_refused(ledger: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(text("UPDATE sweeper_alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"revision 9999, newer than this sweeper's \d+\. Update sweeper"):
        Ledger(ledger.url)


def test_processes_that_open_a_fresh_store_at_once_all_succeed(ledger_url: str) -> None:
    command = [sys.executable, "-c", OPEN_AT_ONCE, ledger_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(errors)
    ledger = Ledger(ledger_url, create=False)
    assert launched(ledger).name == "digits"
    ledger.close()


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 30_000)]
)
def test_sqlite_keeps_what_was_committed_and_what_belongs_together(
    sqlite_file: Path, ledger: Ledger, pragma: str, value: object
) -> None:
    with ledger.read() as reading, ledger.write() as writing:
        assert reading.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
        assert writing.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def test_a_reader_sees_one_moment_while_another_writes(sqlite_file: Path, ledger: Ledger) -> None:
    count = text("SELECT count(*) FROM sweep")
    with ledger.read() as reading:
        assert reading.scalar(count) == 0
        launched(ledger)
        assert reading.scalar(count) == 0
    with ledger.read() as reading:
        assert reading.scalar(count) == 1


def test_a_failed_migration_leaves_nothing_behind(
    sqlite_file: Path, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_late(connection: Connection) -> None:
        migrations.upgrade(connection)
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("sweeper.ledger.store.upgrade", fail_late)
        with pytest.raises(RuntimeError, match="killed"):
            Ledger(ledger_url)
    plain = sqlite3.connect(sqlite_file)
    assert plain.execute("SELECT name FROM sqlite_schema").fetchall() == []
    plain.close()
    Ledger(ledger_url).close()


def test_a_missing_ledger_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        LedgerError, match=r"there is no ledger at .*ledger\.db yet\. Launch a sweep first: sweeper run"
    ):
        Ledger(sqlite_url(tmp_path / "home"), create=False)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "url", ["ledger.db", "postgres://me:secret@host/db", "postgresql://me:secret@host:port/db", "me:secret@host"]
)
def test_what_is_no_database_url_is_an_error_that_shows_a_right_one(url: str) -> None:
    with pytest.raises(LedgerError, match=r"is no database URL.*Right would be sqlite:///FILE") as caught:
        Ledger(url)
    if "://" in url:
        assert "secret" not in str(caught.value)


def test_a_database_without_its_driver_is_an_error_that_names_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match="psycopg") as caught:
        Ledger("postgresql+psycopg://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("notes " * 1000)
    with pytest.raises(LedgerError, match=r"ledger\.db can't be opened"):
        Ledger(sqlite_url(tmp_path))


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(LedgerError, match=r"folder .*home.* can't be made"):
        Ledger(sqlite_url(tmp_path / "home"))
