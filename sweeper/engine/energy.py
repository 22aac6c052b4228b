"""The energy that a device took, from its own counters: NVML's on an NVIDIA GPU, RAPL's on a CPU.

- **A GPU's counter holds the whole board**, memory included, whoever works on it, and nothing of the host. NVML renews
  it every 20 to 100 ms, and on A100 and H100 its sensor looks a quarter of the time (Yang et al., SC 2024,
  arXiv:2312.02741): what falls to a shorter tick is lumpy, sums over seconds are right.
- **A CPU's counters hold its whole packages**, all sockets, everybody's processes, and no memory modules. RAPL renews
  them every millisecond.

Where there is no such counter, or none that may be read, nothing is measured, and that is said; nothing is estimated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
# A counter that is there but stands still (virtual machines have such) measures nothing. A live one moves within 0.1 s.
LOOKS, LOOK_S = 50, 0.01


@dataclass(frozen=True)
class Counter:
    """A count of energy that goes up, until it starts over.

    Attributes:
        read: the count now. Raises OSError or ValueError where it can't be had.
        unit_j: joules of one count.
        period: at which count it starts over; 0 where only a restart of the driver sets it back to zero.
    """

    read: Callable[[], int]
    unit_j: float
    period: int = 0

    def gain(self, before: int, now: int) -> int:
        """Counts between two readings less than a period apart (RAPL: 262 kJ, 20 minutes of a busy server's CPU)."""
        if now >= before:
            return now - before
        return now + max(0, self.period - before)


class EnergyMeter:
    """Joules of one device since the meter was made.

    Args:
        counters: that together hold the device's energy, such as one per socket.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = tuple(counters)
        self._before = [counter.read() for counter in self._counters]
        self._counts = [0] * len(self._counters)

    def read(self) -> float:
        """Joules so far, never fewer than before.

        NaN at a moment at which a counter can't be read; the next reading that succeeds holds what this one missed.
        """
        try:
            now = [counter.read() for counter in self._counters]
        except (OSError, ValueError):
            return math.nan
        for at, counter in enumerate(self._counters):
            self._counts[at] += counter.gain(self._before[at], now[at])
        self._before = now
        return sum(counter.unit_j * count for counter, count in zip(self._counters, self._counts, strict=True))


def find_meter(device: str) -> EnergyMeter | None:
    """A meter of a device by its PyTorch name; None where nothing measures it (`energy_note` says why)."""
    found = _find(device, POWERCAP)
    try:
        return None if isinstance(found, str) else EnergyMeter(found)
    except (OSError, ValueError):  # it could be read a moment ago
        return None


def energy_note(device: str) -> str:
    """What a device's meter holds, or why there is none, e.g. "not measured: ... is readable by root only"."""
    found = _find(device, POWERCAP)
    if isinstance(found, str):
        return f"not measured: {found}"
    if torch.device(device).type == "cuda":
        return "measured by NVML, the whole board"
    return f"measured by RAPL, {len(found)} CPU package{'s' * (len(found) > 1)} with all that ran there"


@cache
def _find(device: str, powercap: Path) -> tuple[Counter, ...] | str:
    """A device's counters, looked for once per process; or why there are none."""
    found = _board(device) if torch.device(device).type == "cuda" else _packages(powercap)
    try:
        if isinstance(found, tuple) and not all(_moves(counter) for counter in found):
            return "the device's energy counter stands still, as it does in some virtual machines"
    except (OSError, ValueError) as error:
        return f"the device's energy counter can't be read: {error}"
    return found


def _moves(counter: Counter) -> bool:
    first = counter.read()
    for _ in range(LOOKS):
        if counter.read() != first:
            return True
        time.sleep(LOOK_S)
    return False


# a GPU ----------------------------------------------------------------------------------------------------------------


def _board(device: str) -> tuple[Counter, ...] | str:
    """NVML's counter of one GPU; by UUID, since CUDA_VISIBLE_DEVICES gives CUDA's numbers another order than NVML's."""
    try:
        import pynvml  # here, so that the engine needs torch and numpy alone
    except ImportError:
        return "the package nvidia-ml-py is not installed. Install it: pip install nvidia-ml-py"
    name = str(torch.cuda.get_device_properties(device).uuid)
    uuid = name if name.startswith(("GPU-", "MIG-")) else f"GPU-{name}"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return f"NVML gives no total energy for {uuid}: {error} (GPUs before Volta and slices of a GPU have none)"

    def millijoules() -> int:
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from error

    return (Counter(millijoules, 1e-3),)


# a CPU ----------------------------------------------------------------------------------------------------------------


def _packages(powercap: Path) -> tuple[Counter, ...] | str:
    """RAPL's counters of all sockets. What lies inside them (cores) or around them (psys) would count twice."""
    try:
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _text(zone / "name").startswith("package")]
        counters = tuple(
            Counter(partial(_number, zone / "energy_uj"), 1e-6, _number(zone / "max_energy_range_uj")) for zone in zones
        )
        for counter in counters:
            counter.read()
    except PermissionError as error:
        return (
            f"{error.filename} is readable by root only, since it tells something of everybody's work "
            f"(CVE-2020-8694). On a machine of your own: sudo chmod a+r {powercap}/intel-rapl:*/energy_uj"
        )
    except (OSError, ValueError) as error:
        return f"RAPL's counters in {powercap} can't be read: {error}"
    return counters or f"this machine shows no RAPL counters ({powercap}/intel-rapl:*); virtual machines have none"


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _number(path: Path) -> int:
    return int(_text(path))
