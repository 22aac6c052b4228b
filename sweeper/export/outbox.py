"""The outbox as the exporter sees it, and the loop that empties it into a tracking store.

The ledger writes a row per run inside the transaction that settles a trial, so MLflow may be down, slow or
wiped: nothing is lost. The exporter delivers each row at least once, and finds its own half-made runs again
by uid, so that each run exists once (tests/export/test_mlflow.py interrupts it everywhere).
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sweeper.errors import DeliveryError
from sweeper.export.runs import KIND, Kind
from sweeper.records import RunRecord

FORMAT = 1
BATCH = 20
POLL_S = 0.5
BACK_OFF_START_S = 0.5
BACK_OFF_CAP_S = 30.0
_SLICE_S = 0.2


class RunRefusedError(DeliveryError):
    """The tracking store works, but won't take this one run; the others go on."""


class Claim(Protocol):
    """One claimed row of the outbox; any frozen class with these fields will do."""

    @property
    def id(self) -> int:
        """The row's id."""

    @property
    def attempts(self) -> int:
        """How often the row was claimed, this claim included: 1 means that no run can exist yet."""

    @property
    def run(self) -> RunRecord:
        """What to deliver."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A `Claim` as a plain record."""

    id: int
    attempts: int
    run: RunRecord


class Outbox(Protocol):
    """What the exporter asks of the ledger."""

    def claim_deliveries(self, limit: int) -> Sequence[Claim]:
        """Take up to `limit` undelivered rows that aren't parked: oldest first, parents before children.

        Each row's `attempts` has grown by one, durably, when this returns.
        """

    def delivered(self, refs: Mapping[int, str]) -> None:
        """Record that rows (by id) stand in the tracking store under these run ids."""

    def failed(self, item_id: int, error: str) -> None:
        """Record that the tracking store refused a row, and why; after five refusals the row is parked."""

    def run_ids(self, uids: Sequence[str]) -> Mapping[str, str]:
        """Give the run ids of those uids that were delivered before."""

    def undelivered(self) -> int:
        """Count the rows that are neither delivered nor parked."""


class Sink(Protocol):
    """A tracking store that takes runs."""

    def deliver(self, run: RunRecord, *, parent: str | None, known: str | None, search: bool) -> str:
        """Make the store hold `run` exactly once, with the content given here.

        Args:
            run: what the store must show.
            parent: run id of its parent, None where it has none or the parent was refused.
            known: run id under which the same uid was delivered before.
            search: the store may hold a half-made run of this uid; look for it before making one.

        Returns:
            The run id.

        Raises:
            RunRefusedError: the store works but refuses this run.
            DeliveryError: the store can't be reached, or works for no run at all.
        """


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a drain stands.

    Attributes:
        delivered, refused: rows delivered, and refusals met, since this drain began.
        undelivered: rows still to deliver.
        problem: why nothing is delivered at the moment; None while deliveries succeed.
    """

    delivered: int
    refused: int
    undelivered: int
    problem: str | None = None


def to_json(run: RunRecord) -> str:
    """Freeze a run as compact, strictly standard JSON.

    Floats are written so that the same bits are read back. What JSON has no number for becomes the string
    "NaN", "Infinity" or "-Infinity".
    """
    fields = vars(run) | {
        "format": FORMAT,
        "params": dict(run.params),
        "tags": dict(run.tags),
        "metrics": {key: _plain(value) for key, value in run.metrics.items()},
        "curves": {key: [_plain(value) for value in curve] for key, curve in run.curves.items()},
    }
    return json.dumps(fields, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> RunRecord:
    """Read back what `to_json` wrote.

    Raises:
        DeliveryError: the text is no run, or one that a newer version of sweeper wrote.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        found = fields.pop("format")
        if found == FORMAT:
            return RunRecord(**fields | _numbers(fields))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DeliveryError(
            f"an outbox row holds no run ({type(error).__name__}: {error}): {text[:60]!r}. "
            f"It must be the JSON that to_json writes; deliver the trial again from the ledger."
        ) from error
    raise DeliveryError(
        f"an outbox row has format {found}, but this version of sweeper reads format {FORMAT}. "
        f"Deliver it with the version that wrote it."
    )


