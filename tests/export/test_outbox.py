from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import DeliveryError
from sweeper.export import Delivery, Progress, RunRefusedError, drain, from_json, to_json
from sweeper.records import RunRecord

PARENT = RunRecord("digits/none/r00", "sweeper/digits", "digits", "none r00", "RUNNING", 1_000, None)


def child(number: int) -> RunRecord:
    uid = f"{PARENT.uid}/t{number:04d}"
    start, tags = 1_000 + number, {"sweeper.kind": "trial"}
    return RunRecord(uid, PARENT.experiment, PARENT.uid, uid, "FINISHED", start, 2_000 + number, tags=tags)


class MemoryOutbox:
    """The ledger's outbox, with its rules, in memory."""

    def __init__(self, *runs: RunRecord) -> None:
        self.rows = dict(enumerate(runs))
        self.attempts = dict.fromkeys(self.rows, 0)
        self.refs: dict[int, str] = {}
        self.errors: dict[int, list[str]] = {}

    def pending(self) -> list[int]:
        return [i for i in self.rows if i not in self.refs and len(self.errors.get(i, [])) < 5]

    def claim_deliveries(self, limit: int) -> Sequence[Delivery]:
        taken = self.pending()[:limit]
        for i in taken:
            self.attempts[i] += 1
        return [Delivery(i, self.attempts[i], self.rows[i]) for i in taken]

    def delivered(self, refs: Mapping[int, str]) -> None:
        self.refs |= refs

    def failed(self, item_id: int, error: str) -> None:
        self.errors.setdefault(item_id, []).append(error)

    def run_ids(self, uids: Sequence[str]) -> Mapping[str, str]:
        return {self.rows[i].uid: ref for i, ref in self.refs.items() if self.rows[i].uid in uids}

    def undelivered(self) -> int:
        return len(self.pending())

    def add(self, run: RunRecord) -> None:
        self.rows[len(self.rows)] = run
        self.attempts[len(self.rows) - 1] = 0


