"""Which trials go on: one round of judgements per tick, each trial over all its folds, before any device time is lost.

Everybody who reaches a rung in a tick is entered before the first of them is judged, so that their order decides
nothing. What other workers' trials have reached comes from the ledger; what this worker's have is at hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sweeper.ledger.rows import Peer, RungScore, Study
from sweeper.scheduler.cases import Case
from sweeper.scheduler.standings import Standings
from sweeper.search import Action
from sweeper.workload import Workload


class Judge:
    """Judges the trials that a worker trains, study by study.

    Args:
        workload: whose pruner.
    """

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._concurrent = workload.sweep.search.concurrency > 1
        self._standings: dict[int, Standings] = {}

    def open(self, studies: Iterable[Study]) -> None:
        """Learn which studies there are."""
        for study in studies:
            if study.id not in self._standings and (pruner := self._workload.pruner(study.seed)):
                self._standings[study.id] = Standings(pruner)

    @property
    def minds_others(self) -> bool:
        """Whether trials of a study are judged while others of it train, perhaps elsewhere."""
        return self._concurrent and bool(self._standings)

    def is_near(self, case: Case) -> bool:
        """Whether the tick to come, or under way, brings a trial to a rung."""
        return self._is_rung(case, case.epoch + 1)

    def unknown(self, cases: Iterable[Case], *, is_alone: bool) -> list[int]:
        """The studies of trials near a rung of which the ledger may know more than is at hand.

        Args:
            cases: all that this worker trains.
            is_alone: whether nobody else trains any trial of this sweep.
        """
        if not self._standings:
            return []
        mine = _numbers(cases)
        near = {case.claimed.study_id for case in cases if self.is_near(case)}
        shared = self.minds_others and not is_alone
        return sorted(study for study in near if shared or self._standings[study].lacks(mine[study]))

    def first_unknown(self, studies: Iterable[int]) -> int:
        """Below this number every trial of these studies is finished and known."""
        return min(self._standings[study].settled_below for study in studies)

    def learn(self, peers: Iterable[Peer], cases: Iterable[Case]) -> None:
        """Take in trials as the ledger knows them; `cases` are this worker's own."""
        mine = _numbers(cases)
        for peer in peers:
            self._standings[peer.study_id].learn(peer, is_mine=peer.number in mine[peer.study_id])

    def hopeless(self, trained: Iterable[Case]) -> list[Case]:
        """Judge who reached a rung in this tick; returns those to prune, each with the reason.

        A trial that ends by itself at a rung is not judged any more, but the others are by its score.

        Args:
            trained: the trials that the tick trained.
        """
        arrived = [case for case in trained if self._is_rung(case, case.epoch) and not case.has_failed]
        for case in arrived:
            score = case.rung_score
            case.reached.append(RungScore(case.claimed, case.epoch, score))
            self._of(case).enter(case.claimed.number, case.epoch, score)
        return [case for case in arrived if not case.is_over and self._is_hopeless(case)]

    def ended(self, case: Case) -> None:
        """Enter that a trial is over."""
        if case.claimed.study_id in self._standings:
            self._of(case).finish(case.claimed.number, case.state)

    def has_to_keep(self, training: Iterable[Case]) -> bool:
        """Whether the ledger lacks a rung score of a trial that goes on."""
        return not self._waits and any(case.reached for case in training)

    def to_keep(self, training: Iterable[Case], over: Iterable[Case]) -> list[RungScore]:
        """Hand over the rung scores that the ledger is to have now."""
        return [score for case in (*over, *(() if self._waits else training)) for score in _taken(case.reached)]

    @property
    def _waits(self) -> bool:
        """Whether scores are nobody's business before their trial is over: only complete trials are peers."""
        return any(standings.pruner.needs_complete for standings in self._standings.values())

    def _is_hopeless(self, case: Case) -> bool:
        decision = self._of(case).decide(case.claimed.number, case.epoch)
        if decision.action is Action.PRUNE:
            case.hopeless = f"pruned at epoch {case.epoch}: {decision.reason}"
        return case.hopeless is not None

    def _is_rung(self, case: Case, epoch: int) -> bool:
        standings = self._standings.get(case.claimed.study_id)
        return standings is not None and standings.pruner.is_rung(case.claimed.number, epoch)

    def _of(self, case: Case) -> Standings:
        return self._standings[case.claimed.study_id]


def _numbers(cases: Iterable[Case]) -> dict[int, set[int]]:
    """The trials' numbers by study."""
    numbers: dict[int, set[int]] = defaultdict(set)
    for case in cases:
        numbers[case.claimed.study_id].add(case.claimed.number)
    return numbers


def _taken(scores: list[RungScore]) -> list[RungScore]:
    """What a list holds, which is then empty."""
    taken = list(scores)
    scores.clear()
    return taken
