"""The studies that a worker proposes for: each has a sampler in memory, rebuilt from the ledger."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeper.ledger.rows import History, NewTrial, Study
from sweeper.ledger.rows import PastTrial as Past
from sweeper.scheduler.cases import Case
from sweeper.search import PastTrial, Proposer, is_history_free
from sweeper.workload import Workload, enqueued


@dataclass
class _Desk:
    """One study: its sampler, how many trials it asked for, and the numbers of those that it waits for."""

    study: Study
    proposer: Proposer
    asked: int
    under_way: set[int]

    @property
    def is_unfinished(self) -> bool:
        return self.asked < self.study.trials or bool(self.under_way)


class Desks:
    """Asks and tells the samplers of some studies of one sweep.

    Args:
        workload: the sweep made concrete.
    """

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        # A pruner compares a trial with those before it, so that the order in which they come decides.
        self._order_is_free = workload.order_is_free
        self._desks: dict[int, _Desk] = {}

    @property
    def need_history(self) -> bool:
        """Whether samplers are rebuilt from results."""
        return not is_history_free(self._workload.sampler)

    def take_on(self, studies: Mapping[int, Study], history: History) -> None:
        """Propose for more studies: rebuild their samplers.

        Args:
            studies: all of the sweep's, by id. Those that are proposed for already may have grown.
            history: of those to take on.
        """
        for id_, desk in self._desks.items():
            desk.study = studies[id_]
        by_study = defaultdict(list)
        for past in history.trials:
            by_study[past.study_id].append(past)
        for id_, asked in history.asked.items():
            self._desks[id_] = self._desk(studies[id_], asked, by_study[id_])

    def let_go(self, studies: Iterable[int]) -> None:
        """Propose for these studies, by id, no more."""
        for id_ in studies:
            del self._desks[id_]

    @property
    def studies(self) -> set[int]:
        """The ids of the studies that are proposed for."""
        return set(self._desks)

    def away(self, cases: Iterable[Case]) -> dict[int, set[int]]:
        """Trials under way that are none of these: study -> numbers. Others may train them, or nobody yet."""
        here = {(case.claimed.study_id, case.claimed.number) for case in cases}
        away = {id_: {n for n in desk.under_way if (id_, n) not in here} for id_, desk in self._desks.items()}
        return {id_: numbers for id_, numbers in away.items() if numbers}

    def learn(self, ended: Iterable[Past]) -> None:
        """Tell each study's sampler how trials ended that others trained; of the others of these, nothing."""
        for past in ended:
            desk = self._desks[past.study_id]
            if past.state.is_finished and past.number in desk.under_way:
                desk.proposer.tell(past.number, past.state, past.validation_loss, past.step or 0)
                desk.under_way.remove(past.number)

    def tell(self, over: Sequence[Case]) -> None:
        """Tell each study's sampler how trials ended; whoever has the other studies learns it from the ledger."""
        for case in over:
            desk = self._desks.get(case.claimed.study_id)
            if desk is not None:
                value = case.means.validation_loss if case.means else None
                desk.proposer.tell(case.claimed.number, case.state, value, case.epoch)
                desk.under_way.discard(case.claimed.number)

    def ask(self, slots: int) -> list[NewTrial]:
        """What each study may have under way beyond what it has.

        Args:
            slots: fits that must be under way or ready for the engine to be busy.
        """
        wanted = self._concurrency(slots)
        return [
            self._proposal(desk)
            for desk in self._desks.values()
            for _ in range(min(wanted - len(desk.under_way), desk.study.trials - desk.asked))
        ]

    @property
    def ask_more(self) -> bool:
        """Whether there are trials still to be proposed."""
        return any(desk.asked < desk.study.trials for desk in self._desks.values())

    def perhaps_complete(self, over: Sequence[Case]) -> list[int]:
        """Studies of ended trials for which there is nothing more to ask; only the ledger knows all their trials."""
        touched = {case.claimed.study_id for case in over}
        asking = {id_ for id_, desk in self._desks.items() if desk.asked < desk.study.trials}
        return sorted(touched - asking)

    def _concurrency(self, slots: int) -> int:
        """Trials of one study at once; where their order decides nothing, as many as keep the slots full."""
        least = self._workload.sweep.search.concurrency
        unfinished = sum(desk.is_unfinished for desk in self._desks.values())
        if not self._order_is_free or not unfinished:
            return least
        return max(least, math.ceil(slots / (unfinished * self._workload.folds_per_trial)))

    def _proposal(self, desk: _Desk) -> NewTrial:
        space = self._workload.spaces[desk.study.space]
        starts = self._workload.starts(desk.study.space)
        proposal = desk.proposer.ask(enqueued(space, starts, desk.asked))
        desk.asked += 1
        desk.under_way.add(proposal.number)
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

    def _desk(self, study: Study, asked: int, history: Sequence[Past]) -> _Desk:
        proposer = self._workload.proposer(study.space, study.seed)
        under_way = [past.number for past in history if not past.state.is_finished]
        if self.need_history:
            proposer.rehydrate([_as_told(past) for past in history])
        else:
            starts = min(asked, len(self._workload.starts(study.space)))
            proposer.resume(asked, asked - starts, under_way)
        return _Desk(study, proposer, asked, set(under_way))


def _as_told(past: Past) -> PastTrial:
    return PastTrial(
        number=past.number,
        params=past.params,
        state=past.state,
        value=past.validation_loss,
        step=past.step or 0,
        running=past.running,
        enqueued=past.origin == "start",
    )
