"""The roles of roles.sql on a real PostgreSQL: the owner migrates, a worker runs sweeps, an analyst only looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from postgres import Postgres
from small import run_here, small_workload
from sweeper.cli.app import app
from sweeper.cli.places import Places
from sweeper.doctor import Level, Place
from sweeper.doctor.store import store as examined
from sweeper.errors import ForbiddenError
from sweeper.findings import gather, write_tables
from sweeper.ledger import sweeps
from sweeper.ledger.migrations import HEAD
from sweeper.ledger.rights import Role, rights, roles_sql
from sweeper.ledger.schema import Base
from sweeper.ledger.store import Ledger
from sweeper.roots import Roots
from sweeper.worker import Ending

USERS = {"owner": Role.OWNER, "gpu": Role.WORKER, "ada": Role.ANALYST, "eve": Role.NONE}
DATABASE = "roles"


@pytest.fixture(scope="module")
def urls(postgres: Postgres) -> Iterator[dict[str, str]]:
    """The store's URL for each user; its tables are not there yet."""
    postgres.run(
        "CREATE USER owner CREATEROLE", "CREATE USER gpu", "CREATE USER ada", "CREATE USER eve",
        f"CREATE DATABASE {DATABASE} OWNER owner TEMPLATE template0",
    )  # fmt: skip
    found = {user: postgres.url(DATABASE).replace("postgres:secret", f"{user}:secret") for user in USERS}
    for _ in range(2):  # running it again does no harm
        execute(found["owner"], roles_sql())
    execute(found["owner"], "GRANT sweeper_worker TO gpu; GRANT sweeper_analyst TO ada")
    yield found
    postgres.run(f"DROP DATABASE {DATABASE} WITH (FORCE)", f"DROP ROLE {', '.join(USERS)}")
    postgres.run("DROP ROLE sweeper_worker, sweeper_analyst")


@pytest.fixture(scope="module")
def migrated(urls: dict[str, str]) -> dict[str, str]:
    """After the owner's first command."""
    Ledger(urls["owner"]).close()
    return urls


@pytest.fixture(scope="module")
def swept(migrated: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """After a worker has run a sweep."""
    folder = tmp_path_factory.mktemp("roles")
    ran = run_here(small_workload(folder, ("trials: 5", "trials: 2")), folder, ledger=Ledger(migrated["gpu"]))
    assert ran.ending is Ending.DONE
    ran.ledger.close()
    return migrated


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What commands open in this process is closed in the end; their own process would be gone."""
    opened, make = list[Ledger](), Places.ledger

    def made(places: Places, *, create: bool = False) -> Ledger:
        opened.append(make(places, create=create))
        return opened[-1]

    monkeypatch.setattr(Places, "ledger", made)
    yield
    for ledger in opened:
        ledger.close()


def execute(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def refused(url: str, sql: str) -> bool:
    try:
        execute(url, sql)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize("user", ["gpu", "ada"])
def test_a_store_that_is_not_migrated_says_who_has_to_do_what(urls: dict[str, str], user: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        Ledger(urls[user])
    assert "has no tables of sweeper's yet" in str(caught.value)
    assert "Ask the owner to run any command of this sweeper on the store" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_store_of_an_older_revision_says_so_too(migrated: dict[str, str]) -> None:
    execute(migrated["owner"], "UPDATE sweeper_alembic_version SET version_num = '0001'")
    place = Place(Path("nowhere"), migrated["gpu"], "sqlite:///nowhere.db", "nowhere", "cpu", Roots(()))
    try:
        (told,) = [each for each in examined(place) if each.check == "migrations"]
        assert (told.level, "have their owner run" in told.mend) == (Level.PROBLEM, True)
        with pytest.raises(ForbiddenError, match="is at revision 0001, this sweeper needs"):
            Ledger(migrated["gpu"])
    finally:
        execute(migrated["owner"], f"UPDATE sweeper_alembic_version SET version_num = '{HEAD}'")


@pytest.mark.parametrize("user", USERS)
def test_what_a_user_may_do_amounts_to_a_role(migrated: dict[str, str], user: str) -> None:
    with closing(Ledger(migrated[user], migrates=False)) as ledger, ledger.read() as connection:
        found = rights(connection)
    assert (found.user, found.role) == (user, USERS[user])


@pytest.mark.parametrize("user", USERS)
def test_the_doctor_names_the_role_and_whoever_has_none(migrated: dict[str, str], user: str) -> None:
    home = Path("nowhere")
    place = Place(home, migrated[user], "sqlite:///nowhere.db", str(home), "cpu", Roots(()))
    found = {each.check: each for each in examined(place)}
    if USERS[user] is Role.NONE:
        assert found["permissions"].level is Level.PROBLEM
        assert "may read 0 and write 0 of" in found["permissions"].found
        assert "migrations" not in found
    else:
        assert {each.level for each in found.values()} == {Level.OK}
        assert f"user {user!r} has the rights of the {USERS[user]}" in found["permissions"].found


@pytest.mark.parametrize("command", [["status"], ["trials"], ["best"], ["price"], ["price", "--costs"]])
def test_an_analyst_looks(
    swept: dict[str, str], command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, [*command, "small", "--store", swept["ada"]])
    assert shown.exit_code == 0, shown.output
    assert "small" in shown.output or "shared" in shown.output


def test_an_analyst_reports(swept: dict[str, str], tmp_path: Path) -> None:
    """All that `report` reads; drawing it takes seconds, and no store."""
    with closing(Ledger(swept["ada"], create=False)) as ledger:
        with ledger.read() as connection:
            sweep = sweeps.find(connection, "small")
        assert gather(ledger, sweep).replicates == 2
        assert len(write_tables(ledger, sweep, tmp_path)) == 4


def test_an_analyst_changes_nothing_and_is_told_so(swept: dict[str, str]) -> None:
    shown = CliRunner().invoke(app, ["stop", "small", "--store", swept["ada"]])
    assert isinstance(shown.exception, ForbiddenError)
    assert "does not let its user 'ada' do this: permission denied for table" in str(shown.exception)
    tables = [*Base.metadata.tables, "sweeper_alembic_version"]
    assert all(refused(swept["ada"], f"DELETE FROM {table}") for table in tables)
    assert execute(swept["ada"], "SELECT count(*) FROM trial") == [(8,)]


@pytest.mark.parametrize("user", ["gpu", "ada"])
@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE trial ADD COLUMN mine int",
        "DROP TABLE trial",
        "TRUNCATE trial CASCADE",
        "CREATE INDEX mine ON trial (id)",
        "GRANT sweeper_worker TO eve",
    ],
)
def test_only_the_owner_changes_tables(migrated: dict[str, str], user: str, ddl: str) -> None:
    assert refused(migrated[user], ddl)


def test_tables_of_later_migrations_are_covered(migrated: dict[str, str]) -> None:
    execute(migrated["owner"], "CREATE TABLE later (id serial, value int)")
    execute(migrated["gpu"], "INSERT INTO later (value) VALUES (7)")
    assert execute(migrated["ada"], "SELECT value FROM later") == [(7,)]
    assert refused(migrated["ada"], "UPDATE later SET value = 8")
    assert refused(migrated["eve"], "SELECT value FROM later")
    execute(migrated["owner"], "DROP TABLE later")
