"""Credentials are masked wherever a URL stands, and nothing else is."""

from __future__ import annotations

import pytest

from sweeper.cli import main
from sweeper.errors import LedgerError, TrainingError
from sweeper.imports import told
from sweeper.scheduler.blame import training
from sweeper.urls import masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("postgresql+psycopg://me:secret@/db?host=/tmp/x", "postgresql+psycopg://***@/db?host=/tmp/x"),
        ("postgresql://me:se/cr@et@db/mlflow", "postgresql://***@db/mlflow"),
        ("http://token@host/x", "http://***@host/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("postgresql://db/mlflow?user=me&password=secret&a=b", "postgresql://db/mlflow?user=me&password=***&a=b"),
        ("postgresql://db/x?sslpassword=secret", "postgresql://db/x?sslpassword=***"),
        ("at http://u:secret@h:1/x and http://u:secret@h:2", "at http://***@h:1/x and http://***@h:2"),
        ("s3://AKIA1:secret@bucket/checkpoints", "s3://***@bucket/checkpoints"),
        ("simplecache::ftp://me:secret@host/x", "simplecache::ftp://***@host/x"),
        ("https://h/x?X-Amz-Signature=secret&v=1", "https://h/x?X-Amz-Signature=***&v=1"),
        ("az://c/x?sv=2&sig=secret", "az://c/x?sv=2&sig=***"),
        ("AccountName=me;AccountKey=secret==;x=1", "AccountName=me;AccountKey=***;x=1"),
        ("host=db user=me password=secret", "host=db user=me password=***"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("Right would be postgresql+psycopg://USER@HOST/DATABASE", "Right would be postgresql+psycopg://USER@HOST/DATABASE"),
        ("trial 418: keep_prob_2 = 1.3 (key=value)", "trial 418: keep_prob_2 = 1.3 (key=value)"),
    ],
)  # fmt: skip
def test_credentials_are_masked_and_the_rest_is_not(text: str, shown: str):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    ("said", "url", "shown"),
    [
        ("no host 'tail@db'", "postgresql://me:head@tail@db/x", "no host '***@db'"),
        ("login with p/ss word! failed", "ftp://me:p%2Fss%20word!@host/", "login with *** failed"),
        ("login with p%2Fss%20word! failed", "ftp://me:p%2Fss%20word!@host/", "login with *** failed"),
        ("a db is away", "postgresql://me:a@db/x", "a db is away"),  # too short to be told from any other letter
    ],
)
def test_a_password_is_masked_where_a_library_gives_it_away(said: str, url: str, shown: str):
    assert masked(said, url) == shown


def test_errors_of_code_that_is_not_ours_are_kept_without_passwords():
    """They go to the ledger and to MLflow with the trial that they ended."""
    failed = ConnectionError("no answer from postgresql://me:sesame@db/features")
    assert told(failed) == "ConnectionError: no answer from postgresql://***@db/features."
    with pytest.raises(TrainingError, match=r"postgresql://\*\*\*@db/features") as caught, training():
        raise failed
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(LedgerError("away: postgresql://me:sesame@db"), 2, id="ours"),
        pytest.param(RuntimeError("broken: postgresql://me:sesame@db"), 1, id="a fault"),
    ],
)
def test_what_ends_a_command_is_printed_without_passwords(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def app(**_: object) -> None:
        raise error

    monkeypatch.setattr("sweeper.cli.app.app", app)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == code
    assert "postgresql://***@db" in said
    assert "sesame" not in said
    assert ("Traceback" in said) == (code == 1)
