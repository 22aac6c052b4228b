"""Trains many fits at once on one device. Needs torch and numpy alone."""

from sweeper.engine.compiler import can_compile
from sweeper.engine.device import (
    DeviceFacts,
    cpu_cores,
    device_facts,
    find_device,
    gpu_count,
    keep_freed_memory,
    let_go_of_memory,
    use_threads,
)
from sweeper.engine.energy import energy_note, find_meter
from sweeper.engine.engine import Engine
from sweeper.engine.memory import Footprint, device_free_bytes, device_peak_bytes, footprint
from sweeper.engine.tick import Prepared, Snapshot, Tick

__all__ = [
    "DeviceFacts",
    "Engine",
    "Footprint",
    "Prepared",
    "Snapshot",
    "Tick",
    "can_compile",
    "cpu_cores",
    "device_facts",
    "device_free_bytes",
    "device_peak_bytes",
    "energy_note",
    "find_device",
    "find_meter",
    "footprint",
    "gpu_count",
    "keep_freed_memory",
    "let_go_of_memory",
    "use_threads",
]
