"""The outbox: every run is delivered, in order, once, unless it is posted again or refused for good."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import pytest

from ledger.makers import launched, plan, rows
from sweeper.ledger import deliveries
from sweeper.ledger.rows import Letter, Posted, Sweep
from sweeper.ledger.schema import OutboxRow
from sweeper.ledger.store import Ledger


def post(ledger: Ledger, sweep: Sweep, *uids: str, status: str = "FINISHED", payload: str = "") -> None:
    with ledger.write() as connection:
        deliveries.post(connection, sweep.id, [Letter(uid, status, payload or f"of {uid}") for uid in uids])


def take(ledger: Ledger, sweep: Sweep, limit: int = 99) -> list[Posted]:
    with ledger.write() as connection:
        return deliveries.take(connection, sweep.id, limit)


def deliver(ledger: Ledger, posted: Sequence[Posted]) -> None:
    with ledger.write() as connection:
        deliveries.record_delivered(connection, {row.id: f"run {row.id}" for row in posted})


def refuse(ledger: Ledger, posted: Posted, times: int) -> None:
    for number in range(times):
        with ledger.write() as connection:
            deliveries.record_refused(connection, posted.id, f"refusal {number + 1}")


def counts(ledger: Ledger, sweep: Sweep) -> tuple[int, int, int]:
    with ledger.read() as connection:
        return deliveries.counts(connection, sweep.id)


def payloads(posted: Sequence[Posted]) -> list[str]:
    return [row.payload for row in posted]


def test_the_oldest_come_first_as_they_were_posted(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "parent", status="RUNNING")
    post(ledger, sweep, "z", "a")
    assert payloads(take(ledger, sweep, 2)) == ["of parent", "of z"]
    assert payloads(take(ledger, sweep)) == ["of parent", "of z", "of a"]


def test_a_payload_is_never_reformatted(ledger: Ledger, sweep: Sweep) -> None:
    text = '{"b": 1e-3,  "a":[0.30000000000000004], "é": "\\u00e9\\n"}'
    post(ledger, sweep, "a", payload=text)
    assert payloads(take(ledger, sweep)) == [text]


def test_attempts_count_the_delivery_that_is_about_to_be_tried(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a", "b")
    assert [row.attempts for row in take(ledger, sweep, 1)] == [1]
    assert [row.attempts for row in take(ledger, sweep)] == [2, 1]
    assert [row.attempts for row in take(ledger, sweep)] == [3, 2]


def test_what_was_delivered_never_comes_again(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a", "b", "c")
    first, second, _ = take(ledger, sweep)
    deliver(ledger, [first, second])
    assert payloads(take(ledger, sweep)) == ["of c"]
    assert counts(ledger, sweep) == (2, 1, 0)


def test_nothing_to_post_or_to_record_changes_nothing(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a")
    before = rows(ledger, OutboxRow)
    post(ledger, sweep)
    deliver(ledger, [])
    assert rows(ledger, OutboxRow) == before


def test_an_empty_outbox_has_nothing_to_take(ledger: Ledger, sweep: Sweep) -> None:
    assert take(ledger, sweep) == []
    assert counts(ledger, sweep) == (0, 0, 0)


def test_a_run_posted_again_is_delivered_again_with_its_new_payload(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a", "b")
    deliver(ledger, take(ledger, sweep))
    post(ledger, sweep, "a", payload="new")
    (again,) = take(ledger, sweep)
    assert (again.payload, again.attempts) == ("new", 2)
    assert counts(ledger, sweep) == (1, 1, 0)
    assert len(rows(ledger, OutboxRow)) == 2


def test_another_status_of_a_run_is_a_delivery_of_its_own(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "study", status="RUNNING")
    deliver(ledger, take(ledger, sweep))
    post(ledger, sweep, "study", status="FINISHED", payload="closed")
    assert payloads(take(ledger, sweep)) == ["closed"]
    assert counts(ledger, sweep) == (0, 1, 0)  # one run, and MLflow has not been told all of it


@pytest.mark.parametrize(("refusals", "waits"), [(0, True), (4, True), (5, False), (6, False)])
def test_a_run_is_parked_after_five_refusals(ledger: Ledger, sweep: Sweep, refusals: int, waits: bool) -> None:
    post(ledger, sweep, "bad", "good")
    bad, _ = take(ledger, sweep)
    refuse(ledger, bad, refusals)
    assert payloads(take(ledger, sweep)) == (["of bad", "of good"] if waits else ["of good"])
    assert counts(ledger, sweep) == ((0, 2, 0) if waits else (0, 1, 1))


def test_a_parked_run_keeps_its_last_error_and_is_delivered_when_posted_again(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "bad")
    (bad,) = take(ledger, sweep)
    refuse(ledger, bad, deliveries.REFUSALS)
    assert rows(ledger, OutboxRow)[0].error == "refusal 5"
    post(ledger, sweep, "bad", payload="mended")
    (mended,) = take(ledger, sweep)
    deliver(ledger, [mended])
    assert (mended.payload, rows(ledger, OutboxRow)[0].error) == ("mended", None)
    assert counts(ledger, sweep) == (1, 0, 0)


def test_an_unreachable_mlflow_never_parks_a_run(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a")
    for _ in range(deliveries.REFUSALS + 2):
        posted = take(ledger, sweep)
    assert [row.attempts for row in posted] == [deliveries.REFUSALS + 2]


def test_run_ids_are_those_of_the_asked_runs_that_were_delivered(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a", "b", "c")
    first, second, _ = take(ledger, sweep)
    deliver(ledger, [first, second])
    with ledger.read() as connection:
        assert deliveries.run_ids(connection, ["b", "c", "never posted"]) == {"b": f"run {second.id}"}


def test_a_run_id_is_known_while_the_run_waits_to_be_delivered_again(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a")
    (posted,) = take(ledger, sweep)
    deliver(ledger, [posted])
    post(ledger, sweep, "a", payload="new")
    with ledger.read() as connection:
        assert deliveries.run_ids(connection, ["a"]) == {"a": f"run {posted.id}"}


def test_each_sweep_has_an_outbox_of_its_own(ledger: Ledger, sweep: Sweep) -> None:
    other = launched(ledger, plan(name="lecture"))
    post(ledger, sweep, "a")
    post(ledger, other, "b")
    assert payloads(take(ledger, other)) == ["of b"]
    assert [row.attempts for row in rows(ledger, OutboxRow)] == [0, 1]
    assert counts(ledger, sweep) == (0, 1, 0)


def test_moments_of_the_outbox_are_aware_and_in_utc(ledger: Ledger, sweep: Sweep) -> None:
    post(ledger, sweep, "a")
    deliver(ledger, take(ledger, sweep))
    (row,) = rows(ledger, OutboxRow)
    assert (row.created_at.tzinfo, row.delivered_at.tzinfo) == (UTC, UTC)
    assert row.created_at <= row.delivered_at
