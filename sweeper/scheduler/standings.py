"""Who has reached which rung of one study, as far as this worker knows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict

from sweeper.ledger.rows import Peer
from sweeper.records import TrialState
from sweeper.search import Decision, Field, Pruner


class Standings:
    """One study's rung scores, kept in order, so that a judgement takes no longer late in a study than early.

    Args:
        pruner: the study's.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self._scores: dict[int, dict[int, float]] = defaultdict(dict)  # number -> epoch -> score
        self._ranked: dict[tuple[int, int], list[float]] = defaultdict(list)  # (bracket, epoch) -> scores, ascending
        self._finished: set[int] = set()
        self._complete: set[int] = set()
        self.settled_below = 0
        """Every trial with a lower number is finished and known."""

    def lacks(self, mine: set[int]) -> bool:
        """Whether a trial before one of this worker's is unknown: neither known as finished nor this worker's own."""
        return any(
            number not in self._finished and number not in mine
            for number in range(self.settled_below, max(mine, default=0))
        )

    def enter(self, number: int, epoch: int, score: float) -> None:
        """Enter what a trial reached; a second score of the same trial at the same epoch replaces the first."""
        before = self._scores[number].get(epoch)
        if before == score:
            return
        self._scores[number][epoch] = score
        if self._counts(number):
            ranked = self._ranked[self.pruner.bracket(number), epoch]
            if before is not None:
                del ranked[bisect_left(ranked, before)]
            insort(ranked, score)

    def finish(self, number: int, state: TrialState) -> None:
        """Enter that a trial ended; its scores stay."""
        if number in self._finished:
            return
        self._finished.add(number)
        if state is TrialState.COMPLETE:
            self._complete.add(number)
            if self.pruner.needs_complete:
                for epoch, score in self._scores[number].items():
                    insort(self._ranked[self.pruner.bracket(number), epoch], score)
        while self.settled_below in self._finished:
            self.settled_below += 1

    def learn(self, peer: Peer, *, is_mine: bool) -> None:
        """Take in a trial as the ledger knows it; of this worker's own, what earlier attempts had reached."""
        for epoch, score in peer.scores.items():
            if not (is_mine and epoch in self._scores[peer.number]):
                self.enter(peer.number, epoch, score)
        if peer.state.is_finished:
            self.finish(peer.number, peer.state)

    def decide(self, number: int, epoch: int) -> Decision:
        """Judge a trial at a rung; its own score there is entered already."""
        score = self._scores[number][epoch]
        peers = list(self._ranked[self.pruner.bracket(number), epoch])
        if self._counts(number):
            del peers[bisect_left(peers, score)]
        return self.pruner.decide(number, score, Field(peers, len(self._complete)))

    def _counts(self, number: int) -> bool:
        return not self.pruner.needs_complete or number in self._complete
