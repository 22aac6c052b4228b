"""What a tick took: seconds and energy of the device, and operations counted once per network.

Letters: K slots. A tick's seconds and joules are shared out by slot-steps: every slot does the same arithmetic, so a
fit that was active for all T steps of a tick pays 1/K of it, and what idle slots took stays a row of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sweeper.engine.energy import find_meter
from sweeper.records import Cost


class Stopwatch:
    """The device's seconds by phase. Work is timed where it runs: a GPU's own events, or the host's monotonic clock.

    Args:
        device: which.
        sharers: processes that work on it side by side; its energy counter holds all of theirs, and each takes a share.
    """

    def __init__(self, device: torch.device, sharers: int = 1) -> None:
        self._device, self._sharers = device, sharers
        self._spans: dict[str, list[tuple[Any, Any]]] = {}
        self._energy, self._joules = find_meter(str(device)), 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's work to `name`; nobody waits for it here."""
        start = self._mark()
        yield
        self._spans.setdefault(name, []).append((start, self._mark()))

    def take(self, name: str) -> float:
        """The seconds of `name` so far, once its work is done; they start from zero again."""
        return sum(self._between(start, end) for start, end in self._spans.pop(name, []))

    def take_joules(self) -> float | None:
        """The device's energy since the last call, once its work is done; None where nothing measures it.

        NaN where the counter could not be read at one of the two ends.
        """
        if self._energy is None:
            return None
        before, self._joules = self._joules, self._energy.read()
        return (self._joules - before) / self._sharers

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, start: Any, end: Any) -> float:
        if self._device.type != "cuda":
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def lane_share(tick: Cost, lanes: int) -> Cost:
    """What one of the lanes that a tick computed has to pay of its seconds and its energy."""
    joules = None if tick.joules is None else tick.joules / max(1, lanes)
    return Cost(train_s=tick.train_s / max(1, lanes), evaluate_s=tick.evaluate_s / max(1, lanes), joules=joules)


@dataclass(frozen=True)
class RowFlops:
    """Operations for one row: matrix products only, a multiply and an add counted as two (as FlopCounterMode does)."""

    train: int
    evaluate: int


def row_flops(network: nn.Module, row_shape: tuple[int, ...]) -> RowFlops:
    """Count one row through a plain network, forward alone and with its gradient.

    For an MLP of sizes n this is 2 sum(n_in n_out), and with the gradient 2 (3 sum(n_in n_out) - n_0 n_1): nothing
    needs the gradient of the input. Zeros that the engine pads with are its own affair and count nothing; nor does what
    FlopCounterMode has no formula for (an LSTM, which is one operation on a CPU).

    Args:
        network: as the user would run it.
        row_shape: shape of one row's inputs.
    """
    network.eval()  # counts the same, and batch normalisation takes a single row
    row = torch.zeros(1, *row_shape)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(row)
    formulas = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=formulas) as both:
        network(row).sum().backward()
    return RowFlops(both.get_total_flops(), forward.get_total_flops())


def _convolution_backward(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *others: Any, out_shape: Any
) -> int:
    """Either gradient takes what the convolution took; PyTorch's own formula (2.13) overlooks groups."""
    *_, transposed, _, _, wanted = others
    places = math.prod((x if transposed else gradient)[2:])
    return 2 * x[0] * places * math.prod(weight) * (int(wanted[0]) + int(wanted[1]))