def drain(
    outbox: Outbox,
    sink: Sink,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    has_lapsed: Callable[[], bool] = lambda: False,
    wait_for_more: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Progress:
    """Deliver until the outbox is empty and no more is to come, or until told to stop.

    While the store can't be reached it is tried again after 0.5 s, then ever more rarely up to every 30 s,
    with jitter; no row is lost or refused meanwhile. A run that the store refuses is recorded as failed, and
    the rest goes on.

    Args:
        outbox: where rows come from.
        sink: where they go to.
        should_stop: asked between deliveries and every 0.2 s of waiting; True ends the drain at once.
        has_lapsed: asked before each delivery, whether another process may have made the run since it was claimed here.
        wait_for_more: whether an empty outbox may still fill up; it is then looked at every 0.5 s.
        on_progress: told after each batch, and when the store can't be reached.
        sleep: waits for some seconds.

    Returns:
        Where the drain ended.
    """
    return _Drain(outbox, sink, should_stop, has_lapsed, on_progress, sleep).run(wait_for_more)


class _Drain:
    """One drain: what it delivered, what is not recorded yet, and how long it backs off next."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        should_stop: Callable[[], bool],
        has_lapsed: Callable[[], bool],
        on_progress: Callable[[Progress], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._should_stop = should_stop
        self._has_lapsed = has_lapsed
        self._on_progress = on_progress
        self._sleep = sleep
        self._delivered = 0
        self._refused = 0
        self._problem: str | None = None
        self._back_off_s = BACK_OFF_START_S
        self._unrecorded: dict[int, str] = {}

    def run(self, wait_for_more: Callable[[], bool]) -> Progress:
        while not self._should_stop():
            more = wait_for_more()  # asked first: rows may arrive between an empty claim and the answer
            claims = self._outbox.claim_deliveries(BATCH)
            if claims:
                self._deliver_batch(claims)
                self._report()
            elif more:
                self._wait(POLL_S)
            else:
                break
        return self._progress()

    def _deliver_batch(self, claims: Sequence[Claim]) -> None:
        known = dict(self._outbox.run_ids(_uids(claims)))
        try:
            for claim in claims:
                run_id = self._deliver(claim, known)
                if run_id is not None:
                    known[claim.run.uid] = self._unrecorded[claim.id] = run_id
        finally:
            self._record()

    def _deliver(self, claim: Claim, known: Mapping[str, str]) -> str | None:
        run = claim.run
        # Sweeps and studies are delivered at their start and end; the start may have been refused half-way.
        search = claim.attempts > 1 or run.tags.get(KIND) != Kind.TRIAL
        parent = known.get(run.parent) if run.parent else None
        while not self._should_stop():
            search |= self._has_lapsed()
            try:
                run_id = self._sink.deliver(run, parent=parent, known=known.get(run.uid), search=search)
            except RunRefusedError as error:
                self._refuse(claim, error)
                return None
            except DeliveryError as error:
                self._back_off(str(error))
                search = True  # the store may have made the run before it fell silent
            else:
                self._problem, self._back_off_s = None, BACK_OFF_START_S
                return run_id
        return None

    def _refuse(self, claim: Claim, error: RunRefusedError) -> None:
        self._outbox.failed(claim.id, str(error))
        self._refused += 1

    def _back_off(self, problem: str) -> None:
        self._problem = problem
        self._record()
        self._report()
        self._wait(self._back_off_s * random.uniform(0.5, 1.0))
        self._back_off_s = min(2 * self._back_off_s, BACK_OFF_CAP_S)

    def _wait(self, seconds: float) -> None:
        while seconds > 0 and not self._should_stop():
            self._sleep(min(seconds, _SLICE_S))
            seconds -= _SLICE_S

    def _record(self) -> None:
        if self._unrecorded:
            self._outbox.delivered(self._unrecorded)
            self._delivered += len(self._unrecorded)
            self._unrecorded = {}

    def _report(self) -> None:
        self._on_progress(self._progress())

    def _progress(self) -> Progress:
        return Progress(self._delivered, self._refused, self._outbox.undelivered(), self._problem)


def _uids(claims: Sequence[Claim]) -> list[str]:
    own = {claim.run.uid for claim in claims}
    parents = {claim.run.parent for claim in claims if claim.run.parent}
    return sorted(own | parents)


def _plain(value: float) -> float | str:
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _numbers(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metrics": {key: float(value) for key, value in fields["metrics"].items()},
        "curves": {key: tuple(float(value) for value in curve) for key, curve in fields["curves"].items()},
        "epoch_ms": tuple(fields["epoch_ms"]),
    }
