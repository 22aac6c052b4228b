"""Which fits end after a tick, decided on the device by evaluation-mode losses alone (R10, R15).

Letters: K slots. Everything that the host has to know of a tick leaves the device as one tensor, `REPORT x K`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sweeper.engine.arena import Arena
from sweeper.records import Outcome, Training

OUTCOMES = (Outcome.DIVERGED, Outcome.FINISHED, Outcome.STOPPED_EARLY)
"""Why a fit ends by itself; where several hold, the first counts."""


class LaneReport(NamedTuple):
    """What the host learns of one lane. Epochs are whole numbers that float32 holds exactly.

    Attributes:
        dropped_loss: training loss as trained. ending: index into `OUTCOMES`, or -1.
    """

    dropped_loss: float
    train_loss: float
    validation_loss: float
    train_metric: float
    validation_metric: float
    epoch: float
    best_epoch: float
    ending: float


@dataclass(frozen=True)
class Verdicts:
    """A tick's report on its way from the device.

    Attributes:
        report: float32 `8 x K` in the host's memory.
        arrived: when it is complete; None where it already is.
    """

    report: Tensor
    arrived: torch.cuda.Event | None

    def lanes(self) -> list[LaneReport]:
        """Wait for the report, and read it lane by lane."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return [LaneReport(*values) for values in self.report.T.tolist()]


def judge(arena: Arena, measured: Tensor, training: Training) -> Verdicts:
    """Keep the weights of the best epoch, and find the slots that end.

    Args:
        arena: after a tick.
        measured: `4 x K`: training and validation loss, dropout off, and their metrics.
        training: epochs and patience.
    """
    arena.keep_best(measured[1])
    finite = arena.trained_loss.isfinite() & measured[:2].isfinite().all(0)
    tired = (arena.stale >= training.patience) if training.patience else torch.zeros_like(arena.active)
    ends = torch.stack([~finite, arena.epoch >= training.epochs, tired]) & arena.active
    ending = torch.where(ends.any(0), ends.to(torch.int8).argmax(0), -1)
    counts = torch.stack([arena.epoch, arena.best_epoch, ending]).to(torch.float32)
    return _sent(torch.cat([arena.trained_loss[None], measured, counts]))


def _sent(report: Tensor) -> Verdicts:
    """Start the copy to the host; the device goes on."""
    if report.device.type == "cpu":
        return Verdicts(report, None)
    landing = torch.empty(report.shape, dtype=report.dtype, pin_memory=True).copy_(report, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return Verdicts(landing, arrived)
