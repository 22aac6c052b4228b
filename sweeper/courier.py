"""The process that delivers a sweep's runs to MLflow, beside training and at a low priority.

It is a child of `sweeper run` (see `child`). It goes on for as long as its parent wants it to, and then empties the
outbox, hands MLflow the report of a sweep that is complete, and ends; were its parent killed, it would deliver all that
the ledger holds and end as well.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sweeper import child
from sweeper.errors import DeliveryError, ReportError, SweeperError
from sweeper.export import Delivery, MlflowSink, Progress, configure_process, drain, from_json, prepare
from sweeper.findings import write_report
from sweeper.ledger import deliveries, reads, retries, sweeps, workers
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Connection, Ledger

LEASE_S = 60.0
RENEW_S = LEASE_S / 4
RETRY_S = 2.0  # between two tries to reach MLflow at the start
NICENESS = 10
PATIENCE_S = 600.0  # that a command waits at its end for MLflow; `mlflow sync` delivers what is left


class LedgerOutbox:
    """A sweep's outbox in the ledger, as the exporter wants it; whoever has its lease delivers."""

    def __init__(self, ledger: Ledger, sweep: Sweep) -> None:
        self._ledger, self._sweep = ledger, sweep
        self._lease, self._owner = f"export:{sweep.id}", workers.this_process()
        self.is_mine = self.has_lapsed = self._is_lost = False
        self._renewed = 0.0

    def claim_deliveries(self, limit: int) -> Sequence[Delivery]:
        """See `export.Outbox`; nothing while another process delivers."""
        with self._ledger.write() as connection:
            self._take_lease(connection)
            self.has_lapsed = False  # what is taken from here on says itself whether it was taken before
            posted = deliveries.take(connection, self._sweep.id, limit) if self.is_mine else []
            return [Delivery(row.id, row.attempts, from_json(row.payload)) for row in posted]

    def is_lost(self) -> bool:
        """Whether another process took over what this one is delivering; renews the lease while it can.

        A lease that ran out while this process was frozen is taken again where it is free, and `has_lapsed`: another
        process may have had it, and have delivered what this one has in hand.
        """
        if self.is_mine and time.monotonic() - self._renewed >= RENEW_S:
            with self._ledger.write() as connection:
                self.has_lapsed |= not workers.keep_lease(connection, self._lease, self._owner, LEASE_S)
                self._take_lease(connection)
            self._is_lost = not self.is_mine
        return self._is_lost

    def take_lease(self) -> bool:
        """Whether this process is the one that delivers now."""
        with self._ledger.write() as connection:
            self._take_lease(connection)
        return self.is_mine

    def delivered(self, refs: Mapping[int, str]) -> None:
        """See `export.Outbox`."""
        with self._ledger.write() as connection:
            deliveries.record_delivered(connection, refs)

    def failed(self, item_id: int, error: str) -> None:
        """See `export.Outbox`."""
        with self._ledger.write() as connection:
            deliveries.record_refused(connection, item_id, error)

    def run_ids(self, uids: Sequence[str]) -> Mapping[str, str]:
        """See `export.Outbox`."""
        with self._ledger.read() as connection:
            return deliveries.run_ids(connection, uids)

    def undelivered(self) -> int:
        """See `export.Outbox`."""
        with self._ledger.read() as connection:
            return deliveries.counts(connection, self._sweep.id)[1]

    def let_go(self) -> None:
        """Free the lease."""
        with self._ledger.write() as connection:
            workers.drop_lease(connection, self._lease, self._owner)

    def _take_lease(self, connection: Connection) -> None:
        self._renewed = time.monotonic()
        self.is_mine = workers.take_lease(connection, self._lease, self._owner, LEASE_S)


def deliver(
    ledger: Ledger,
    sweep: Sweep,
    tracking_uri: str,
    artifacts: Path,
    *,
    more_to_come: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Deliver a sweep's runs until none is left and none is to come, and then its report, if it is complete.

    While more is to come an unreachable MLflow is tried again and again; afterwards once.

    Returns:
        Where the delivery ended; its `problem` says so where another process has runs of this sweep in hand.

    Raises:
        DeliveryError: MLflow can't be reached and no more is to come.
        ReportError: all runs are delivered, but the report is not.
    """
    configure_process()
    ledger.patience_s, ledger.is_hurried = retries.PATIENCE_S, lambda: not more_to_come()
    outbox, last = LedgerOutbox(ledger, sweep), [Progress(0, 0, 0)]
    sink = MlflowSink(tracking_uri, artifact_root=str(artifacts))

    def remember(progress: Progress) -> None:
        last[0] = progress
        on_progress(progress)

    def is_hopeless() -> bool:
        return last[0].problem is not None and not more_to_come()

    try:
        _prepare(tracking_uri, more_to_come)
        result = drain(
            outbox,
            sink,
            should_stop=lambda: is_hopeless() or outbox.is_lost(),
            has_lapsed=lambda: outbox.has_lapsed,
            wait_for_more=more_to_come,
            on_progress=remember,
        )
        if not result.undelivered:
            _log_report(ledger, sweep, sink, outbox)
    finally:
        outbox.let_go()
    if is_hopeless():
        raise DeliveryError(f"{last[0].problem} {last[0].undelivered} runs wait in the ledger.")
    if result.undelivered and not outbox.is_mine:
        return replace(result, problem="another process is delivering them")
    return result


def _log_report(ledger: Ledger, sweep: Sweep, sink: MlflowSink, outbox: LedgerOutbox) -> None:
    """Log the report of a sweep that is complete or has spent its budget to its run, once for as many finished trials.

    Where another process is at it, wait: it gets it done, or leaves it to this one.
    """
    with ledger.read() as connection:
        now = {one.id: one for one in sweeps.every(connection)}.get(sweep.id)  # its file may be another since
        progress = reads.progress(connection, sweep.id)
        run_id = deliveries.run_ids(connection, [sweep.uid]).get(sweep.uid)
    is_over = now is not None and (now.state == sweeps.SPENT or all(space.is_complete for space in progress))
    if now is None or run_id is None or not is_over:
        return  # forgotten, refused, or not done
    state = str(sum(space.finished for space in progress))
    try:
        while sink.wants_report(run_id, state):
            if outbox.take_lease():
                with TemporaryDirectory(prefix="sweeper-report-") as folder:
                    write_report(ledger, now, Path(folder))
                    sink.log_report(run_id, Path(folder), state)
                return
            time.sleep(RETRY_S)
    except (SweeperError, OSError) as error:
        raise ReportError(
            f"the report of {sweep.name} is not in MLflow, though all its runs are: {error}. Try again: sweeper mlflow "
            f"sync {sweep.name}"
        ) from error


def _prepare(tracking_uri: str, more_to_come: Callable[[], bool]) -> None:
    """Make MLflow's store ready; a server that is down may come up while more is to come."""
    while True:
        try:
            return prepare(tracking_uri)
        except DeliveryError:
            if not more_to_come():
                raise
        time.sleep(RETRY_S)


@contextmanager
def following(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m sweeper ARGV` as a courier for as long as the block lasts; leaving it tells the courier to finish.

    Args:
        argv: the command that delivers, e.g. ["mlflow", "sync", "digits", "--follow"].
        environment: what to add to this process's own.
        log: where its errors go.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = child.start(argv, environment, 1, errors)
    try:
        yield process
    finally:
        child.part(process)


def until_closed_input() -> Callable[[], bool]:
    """Become a courier: a low priority, and an answer to whether the parent still runs."""
    os.nice(NICENESS)
    closed = threading.Event()
    child.on_closed_input(closed.set)
    return lambda: not closed.is_set()
