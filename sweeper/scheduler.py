"""The loop of a worker: fill, train, judge, settle.

A turn trains every slot for one tick, takes in who ended, tells Optuna, asks it for what comes next, and keeps it all
in one transaction; only what is committed is trained. A worker that dies between two turns loses one tick.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sweeper.engine import Engine
from sweeper.errors import LedgerError
from sweeper.export import TrialReport
from sweeper.ledger import deliveries, reads, sweeps, trials, workers
from sweeper.ledger.rows import Claimed, Means, NewTrial, SettledFit, Settlement, Study, Sweep
from sweeper.ledger.rows import PastTrial as Past
from sweeper.ledger.store import Connection, Ledger
from sweeper.letters import closing_letters, to_ms, trial_letter
from sweeper.records import Cost, Fit, FitResult, Outcome, TrialState
from sweeper.search import PastTrial, Proposer, is_history_free
from sweeper.seeds import fit_seed
from sweeper.timesheet import Timesheet
from sweeper.workload import Workload, enqueued


@dataclass
class _Case:
    """A claimed trial on its way through the engine."""

    claimed: Claimed
    fits: tuple[Fit, ...]
    results: dict[str, FitResult] = field(default_factory=dict)


@dataclass
class _Desk:
    """A study that this worker proposes for: its sampler, and how many trials it asked for and waits for."""

    study: Study
    proposer: Proposer
    asked: int
    in_flight: int


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
    ) -> None:
        self.ledger, self.sweep, self.workload, self.engine = ledger, sweep, workload, engine
        self._worker, self._times, self._identity = worker_id, times, identity
        self._history_free = is_history_free(workload.sampler)
        self._cases: dict[int, _Case] = {}
        self._by_key: dict[str, _Case] = {}
        self._storage: dict[int, float] = {}
        self._desks: dict[int, _Desk] = {}
        self._studies: dict[int, Study] = {}
        self.state = sweep.state
        self.busy_steps = self.slot_steps = 0

    @property
    def is_idle(self) -> bool:
        """Whether no fit is in the engine."""
        return not self._cases

    @property
    def occupancy(self) -> float:
        """Busy slot-steps over all slot-steps so far."""
        return self.busy_steps / self.slot_steps if self.slot_steps else 0.0

    def open(self) -> None:
        """Take over the studies that nobody proposes for, rebuild their samplers, and claim the first trials."""
        with self._times.on("storage"), self.ledger.write() as connection:
            workers.beat(connection, self._worker)  # before the dead are sought: this worker is none of them
            workers.bury_dead(connection)
            studies = sweeps.studies(connection, self.sweep.id)
            spaces, replicates = self.workload.spaces, len(self.workload.folds)
            self._refuse_if_extended(all(one.space in spaces and one.replicate < replicates for one in studies))
            self._studies = {study.id: study for study in studies}
            mine = workers.take_studies(connection, self.sweep.id, self._worker)
            history = trials.past(connection, mine)
        by_study = defaultdict(list)
        for past in history:
            by_study[past.study_id].append(past)
        with self._times.on("suggest"):
            self._desks = {id_: self._desk(self._studies[id_], by_study[id_]) for id_ in mine}
        self._keep([])

    def turn(self) -> None:
        """Train one tick, and settle and fill what it calls for."""
        tick = self.engine.train()
        idle_share = tick.idle_s / (tick.train_s + tick.evaluate_s)
        self._times.add("train", tick.train_s * (1 - idle_share))
        self._times.add("evaluate", tick.evaluate_s * (1 - idle_share))
        self._times.add("idle", tick.idle_s)
        self.busy_steps += tick.busy
        self.slot_steps += tick.steps * tick.slots
        ended = self._judge(tick.results)
        if ended or self.engine.free >= self.workload.folds_per_trial:
            self._keep([self._settlement(case) for case in ended])

    def wait(self, seconds: float) -> None:
        """Nothing to train: look again in a while whether others left trials or studies."""
        with self._times.on("wait"):
            time.sleep(seconds)
        self.open()

    def give_up(self) -> None:
        """Let go of everything that is not finished; it stays in the ledger, to be done again."""
        costs = self.engine.evict()
        given_up = {
            case.claimed: sum((costs.get(fit.key, Cost()) for fit in case.fits), Cost())
            + sum((result.cost for result in case.results.values()), Cost())
            for case in self._cases.values()
        }
        with self._times.on("storage"), self.ledger.write() as connection:
            trials.charge_storage(connection, self._storage)
            trials.release(connection, self._worker, given_up)
        self._storage = {}
        self._cases.clear()
        self._by_key.clear()

    def close(self) -> None:
        """Enter what is still to be entered, and free the worker's studies."""
        with self.ledger.write() as connection:
            if sweeps.state_of(connection, self.sweep.id) is not None:
                trials.charge_storage(connection, self._storage)
                workers.set_times(connection, self._worker, self.sweep.id, self._times.totals())
            workers.give_back(connection, self._worker, workers.LOST)  # none, unless this worker failed in mid-turn
            workers.retire(connection, self._worker)

    def is_done(self) -> bool:
        """Whether every trial of the sweep is finished, whoever worked on it."""
        if not self.is_idle:
            return False
        with self.ledger.read() as connection:
            return all(space.finished >= space.planned for space in reads.progress(connection, self.sweep.id))

    # judge ----------------------------------------------------------------------------------------------------------

    def _judge(self, results: Sequence[FitResult]) -> list[_Case]:
        """Trials whose last fit ended now. A fit that diverged fails its trial, and its other folds are given up."""
        touched: dict[int, _Case] = {}
        for result in results:
            case = self._by_key.pop(result.key, None)
            if case is not None:
                case.results[result.key] = result
                touched[case.claimed.trial_id] = case
        return [case for case in touched.values() if len(case.results) == len(case.fits) or self._has_failed(case)]

    def _has_failed(self, case: _Case) -> bool:
        return any(result.outcome is Outcome.DIVERGED for result in case.results.values())

    def _settlement(self, case: _Case) -> Settlement:
        results = [case.results[fit.key] for fit in case.fits if fit.key in case.results]
        given_up = self._drop_rest(case)
        error = _error(case)
        state = TrialState.COMPLETE if error is None else TrialState.FAIL
        cost = sum((result.cost for result in results), given_up)
        ended_at = datetime.now(UTC)
        report = self._report(case.claimed, state, results, cost, ended_at)
        fits = tuple(
            SettledFit(number, fit.seed, case.results[fit.key])
            for number, fit in enumerate(case.fits)
            if fit.key in case.results
        )
        means = _means(results) if error is None else None
        letter = trial_letter(self.sweep, self._studies[case.claimed.study_id], report, self.workload.task)
        return Settlement(case.claimed, state, means, error, ended_at, cost, fits, (letter,))

    def _drop_rest(self, case: _Case) -> Cost:
        left = [fit.key for fit in case.fits if fit.key not in case.results]
        for key in left:
            self._by_key.pop(key, None)
        return sum(self.engine.evict(left).values(), Cost()) if left else Cost()

    def _report(
        self, claimed: Claimed, state: TrialState, results: Sequence[FitResult], cost: Cost, ended_at: datetime
    ) -> TrialReport:
        suggested = claimed.suggest_s if claimed.attempt == 1 else 0.0
        return TrialReport(
            number=claimed.number,
            state=state,
            setting=claimed.setting,
            parameters=claimed.params,
            fits=results,
            cost=replace(cost, suggest_s=suggested),
            start_ms=to_ms(claimed.started_at),
            end_ms=to_ms(ended_at),
            worker=self._identity["worker"],
            device=self._identity["device"],
        )

    # settle and fill ------------------------------------------------------------------------------------------------

    def _keep(self, settlements: Sequence[Settlement]) -> None:
        """Tell, ask, and commit the outcome together with what comes next; then put that into the engine."""
        with self._times.on("suggest"):
            self._tell(settlements)
            proposed = self._ask()
        began = time.perf_counter()
        with self.ledger.write() as connection:
            self._refuse_if_forgotten(connection)
            trials.charge_storage(connection, self._storage)
            counted = trials.settle(connection, self._worker, self.sweep.id, settlements)
            is_late = len(counted) < len(settlements) or workers.has_ended(connection, self._worker)
            claimed = [] if is_late else self._fill(connection, settlements, proposed)
            workers.set_times(connection, self._worker, self.sweep.id, self._times.totals())
        took = time.perf_counter() - began
        self._times.add("storage", took)
        self._storage = {one.claimed.attempt_id: took / len(settlements) for one in settlements}
        for one in settlements:
            del self._cases[one.claimed.trial_id]
        if is_late:
            raise LedgerError(
                "another worker took over the trials of this one, as if it had died: it was asleep for longer than its "
                f"lease of {workers.LEASE_S:.0f} s. Nothing is counted twice. Start it again: sweeper resume "
                f"{self.sweep.name}"
            )
        with self._times.on("prepare"):
            self._admit(claimed)

    def _refuse_if_forgotten(self, connection: Connection) -> None:
        """Learn whether the sweep was stopped; there is nothing to go on with where it is gone."""
        state = sweeps.state_of(connection, self.sweep.id)
        if state is None:
            raise LedgerError(
                f"the sweep {self.sweep.name!r} that this worker works on was forgotten: another command launched it "
                f"with --fresh. Work on the new one: sweeper resume {self.sweep.name}"
            )
        self.state = state

    def _refuse_if_extended(self, is_known: bool) -> None:
        """This worker has neither data nor spaces for studies that were added since it began."""
        if not is_known:
            raise LedgerError(
                f"the sweep {self.sweep.name!r} was extended by another command while this one worked on it. Nothing "
                f"is lost. Go on with all of it: sweeper resume {self.sweep.name}"
            )

    def _fill(
        self, connection: Connection, settlements: Sequence[Settlement], proposed: Sequence[NewTrial]
    ) -> list[Claimed]:
        """Close the studies that are complete now, enter what comes next, and claim what there is room for."""
        last = self._perhaps_complete(settlements)
        if last:
            letters = closing_letters(self.sweep, self._studies, trials.past(connection, last))
            deliveries.post(connection, self.sweep.id, letters)
        trials.propose(connection, proposed)
        limit = self.engine.free // self.workload.folds_per_trial
        claimed = trials.claim(connection, self.sweep.id, self._worker, limit) if limit else []
        self._refuse_if_extended({one.study_id for one in claimed} <= self._studies.keys())
        return claimed

    def _tell(self, settlements: Sequence[Settlement]) -> None:
        """Tell each study's sampler."""
        for one in settlements:
            desk = self._desks.get(one.claimed.study_id)
            if desk is not None:
                value = one.means.validation_loss if one.means else None
                desk.proposer.tell(one.claimed.number, one.state, value)
                desk.in_flight -= 1

    def _ask(self) -> list[NewTrial]:
        """What each study may have under way beyond what it has."""
        wanted = self._concurrency()
        return [
            self._proposal(desk)
            for desk in self._desks.values()
            for _ in range(min(wanted - desk.in_flight, desk.study.trials - desk.asked))
        ]

    def _concurrency(self) -> int:
        """Trials of one study at once; where suggestions don't depend on results, as many as keep the slots full."""
        least = self.workload.sweep.search.concurrency
        unfinished = sum(desk.asked < desk.study.trials or desk.in_flight > 0 for desk in self._desks.values())
        if not self._history_free or not unfinished:
            return least
        return max(least, math.ceil(self.engine.slots / (unfinished * self.workload.folds_per_trial)))

    def _proposal(self, desk: _Desk) -> NewTrial:
        space = self.workload.spaces[desk.study.space]
        starts = self.workload.starts(desk.study.space)
        proposal = desk.proposer.ask(enqueued(space, starts, desk.asked))
        desk.asked += 1
        desk.in_flight += 1
        return NewTrial(
            study_id=desk.study.id,
            number=proposal.number,
            origin="start" if proposal.enqueued else "sampled",
            params=proposal.params,
            setting=space.setting(proposal.params),
            told=proposal.told,
            running=proposal.running,
            suggest_s=proposal.seconds,
        )

    def _admit(self, claimed: Sequence[Claimed]) -> None:
        for one in claimed:
            replicate = self._studies[one.study_id].replicate
            fits = tuple(
                Fit(
                    key=f"{one.attempt_id}/{fold}",
                    setting=one.setting,
                    seed=fit_seed(self.workload.sweep.seed, replicate, one.number, fold),
                    fold=self.workload.fold_index(replicate, fold),
                )
                for fold in range(self.workload.folds_per_trial)
            )
            case = _Case(one, fits)
            self._cases[one.trial_id] = case
            self._by_key |= dict.fromkeys((fit.key for fit in fits), case)
            self.engine.admit(fits)

    # studies --------------------------------------------------------------------------------------------------------

    def _desk(self, study: Study, history: Sequence[Past]) -> _Desk:
        proposer = self.workload.proposer(study.space, study.seed)
        proposer.rehydrate(
            [
                PastTrial(
                    number=past.number,
                    params=past.params,
                    state=past.state,
                    value=past.validation_loss,
                    running=past.running,
                    enqueued=past.origin == "start",
                )
                for past in history
            ]
        )
        unfinished = sum(not past.state.is_finished for past in history)
        return _Desk(study, proposer, asked=len(history), in_flight=unfinished)

    def _perhaps_complete(self, settlements: Sequence[Settlement]) -> list[int]:
        """Studies of settled trials for which this worker has nothing more to ask; only the ledger knows them all."""
        asked = {id_: desk.asked for id_, desk in self._desks.items()}
        settled = {one.claimed.study_id for one in settlements}
        return [id_ for id_ in settled if asked.get(id_, math.inf) >= self._studies[id_].trials]


def _means(results: Sequence[FitResult]) -> Means:
    def mean(name: str) -> float:
        return float(sum(getattr(result, name) for result in results) / len(results))

    return Means(*(mean(name) for name in Means.__dataclass_fields__))


def _error(case: _Case) -> str | None:
    """What a user reads of a trial that failed: which fold, when, why."""
    for number, fit in enumerate(case.fits):
        result = case.results.get(fit.key)
        if result is not None and result.outcome is Outcome.DIVERGED:
            return f"fold {number} {Outcome.DIVERGED.value} (epoch {result.best_epoch})"
    return None
