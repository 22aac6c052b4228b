"""What a tick took: seconds of the device, and operations counted once per network.

Letters: K slots. A tick's seconds are shared out by slot-steps: every slot does the same arithmetic, so a fit that was
active for all T steps of a tick pays 1/K of it, and what idle slots took stays a row of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Stopwatch:
    """Seconds by phase on the monotonic clock, with the device's queue empty at both ends."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's seconds to `name`."""
        start = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def take(self, name: str) -> float:
        """The seconds of `name` so far; they start from zero again."""
        return self.seconds.pop(name, 0.0)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class RowFlops:
    """Operations for one row: matrix products only, a multiply and an add counted as two (as FlopCounterMode does)."""

    train: int
    evaluate: int


def row_flops(network: nn.Module, row_shape: tuple[int, ...]) -> RowFlops:
    """Count one row through a plain network, forward alone and with its gradient.

    For an MLP of sizes n this is 2 sum(n_in n_out), and with the gradient 2 (3 sum(n_in n_out) - n_0 n_1): nothing
    needs the gradient of the input. Zeros that the engine pads with are its own affair and count nothing.

    Args:
        network: as the user would run it.
        row_shape: shape of one row's inputs.
    """
    row = torch.zeros(1, *row_shape)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(row)
    with FlopCounterMode(display=False) as both:
        network(row).sum().backward()
    return RowFlops(both.get_total_flops(), forward.get_total_flops())
