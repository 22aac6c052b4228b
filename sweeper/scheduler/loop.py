"""The loop of a worker: train, judge, keep, admit.

A tick trains every slot. Then trials are judged, what ended is kept together with what comes next in one transaction,
and that is put into the engine; only what is committed is trained. A worker that dies loses a tick or two.

Where the engine works by itself (a GPU), the host keeps what the tick before left, and prepares what comes next, while
the device is at work on the next tick. There is one order of things for both; where `_keep` stands in it is all that
differs, and nothing that is found does (tests/scheduler/test_overlap.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from sweeper.engine import Engine, Tick
from sweeper.ledger import deliveries, reads, rungs, sweeps, trials, workers
from sweeper.ledger.rows import Claimed, Meter, NewTrial, PastTrial, Settlement, Study, Sweep
from sweeper.ledger.store import Connection, Ledger
from sweeper.letters import study_name
from sweeper.records import Cost
from sweeper.scheduler import refusals
from sweeper.scheduler.cases import Case
from sweeper.scheduler.desks import Desks
from sweeper.scheduler.entrance import Entrance
from sweeper.scheduler.exchange import Answer, News
from sweeper.scheduler.judge import Judge
from sweeper.scheduler.saving import NEVER, Saver, Saving
from sweeper.scheduler.settling import closings, settlement
from sweeper.scheduler.sharing import Part
from sweeper.timesheet import Timesheet
from sweeper.workload import Workload

LOOK_S = 1.0  # after so long a worker looks into the ledger though nothing of its own calls for it


class Scheduler:
    """Works on one sweep with one engine.

    Args:
        ledger: the store.
        sweep: what to work on.
        workload: the sweep made concrete.
        engine: trains the fits; its folds are the workload's.
        worker_id: this worker in the ledger.
        times: the worker's timesheet.
        identity: worker and device by name, for the runs' tags.
        saving: where trials that are under way are kept, and how often.
    """

    def __init__(
        self,
        ledger: Ledger,
        sweep: Sweep,
        workload: Workload,
        engine: Engine,
        *,
        worker_id: int,
        times: Timesheet,
        identity: Mapping[str, str],
        saving: Saving = NEVER,
    ) -> None:
        self.ledger, self.sweep, self.workload, self.engine = ledger, sweep, workload, engine
        self._worker, self._times, self._identity = worker_id, times, identity
        self._desks, self._judge = Desks(workload), Judge(workload)
        self._studies: dict[int, Study] = {}
        self._cases: dict[int, Case] = {}  # by trial: claimed and not settled
        self._by_key: dict[str, Case] = {}  # by fit: those in the engine
        self._over: list[Case] = []  # out of the engine, not settled yet
        self._storage: dict[int, float] = {}
        self._part = Part(sweep.id, worker_id, self._desks)
        self._saver = Saver(saving, engine, self._name_of)
        self._entrance = Entrance(workload, engine, self._saver)
        self._looked_at, self._nobody_waits, self._is_alone = 0.0, False, False
        self._tick_s = self._keep_s = 0.0
        self.state = sweep.state
        self.meter = Meter()

    @property
    def is_idle(self) -> bool:
        """Whether this worker has no trial."""
        return not self._cases

    @property
    def occupancy(self) -> float:
        """Busy slot-steps over all slot-steps so far."""
        return self.meter.occupancy or 0.0

    def open(self) -> None:
        """Take over the studies that nobody proposes for, rebuild their samplers, and claim the first trials."""
        with self._times.on("storage"):
            studies, mine, history = self.ledger.keep(self._take_over)
        spaces, replicates = self.workload.spaces, len(self.workload.folds)
        self._refuse_if_extended(all(one.space in spaces and one.replicate < replicates for one in studies))
        self._studies = {study.id: study for study in studies}
        self._judge.open(studies)
        with self._times.on("suggest"):
            self._desks.open([self._studies[id_] for id_ in mine], history)
        self._keep()
        self._admit()

    def _take_over(self, connection: Connection) -> tuple[list[Study], list[int], list[PastTrial]]:
        """Bury the dead and take this worker's share; returns the sweep's studies, its own, and their trials."""
        sweeps.hold(connection, self.sweep.id)
        workers.beat(connection, self._worker)  # before the dead are sought: this worker is none of them
        workers.bury_dead(connection)
        mine = self._part.take(connection)
        return sweeps.studies(connection, self.sweep.id), mine, trials.past(connection, mine)

    def turn(self) -> None:
        """One tick with all that it calls for."""
        if self._by_key:
            self._tick()
            if self._saver.is_due:
                self._save()
        if not self.engine.overlaps or self._is_worth_waiting_for():
            self._keep_if_due()
        self._admit()

    def wait(self, seconds: float) -> None:
        """Nothing to train: look again in a while whether others left trials or studies."""
        with self._times.on("wait"):
            time.sleep(seconds)
        self.open()

    def give_up(self, *, saves: bool = True) -> None:
        """Let go of everything that is not finished; it stays in the ledger, to be gone on with.

        Args:
            saves: whether to save how far it has come; of an engine that failed there is nothing to save.
        """
        if saves:
            self._save()
        costs = self.engine.evict()
        over, self._over = self._over, []
        given_up = {
            case.claimed: case.cost + sum((costs.get(key, Cost()) for key in case.training), Cost())
            for case in self._cases.values()
            if case not in over
        }
        news = self._news(over)

        def let_go(connection: Connection) -> None:
            sweeps.hold(connection, self.sweep.id)
            self._settle(connection, news)
            trials.charge_storage(connection, self._storage)
            trials.release(connection, self._worker, given_up)

        with self._times.on("storage"):
            self.ledger.keep(let_go)
        self._storage = {}
        for held in (self._cases, self._by_key, self._entrance):
            held.clear()

    def close(self) -> None:
        """Enter what is still to be entered, and free the worker's studies."""

        def leave(connection: Connection) -> None:
            if sweeps.hold(connection, self.sweep.id) is not None:
                trials.charge_storage(connection, self._storage)
                self._enter_times(connection)
            workers.give_back(connection, self._worker, workers.LOST)  # none, unless this worker failed in mid-turn
            workers.retire(connection, self._worker)

        self.ledger.keep(leave)

    def is_done(self) -> bool:
        """Whether every trial of the sweep is finished, whoever worked on it."""
        if not self.is_idle:
            return False
        with self.ledger.read() as connection:
            return all(space.is_complete for space in reads.progress(connection, self.sweep.id))

    # train ----------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Train one tick and judge; where the device works by itself, the host keeps what the tick before left."""
        began, mark = time.perf_counter(), self._times.mark()
        self.engine.launch()
        if self.engine.overlaps:
            self._keep_if_due()
        self._look_at_others()
        tick = self.engine.collect()
        self._tick_s = tick.train_s + tick.evaluate_s
        if self.engine.overlaps:
            self._times.hide(mark, behind=self._tick_s, within=time.perf_counter() - began)
        self._enter_tick(tick)
        self._judge_tick(tick)

    def _enter_tick(self, tick: Tick) -> None:
        busy_share = 1 - tick.idle_s / (tick.train_s + tick.evaluate_s)
        self._times.add("train", tick.train_s * busy_share)
        self._times.add("evaluate", tick.evaluate_s * busy_share)
        self._times.add("idle", tick.idle_s)
        self.meter += Meter(tick.busy, tick.steps * tick.slots, tick.joules)

    def _is_worth_waiting_for(self) -> bool:
        """Whether to keep what is over before the next tick: slots that nobody is ready for would be empty all along.

        So it is with few studies, each of which needs to know how its last trial ended before it proposes another.
        """
        folds = self.workload.folds_per_trial
        unfilled = self.engine.free - folds * self._entrance.waiting
        if unfilled >= self.engine.slots:
            return True
        asks_more = bool(self._over) and self._desks.ask_more
        return asks_more and unfilled * self._tick_s > self.engine.slots * self._keep_s

    # judge ----------------------------------------------------------------------------------------------------------

    def _judge_tick(self, tick: Tick) -> None:
        """Say which trials are over: by themselves, because a fold diverged, or because they are hopeless."""
        for result in tick.results:
            self._by_key[result.key].end(result)
        for key, score in tick.scores.items():
            self._by_key[key].note(key, score)
        training = list(dict.fromkeys(self._by_key.values()))
        self._prune(self._judge.hopeless(training))
        for case in training:
            if case.is_over:
                self._leave(case)

    def _prune(self, hopeless: Sequence[Case]) -> None:
        keys = [key for case in hopeless for key in case.training]
        if keys:
            for result in self.engine.prune(keys):
                self._by_key[result.key].end(result)

    def _leave(self, case: Case) -> None:
        """Out of the engine with a trial; where a fold diverged, its others are given up."""
        for fit in case.fits:
            del self._by_key[fit.key]
        if case.training:
            case.given_up = sum(self.engine.evict(case.training).values(), case.given_up)
        self._judge.ended(case)
        self._over.append(case)

    def _look_at_others(self) -> None:
        """Learn what other workers' trials have reached, where this tick brings one of this worker's to a rung."""
        cases = list(self._cases.values())
        training = list(dict.fromkeys(self._by_key.values()))
        unknown = self._judge.unknown(training, is_alone=self._is_alone)
        if unknown:
            first = self._judge.first_unknown(unknown)
            with self._times.on("storage"):
                peers = self.ledger.ask(partial(rungs.peers, study_ids=unknown, first=first))
            self._judge.learn(peers, cases)

    # keep -----------------------------------------------------------------------------------------------------------

    def _keep_if_due(self) -> None:
        """No transaction while nothing is over, nothing was reached, and nobody waits for the room that there is."""
        is_due = (
            self._over
            or (not self._nobody_waits and self._room() > 0)
            or self._judge.has_to_keep(self._by_key.values())
            or time.perf_counter() - self._looked_at > LOOK_S
        )
        if is_due:
            self._keep()

    def _keep(self) -> None:
        """Tell, ask, and commit the outcome together with what comes next; then draw its initial weights."""
        started = time.perf_counter()
        over, self._over = self._over, []
        with self._times.on("storage"):
            elsewhere = self._part.ended_elsewhere(self.ledger, self._cases.values())
        with self._times.on("suggest"):
            self._desks.learn(elsewhere)
            self._desks.tell(over)
            proposed = self._desks.ask(self.engine.slots * (2 if self.engine.overlaps else 1) * self._part.crowd)
        news = self._news(over, proposed)
        began = time.perf_counter()
        is_late, claimed, mine, history = self.ledger.keep(partial(self._enter, news, self._part.is_due))
        took = time.perf_counter() - began
        self._times.add("storage", took)
        self._storage = {case.claimed.attempt_id: took / len(over) for case in over}
        self._looked_at = time.perf_counter()
        for case in over:
            del self._cases[case.claimed.trial_id]
        with self._times.on("storage"):
            self._saver.forget(over)
        if is_late:
            raise refusals.taken_over(self.sweep.name)
        with self._times.on("suggest"):
            self._take_on(mine, history)
        with self._times.on("prepare"):
            for one in claimed:
                self._cases[one.trial_id] = self._entrance.receive(one, self._studies[one.study_id].replicate)
        self._keep_s = time.perf_counter() - started

    def _enter(self, news: News, shares: bool, connection: Connection) -> Answer:
        """The transaction; it may be run again, and changes nothing that such a run would miss."""
        self._refuse_if_forgotten(connection)
        is_late = self._settle(connection, news)
        trials.charge_storage(connection, self._storage)
        if is_late:
            self._enter_times(connection)
            return Answer(is_late)
        claimed = self._fill(connection, news.proposed)
        mine = self._part.take(connection) if shares else sorted(self._desks.studies)
        self._refuse_if_extended(self._studies.keys() >= set(mine))
        new = [id_ for id_ in mine if id_ not in self._desks.studies]
        history = trials.past(connection, new) if new else []
        self._enter_times(connection)
        return Answer(is_late, claimed, mine, history)

    def _take_on(self, mine: Sequence[int], history: Sequence[PastTrial]) -> None:
        """Propose for these studies; `history` has the trials of those that are new here."""
        self._desks.let_go(self._desks.studies.difference(mine))
        self._desks.take_on([self._studies[id_] for id_ in mine if id_ not in self._desks.studies], history)

    def _news(self, over: Sequence[Case], proposed: Sequence[NewTrial] = ()) -> News:
        return News(over, self._settlements(over), self._judge.to_keep(self._by_key.values(), over), proposed)

    def _settlements(self, over: Sequence[Case]) -> list[Settlement]:
        task = self.workload.task
        return [
            settlement(case, self.sweep, self._studies[case.claimed.study_id], task, self._identity) for case in over
        ]

    def _settle(self, connection: Connection, news: News) -> bool:
        """Keep what is over and what was reached, and close studies that are complete now; whether it was too late."""
        has_ended = workers.has_ended(connection, self._worker)
        counted = trials.settle(connection, self._worker, self.sweep.id, news.settlements)
        if len(counted) < len(news.settlements) or has_ended:
            return True
        rungs.enter(connection, news.reached)
        last = self._desks.perhaps_complete(news.over)
        if last:
            deliveries.post(connection, self.sweep.id, closings(connection, self.sweep, self._studies, last))
        return False

    def _fill(self, connection: Connection, proposed: Sequence[NewTrial]) -> list[Claimed]:
        """Enter what comes next, and claim what there is room for."""
        trials.propose(connection, proposed)
        room = self._room()
        claimed = trials.claim(connection, self.sweep.id, self._worker, room) if room > 0 else []
        self._refuse_if_extended({one.study_id for one in claimed} <= self._studies.keys())
        self._nobody_waits = len(claimed) < room
        if self._judge.minds_others:
            self._is_alone = not workers.has_company(connection, self.sweep.id, self._worker)
        return claimed

    def _room(self) -> int:
        """How many trials to claim: for free slots, and beside a device at work for those that may soon be free."""
        folds = self.workload.folds_per_trial
        room = self.engine.free // folds - self._entrance.waiting
        if self.engine.overlaps:
            soon = sum(self._may_end(case) for case in dict.fromkeys(self._by_key.values()))
            room += soon + 1 + self.engine.slots // (8 * folds)
        return room

    def _may_end(self, case: Case) -> bool:
        return case.epoch + 1 >= self.workload.training.epochs or self._judge.is_near(case)

    def _enter_times(self, connection: Connection) -> None:
        workers.set_times(connection, self._worker, self.sweep.id, self._times.totals())
        workers.set_meter(connection, self._worker, self.sweep.id, self.meter)

    def _refuse_if_forgotten(self, connection: Connection) -> None:
        """Learn whether the sweep was stopped; there is nothing to go on with where it is gone."""
        state = sweeps.hold(connection, self.sweep.id)
        if state is None:
            raise refusals.forgotten(self.sweep.name)
        self.state = state

    def _refuse_if_extended(self, is_known: bool) -> None:
        """This worker has neither data nor spaces for studies that were added since it began."""
        if not is_known:
            raise refusals.extended(self.sweep.name)

    def _save(self) -> None:
        """Save how far the trials in the engine have come, between ticks."""
        with self._times.on("storage"):
            self._saver.save(dict.fromkeys(self._by_key.values()))

    def _name_of(self, case: Case) -> str:
        return study_name(self.sweep, self._studies[case.claimed.study_id]).trial_uid(case.claimed.number)

    # admit ----------------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Put trials into free slots."""
        with self._times.on("prepare"):
            for case in self._entrance.admit():
                self._by_key |= dict.fromkeys((fit.key for fit in case.fits), case)
