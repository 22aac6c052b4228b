"""Trains many fits at once on one device. Needs torch and numpy alone."""

from sweeper.engine.compiler import can_compile
from sweeper.engine.device import DeviceFacts, device_facts, find_device, keep_freed_memory, use_threads
from sweeper.engine.engine import Engine, Tick

__all__ = [
    "DeviceFacts",
    "Engine",
    "Tick",
    "can_compile",
    "device_facts",
    "find_device",
    "keep_freed_memory",
    "use_threads",
]