class MemorySink:
    """A tracking store in memory; `raises` holds what next deliveries raise, per uid or for all (None)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, str | None, bool]] = []
        self.raises: dict[str | None, list[Exception]] = {}

    def deliver(self, run: RunRecord, *, parent: str | None, known: str | None, search: bool) -> str:
        self.calls.append((run.uid, parent, known, search))
        for uid in (run.uid, None):
            if self.raises.get(uid):
                raise self.raises[uid].pop(0)
        return f"id of {run.uid}"


class Sleeps:
    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


RUNS = st.builds(
    RunRecord,
    uid=st.text(st.characters(exclude_categories=["Cs"])),
    experiment=st.text(st.characters(exclude_categories=["Cs"])),
    parent=st.none() | st.just("parent"),
    name=st.just("run"),
    status=st.sampled_from(["RUNNING", "FINISHED", "FAILED"]),
    start_ms=st.integers(0, 2**62),
    end_ms=st.none() | st.integers(0, 2**62),
    params=st.dictionaries(st.just("p"), st.text(st.characters(exclude_categories=["Cs"]))),
    tags=st.dictionaries(st.just("t"), st.just("v")),
    metrics=st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False)),
    curves=st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(allow_nan=False)).map(tuple)),
    epoch_ms=st.lists(st.integers(0, 2**62)).map(tuple),
)


@given(RUNS)
def test_a_run_comes_back_from_json_with_every_bit(run: RunRecord) -> None:
    back = from_json(to_json(run))
    assert back == run
    assert repr(back) == repr(run)  # -0.0 == 0.0, but not in its repr


def test_numbers_that_json_lacks_come_back_and_the_text_is_strict_json() -> None:
    run = replace(PARENT, metrics={"a": math.nan, "b": math.inf}, curves={"c": (-math.inf, math.nan, 0.1)})
    text = to_json(run)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)
    back = from_json(text)
    assert math.isnan(back.metrics["a"])
    assert back.metrics["b"] == math.inf
    assert back.curves["c"][0] == -math.inf
    assert math.isnan(back.curves["c"][1])
    assert " " not in text.replace("none r00", "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":1}', to_json(PARENT).replace('"uid"', '"id"')])
def test_a_row_that_holds_no_run_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(DeliveryError, match="holds no run"):
        from_json(text)


def test_a_row_of_a_newer_format_is_an_error_that_names_both() -> None:
    with pytest.raises(DeliveryError, match="format 7, but this version of sweeper reads format 1"):
        from_json(to_json(PARENT).replace('"format":1', '"format":7'))


def test_all_rows_are_delivered_and_children_learn_their_parents_run() -> None:
    outbox, sink = MemoryOutbox(PARENT, *(child(n) for n in range(45))), MemorySink()
    assert drain(outbox, sink) == Progress(delivered=46, refused=0, undelivered=0)
    assert len(sink.calls) == 46
    assert {call[1] for call in sink.calls[1:]} == {f"id of {PARENT.uid}"}
    assert outbox.refs == {i: f"id of {run.uid}" for i, run in outbox.rows.items()}


def test_first_deliveries_of_trials_are_not_searched_for_but_later_ones_are() -> None:
    outbox, sink = MemoryOutbox(PARENT, child(0), child(1)), MemorySink()
    outbox.attempts[2] = 1  # as after a kill between claim and delivery
    drain(outbox, sink)
    assert [search for *_, search in sink.calls] == [True, False, True]


def test_what_another_may_have_delivered_meanwhile_is_searched_for() -> None:
    outbox, sink, lapsed = MemoryOutbox(child(0), child(1), child(2)), MemorySink(), [False, True, False]
    drain(outbox, sink, has_lapsed=lambda: lapsed.pop(0))
    assert [search for *_, search in sink.calls] == [False, True, False]


def test_the_end_of_a_study_updates_the_run_of_its_start() -> None:
    outbox, sink = MemoryOutbox(PARENT, replace(PARENT, status="FINISHED", end_ms=9_000)), MemorySink()
    drain(outbox, sink)
    outbox.add(replace(PARENT, status="FINISHED", end_ms=99_000))
    drain(outbox, sink)
    assert [known for _, _, known, _ in sink.calls] == [None, f"id of {PARENT.uid}", f"id of {PARENT.uid}"]


def test_an_unreachable_store_is_tried_ever_more_rarely_and_nothing_is_lost() -> None:
    outbox, sink, sleeps, seen = MemoryOutbox(PARENT, child(0)), MemorySink(), Sleeps(), list[Progress]()
    sink.raises[None] = [DeliveryError("down")] * 9
    pauses = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        pauses.append(sum(sleeps.slept))

    assert drain(outbox, sink, sleep=sleeps, on_progress=note) == Progress(2, 0, 0)
    waited = [later - earlier for earlier, later in itertools.pairwise(pauses)]
    for pause, full in zip(waited, (0.5, 1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert 0.5 * full - 0.01 <= pause <= full + 0.01
    assert max(sleeps.slept) <= 0.2
    assert [p.problem for p in seen] == ["down"] * 9 + [None]
    assert outbox.errors == {}


def test_jitter_keeps_exporters_apart() -> None:
    totals = set()
    for _ in range(5):
        outbox, sink, sleeps = MemoryOutbox(PARENT), MemorySink(), Sleeps()
        sink.raises[None] = [DeliveryError("down")]
        drain(outbox, sink, sleep=sleeps)
        totals.add(sum(sleeps.slept))
    assert len(totals) == 5


def test_a_delivery_that_broke_off_is_searched_for_when_tried_again() -> None:
    outbox, sink = MemoryOutbox(child(0)), MemorySink()
    sink.raises[None] = [DeliveryError("reply lost")]
    drain(outbox, sink, sleep=Sleeps())
    assert [search for *_, search in sink.calls] == [False, True]


def test_what_was_delivered_is_recorded_before_backing_off() -> None:
    outbox, sink = MemoryOutbox(PARENT, child(0)), MemorySink()
    sink.raises[child(0).uid] = [DeliveryError("down")]
    recorded = []
    drain(outbox, sink, sleep=lambda _: recorded.append(dict(outbox.refs)))
    assert recorded[0] == {0: f"id of {PARENT.uid}"}


def test_a_refused_run_is_parked_with_its_error_and_the_rest_goes_on() -> None:
    outbox, sink = MemoryOutbox(PARENT, child(0), child(1)), MemorySink()
    sink.raises[child(0).uid] = [RunRefusedError("bad name")] * 9
    assert drain(outbox, sink) == Progress(delivered=2, refused=5, undelivered=0)
    assert outbox.errors == {1: ["bad name"] * 5}
    assert sorted(outbox.refs) == [0, 2]


def test_children_of_a_refused_parent_are_delivered_without_it() -> None:
    outbox, sink = MemoryOutbox(PARENT, child(0)), MemorySink()
    sink.raises[PARENT.uid] = [RunRefusedError("no")] * 9
    drain(outbox, sink)
    assert (child(0).uid, None, None, False) in sink.calls


def test_a_told_drain_stops_at_once_and_leaves_the_rest() -> None:
    outbox, sink = MemoryOutbox(PARENT, child(0), child(1)), MemorySink()
    progress = drain(outbox, sink, should_stop=lambda: len(sink.calls) >= 2)
    assert progress == Progress(delivered=2, refused=0, undelivered=1)
    assert sorted(outbox.refs) == [0, 1]


def test_a_told_drain_stops_while_it_backs_off() -> None:
    outbox, sink, sleeps = MemoryOutbox(PARENT), MemorySink(), Sleeps()
    sink.raises[None] = [DeliveryError("down")] * 99
    drain(outbox, sink, sleep=sleeps, should_stop=lambda: len(sleeps.slept) >= 7)
    assert len(sleeps.slept) == 7
    assert outbox.undelivered() == 1


def test_rows_that_arrive_while_the_outbox_is_found_empty_are_not_left_behind() -> None:
    outbox, sink = MemoryOutbox(PARENT), MemorySink()
    claim = outbox.claim_deliveries
    is_open = True

    def claim_then_close(limit: int) -> Sequence[Delivery]:
        nonlocal is_open
        claims = claim(limit)
        if not claims and is_open:
            is_open = False
            outbox.add(child(0))  # the last trial settles just after an empty claim
        return claims

    outbox.claim_deliveries = claim_then_close  # type: ignore[method-assign]
    drain(outbox, sink, wait_for_more=lambda: is_open, sleep=Sleeps())
    assert outbox.undelivered() == 0


def test_an_exporter_that_dies_between_delivery_and_record_delivers_again_with_a_search() -> None:
    outbox, sink = MemoryOutbox(child(0)), MemorySink()
    record = outbox.delivered

    def die(refs: Mapping[int, str]) -> None:
        raise KeyboardInterrupt

    outbox.delivered = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        drain(outbox, sink)
    outbox.delivered = record  # type: ignore[method-assign]
    assert drain(outbox, sink).delivered == 1
    assert [search for *_, search in sink.calls] == [False, True]
