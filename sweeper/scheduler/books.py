"""What a worker enters into the ledger, and what it learns there in the same transaction.

Every method that takes a connection is the body of a transaction; one may be run again where the store went away, and
changes nothing here that such a run would miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.engine import Tick
from sweeper.ledger import deliveries, rungs, sweeps, trials, workers
from sweeper.ledger.rows import Claimed, History, Meter, Settlement, Study, Sweep
from sweeper.ledger.store import Connection
from sweeper.records import Cost
from sweeper.scheduler import refusals
from sweeper.scheduler.desks import Desks
from sweeper.scheduler.exchange import Answer, News
from sweeper.scheduler.settling import closings, overlooked
from sweeper.scheduler.sharing import Part
from sweeper.scheduler.spool import Spool
from sweeper.timesheet import Timesheet


@dataclass
class Books:
    """The ledger's side of one worker's work on one sweep.

    Attributes:
        worker: this worker in the ledger.
        part: its share of the sweep's studies. desks: where it proposes for them.
        minds_others: whether it matters what other workers train.
        studies: all of the sweep's, by id.
        storage: seconds that keeping the last results took, by attempt; charged one transaction later.
        state: of the sweep, as of the last transaction.
        nobody_waits: whether the last claim found fewer trials than there was room for.
        is_alone: whether no other worker trained a trial of the sweep then.
        handed_in: results that workers left behind which died here.
    """

    sweep: Sweep
    worker: int
    times: Timesheet
    part: Part
    desks: Desks
    spool: Spool
    state: str
    minds_others: bool = False
    studies: dict[int, Study] = field(default_factory=dict)
    storage: dict[int, float] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)
    nobody_waits: bool = False
    is_alone: bool = False
    handed_in: list[Settlement] = field(default_factory=list)

    def take_over(self, connection: Connection) -> tuple[list[Study], list[int], History]:
        """Bury the dead and take this worker's share; returns the sweep's studies, its own, and what is new of them."""
        sweeps.hold(connection, self.sweep.id)
        workers.beat(connection, self.worker)  # before the dead are sought: this worker is none of them
        studies = sweeps.studies(connection, self.sweep.id)
        self._hand_in(connection, {study.id: study for study in studies})
        if self.part.seeks_dead:
            workers.bury_dead(connection)
        mine = self.part.take_anew(connection)
        return studies, mine, self._history(connection, mine)

    def bury_dead(self, connection: Connection) -> int:
        """Retire workers that died, after what they left behind here is settled; returns how many trials are free."""
        sweeps.hold(connection, self.sweep.id)
        self._hand_in(connection, self.studies)
        return workers.bury_dead(connection)

    def forget_handed_in(self) -> None:
        """The store has them now."""
        self.spool.forget(self.sweep.uid, self.handed_in)

    def exchange(
        self, news: News, room: Callable[[], int], is_empty: Callable[[], bool], shares: bool, connection: Connection
    ) -> Answer:
        """Keep what is over, and learn what comes next.

        Args:
            news: what is to be kept.
            room: how many trials to claim.
            is_empty: whether this worker trains nothing.
            shares: whether it is time to share the studies anew.
            connection: the transaction.
        """
        self.refuse_if_forgotten(connection)
        is_late = self.settle(connection, news)
        trials.charge_storage(connection, self.storage)
        if is_late:
            self.enter_times(connection)
            return Answer(is_late)
        claimed = self._fill(connection, news, room(), is_empty())
        mine = self.part.take(connection) if shares else sorted(self.desks.studies)
        self.refuse_if_extended(self.studies.keys() >= set(mine))
        history = self._history(connection, mine)
        self.enter_times(connection)
        return Answer(is_late, claimed, mine, history)

    def let_go(
        self, news: News, given_up: Mapping[Claimed, Cost], errors: Mapping[Claimed, str], connection: Connection
    ) -> None:
        """Keep what is over, and put the rest back; see `trials.release`."""
        sweeps.hold(connection, self.sweep.id)
        self.settle(connection, news)
        trials.charge_storage(connection, self.storage)
        trials.release(connection, self.worker, given_up, errors)

    def leave(self, settle_up: Callable[[Connection], None], connection: Connection) -> None:
        """Enter what is still to be entered, and free the worker's studies.

        Args:
            settle_up: gives back what is left of the budget, once all that was spent is entered.
            connection: the transaction.
        """
        if sweeps.hold(connection, self.sweep.id) is not None:
            trials.charge_storage(connection, self.storage)
            self.enter_times(connection)
            settle_up(connection)
            self._close(connection, self.studies, overlooked(connection, self.sweep, self.studies))
        workers.give_back(connection, self.worker, workers.LOST)  # none, unless this worker failed in mid-turn
        workers.retire(connection, self.worker)

    def settle(self, connection: Connection, news: News) -> bool:
        """Keep what is over and what was reached, and close studies that are complete now; whether it was too late."""
        has_ended = workers.has_ended(connection, self.worker)
        counted = trials.settle(connection, self.worker, self.sweep.id, news.settlements)
        if len(counted) < len(news.settlements) or has_ended:
            return True
        rungs.enter(connection, news.reached)
        self._close(connection, self.studies, self.desks.perhaps_complete(news.over))
        return False

    def enter_tick(self, tick: Tick) -> None:
        """Enter what a tick took of the device, the share of slots without a fit by itself."""
        busy_share = 1 - tick.idle_s / (tick.train_s + tick.evaluate_s)
        self.times.add("train", tick.train_s * busy_share)
        self.times.add("evaluate", tick.evaluate_s * busy_share)
        self.times.add("idle", tick.idle_s)
        self.meter += Meter(tick.busy, tick.steps * tick.slots, tick.joules)

    def enter_times(self, connection: Connection) -> None:
        """Enter where this worker's time went."""
        workers.set_times(connection, self.worker, self.sweep.id, self.times.totals())
        workers.set_meter(connection, self.worker, self.sweep.id, self.meter)

    def refuse_if_forgotten(self, connection: Connection) -> None:
        """Learn whether the sweep was stopped; there is nothing to go on with where it is gone."""
        state = sweeps.hold(connection, self.sweep.id)
        if state is None:
            raise refusals.forgotten(self.sweep.name)
        self.state = state

    def refuse_if_extended(self, is_known: bool) -> None:
        """This worker has neither data nor spaces for studies that were added since it began."""
        if not is_known:
            raise refusals.extended(self.sweep.name)

    def _history(self, connection: Connection, mine: Sequence[int]) -> History:
        """What proposing for those of these studies takes that are new to this worker."""
        new = [id_ for id_ in mine if id_ not in self.desks.studies]
        return self.part.history(connection, new) if new else History()

    def _fill(self, connection: Connection, news: News, room: int, is_empty: bool) -> list[Claimed]:
        """Enter what comes next, and claim what there is room for; a suspect where there is nothing else."""
        trials.propose(connection, news.proposed)
        sweep, worker = self.sweep.id, self.worker
        claimed = trials.claim(connection, sweep, worker, room) if room > 0 else []
        self.nobody_waits = len(claimed) < room
        if is_empty and not claimed:
            claimed = trials.claim(connection, sweep, worker, 1, suspect=True)
        self.refuse_if_extended({one.study_id for one in claimed} <= self.studies.keys())
        if self.minds_others:
            self.is_alone = not workers.has_company(connection, sweep, worker)
        return claimed

    def _hand_in(self, connection: Connection, studies: Mapping[int, Study]) -> None:
        """Settle what workers that died here could not; what comes too late is kept, and does not count."""
        by_worker: dict[int, list[Settlement]] = {}
        for left in self.spool.left(self.sweep.uid):
            by_worker.setdefault(left.worker_id, []).append(left.settlement)
        touched: set[int] = set()
        for worker, settlements in by_worker.items():
            if workers.has_died(connection, worker):
                self.handed_in += settlements
                trials.settle(connection, worker, self.sweep.id, settlements)
                workers.make_up_times(connection, worker, self.sweep.id)
                touched |= {one.claimed.study_id for one in settlements}
        self._close(connection, studies, sorted(touched & studies.keys()))

    def _close(self, connection: Connection, studies: Mapping[int, Study], touched: Sequence[int]) -> None:
        if touched:
            deliveries.post(connection, self.sweep.id, closings(connection, self.sweep, studies, touched))
