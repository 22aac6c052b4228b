"""The loop of a worker: train, judge, keep, admit.

A tick trains every slot. Then trials are judged, what ended is kept together with what comes next in one transaction,
and that is put into the engine; only what is committed is trained. A worker that dies loses a tick or two.

Where the engine works by itself (a GPU), the host keeps what the tick before left, and prepares what comes next, while
the device is at work on the next tick. There is one order of things for both; where `_keep` stands in it is all that
differs, and nothing that is found does (tests/scheduler/test_overlap.py).

Where the store is away, the engine trains on with what it has; what comes to an end meanwhile is written to the local
disk, and told to the store when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from sweeper.engine import Engine, Tick
from sweeper.errors import StoreAwayError, TrainingError
from sweeper.ledger import reads, rungs
from sweeper.ledger.rows import Claimed, History, Meter, NewTrial, PastTrial, Settlement, Study, Sweep
from sweeper.ledger.store import Ledger
from sweeper.ledger.trials import MOST_FAILURES
from sweeper.letters import study_name
from sweeper.records import Cost
from sweeper.scheduler import refusals
from sweeper.scheduler.blame import is_sound, training
from sweeper.scheduler.books import Books
from sweeper.scheduler.cases import Case
from sweeper.scheduler.desks import Desks
from sweeper.scheduler.entrance import Entrance
from sweeper.scheduler.exchange import News
from sweeper.scheduler.judge import Judge
from sweeper.scheduler.post import Post
from sweeper.scheduler.saving import NEVER, Saver, Saving
from sweeper.scheduler.sending import Sending
from sweeper.scheduler.settling import settlement
from sweeper.scheduler.sharing import Part
from sweeper.scheduler.spending import Spending
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
        tick_s: seconds that a tick with all slots takes, as far as is known before there was one.
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
        tick_s: float = 0.0,
    ) -> None:
        self.ledger, self.sweep, self.workload, self.engine = ledger, sweep, workload, engine
        self._worker, self._times, self._identity = worker_id, times, identity
        self._desks, self._judge = Desks(workload), Judge(workload)
        self._cases: dict[int, Case] = {}  # by trial: claimed and not settled
        self._by_key: dict[str, Case] = {}  # by fit: those in the engine
        self._part = Part(sweep.id, worker_id, self._desks)
        self._books = Books(sweep, worker_id, times, self._part, self._desks, saving.spool, sweep.state)
        self.spending = Spending(ledger, self._books, engine, tick_s)
        self._post = Post(ledger, saving.spool, times, sweep.uid, worker_id)
        self._saver = Saver(saving, engine, self._name_of)
        self._entrance = Entrance(workload, engine, self._saver)
        self._looked_at = self._tick_s = self._keep_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether this worker has no trial, and the store knows all that it has done."""
        return not self._cases and self._post.is_empty

    @property
    def state(self) -> str:
        """Of the sweep: whether it is open, as the ledger last told."""
        return self._books.state

    @property
    def meter(self) -> Meter:
        """What the engine's slots did so far."""
        return self._books.meter

    @property
    def occupancy(self) -> float:
        """Busy slot-steps over all slot-steps so far."""
        return self.meter.occupancy or 0.0

    @property
    def _studies(self) -> dict[int, Study]:
        return self._books.studies

    def open(self) -> None:
        """Take over the studies that nobody proposes for, rebuild their samplers, and claim the first trials."""
        with self._times.on("storage"):
            studies, mine, history = self.ledger.keep(self._books.take_over)
            self._books.forget_handed_in()
        spaces, replicates = self.workload.spaces, len(self.workload.folds)
        self._books.refuse_if_extended(all(one.space in spaces and one.replicate < replicates for one in studies))
        self._books.studies = {study.id: study for study in studies}
        self._judge.open(studies)
        self._books.minds_others = self._judge.minds_others
        with self._times.on("suggest"):
            self._take_on(mine, history)
        if self.spending.may_begin():
            self._keep()
            self._admit()

    def turn(self) -> None:
        """One tick with all that it calls for.

        Raises:
            TrainingError: training failed; `fail` goes on from there.
            StoreAwayError: the store has been away for longer than the ledger's patience, and nothing is left to train.
        """
        if self._by_key and self.spending.has_room(may_ask=not self._post.is_under_way):
            self._tick()
            if self._saver.is_due:
                self._save()
        elif self._post.is_under_way:
            self._post.rest()
        if not self.engine.overlaps or self._is_worth_waiting_for():
            self._keep_if_due()
        self._admit()

    def wait(self, seconds: float) -> None:
        """Nothing to train: look again in a while whether others left trials or studies."""
        self.spending.give_back()
        with self._times.on("wait"):
            time.sleep(seconds * self._part.patience)
        self.open()

    def give_up(self, *, saves: bool = True) -> None:
        """Let go of everything that is not finished; it stays in the ledger, to be gone on with.

        Args:
            saves: whether to save how far it has come; of an engine that failed there is nothing to save.
        """
        if saves:
            self._save()
        self._empty()
        self._let_go({})

    def fail(self, error: TrainingError) -> None:
        """After an error in training: the trials that were trained are tried again, up to three times in all.

        Raises:
            TrainingError: the engine fails without any trial as well: none of them is to blame.
        """
        suspects = self._empty()
        if not is_sound(self.engine):
            self._let_go({})
            raise TrainingError(
                f"{error} Training nothing fails as well: see to the device, its driver and its memory."
            )
        for case in suspects:
            if case.claimed.failures + 1 >= MOST_FAILURES:
                self._break(case, f"failed {MOST_FAILURES} times, the last time by itself: {error}")
        self._let_go({case.claimed: str(error) for case in suspects if case.broken is None})

    def close(self) -> None:
        """Enter what is still to be entered, and free the worker's studies."""
        with suppress(StoreAwayError):
            self._received(self._post.flush())
        self.ledger.keep(partial(self._books.leave, self.spending.settle_up))

    def is_done(self) -> bool:
        """Whether every trial of the sweep is finished, whoever worked on it; then nothing of it is kept for others."""
        if not self.is_idle:
            return False
        with self.ledger.read() as connection:
            is_done = all(space.is_complete for space in reads.progress(connection, self.sweep.id))
        if is_done:
            self._saver.clear(self.sweep.uid)
        return is_done

    # train ----------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Train one tick and judge; where the device works by itself, the host keeps what the tick before left."""
        began, mark = time.perf_counter(), self._times.mark()
        with training():
            self.engine.launch()
        if self.engine.overlaps:
            self._keep_if_due()
        self._look_at_others()
        with training():
            tick = self.engine.collect()
        self._tick_s = tick.train_s + tick.evaluate_s
        if self.engine.overlaps:
            self._times.hide(mark, behind=self._tick_s, within=time.perf_counter() - began)
        self._books.enter_tick(tick)
        self.spending.enter_tick(tick.busy // tick.steps)
        self._judge_tick(tick)

    def _is_worth_waiting_for(self) -> bool:
        """Whether to keep what is over before the next tick: slots that nobody is ready for would be empty all along.

        So it is with few studies, each of which needs to know how its last trial ended before it proposes another.
        """
        folds = self.workload.folds_per_trial
        unfilled = self.engine.free - folds * self._entrance.waiting
        if unfilled >= self.engine.slots:
            return True
        asks_more = self._post.over and self._desks.ask_more
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
        self._finish(case)

    def _break(self, case: Case, error: str) -> None:
        """A trial has failed for good."""
        case.broken = error
        self._finish(case)

    def _finish(self, case: Case) -> None:
        """A trial is over: the store is to be told."""
        study = self._studies[case.claimed.study_id]
        self._post.add(case, settlement(case, self.sweep, study, self.workload.task, self._identity))

    def _look_at_others(self) -> None:
        """Learn what other workers' trials have reached, where this tick brings one of this worker's to a rung."""
        cases = list(self._cases.values())
        training = list(dict.fromkeys(self._by_key.values()))
        unknown = self._judge.unknown(training, is_alone=self._books.is_alone)
        if unknown:
            first = self._judge.first_unknown(unknown)
            with self._times.on("storage"):
                peers = self.ledger.ask(partial(rungs.peers, study_ids=unknown, first=first))
            self._judge.learn(peers, cases)

    # keep -----------------------------------------------------------------------------------------------------------

    def _keep_if_due(self) -> None:
        """No transaction while nothing is over, nothing was reached, and nobody waits for the room that there is."""
        if self._post.is_under_way:
            self._received(self._post.again())
            return
        is_due = (
            self._post.over
            or (not self._books.nobody_waits and self._room() > 0)
            or self._judge.has_to_keep(self._by_key.values())
            or time.perf_counter() - self._looked_at > LOOK_S
        )
        if is_due:
            self._keep()

    def _keep(self) -> None:
        """Tell, ask, and send the outcome together with what comes next; then draw its initial weights."""
        started = time.perf_counter()
        over = self._post.collect()
        elsewhere: Sequence[PastTrial] = ()
        with self._times.on("storage"), suppress(StoreAwayError):  # then they will be known with another transaction
            elsewhere = self._part.ended_elsewhere(self.ledger, self._cases.values())
        with self._times.on("suggest"):
            self._desks.learn(elsewhere)
            self._desks.tell(list(over))
            proposed = self._desks.ask(self.engine.slots * (2 if self.engine.overlaps else 1) * self._part.crowd)
        news = self._news(over, proposed)
        is_empty = self._cases.keys() == {case.claimed.trial_id for case in over}
        act = partial(self._books.exchange, news, self._room, lambda: is_empty, self._part.is_due)
        self._received(self._post.send(news, act))
        self._keep_s = time.perf_counter() - started

    def _received(self, kept: Sending | None) -> None:
        """The store has kept news: forget what is over, and make ready what comes next."""
        if kept is None or kept.answer is None:
            return
        over, answer = kept.news.over, kept.answer
        self._books.storage = {case.claimed.attempt_id: kept.took_s / len(over) for case in over}
        self._looked_at = time.perf_counter()
        for case in over:
            del self._cases[case.claimed.trial_id]
        with self._times.on("storage"):
            self._saver.forget(over)
        if answer.is_late:
            raise refusals.taken_over(self.sweep.name)
        with self._times.on("suggest"):
            self._take_on(answer.mine, answer.history)
        with self._times.on("prepare"):
            for one in answer.claimed:
                self._cases[one.trial_id] = self._begun(one)

    def _begun(self, claimed: Claimed) -> Case:
        """A claimed trial on its way into the engine; not one whose workers died as often as it may fail."""
        replicate = self._studies[claimed.study_id].replicate
        if claimed.failures < MOST_FAILURES:
            return self._entrance.receive(claimed, replicate)
        case = self._entrance.case(claimed, replicate)
        self._break(case, f"the workers that trained it by itself died, {claimed.failures} times in all")
        return case

    def _take_on(self, mine: Sequence[int], history: History) -> None:
        """Propose for these studies; `history` is of those that are new here."""
        self._desks.let_go(self._desks.studies.difference(mine))
        self._desks.take_on(self._studies, history)

    def _news(self, over: Mapping[Case, Settlement], proposed: Sequence[NewTrial] = ()) -> News:
        reached = self._judge.to_keep(self._by_key.values(), over)
        return News(list(over), list(over.values()), reached, proposed)

    def _empty(self) -> list[Case]:
        """Out of the engine with everything, each trial with what it has cost; returns those that were in it."""
        costs, inside = self.engine.evict(), list(dict.fromkeys(self._by_key.values()))
        for case in inside:
            case.given_up = sum((costs.get(key, Cost()) for key in case.training), case.given_up)
        self._by_key.clear()
        return inside

    def _let_go(self, errors: Mapping[Claimed, str]) -> None:
        """Put back all that is not over."""
        self._received(self._post.flush())
        over = self._post.collect()
        news = self._news(over)
        given_up = {case.claimed: case.cost for case in self._cases.values() if case not in over}
        self._post.last(news, partial(self._books.let_go, news, given_up, errors))
        self._books.storage = {}
        self._cases.clear()
        self._entrance.clear()

    def _room(self) -> int:
        """How many trials to claim: for free slots, and beside a device at work for those that may soon be free."""
        if any(case.claimed.is_suspect for case in self._cases.values()):
            return 0
        folds = self.workload.folds_per_trial
        room = self.engine.free // folds - self._entrance.waiting
        if self.engine.overlaps:
            soon = sum(self._may_end(case) for case in dict.fromkeys(self._by_key.values()))
            room += soon + 1 + self.engine.slots // (8 * folds)
        return room

    def _may_end(self, case: Case) -> bool:
        return case.epoch + 1 >= self.workload.training.epochs or self._judge.is_near(case)

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
