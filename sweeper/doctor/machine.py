"""The device, its compiler and its energy meter, through the engine's doorway; and the clock that costs go by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from sweeper.doctor.findings import Finding, Level, Place

NVIDIA = Path("/proc/driver/nvidia/version")


def device(place: Place) -> Iterator[Finding]:
    """What trains here, how fast it may, and what measures what it takes."""
    from sweeper.engine import can_compile, device_facts, find_device

    name = find_device(place.device)
    facts = device_facts(name)
    said = f"{facts.name} (torch {facts.torch})"
    if facts.kind == "cpu" and place.device == "auto" and NVIDIA.exists():
        mend = "Install a build of PyTorch for CUDA; see its site."
        yield Finding("device", Level.NOTE, f"{said}: this machine has an NVIDIA driver, PyTorch sees no GPU", mend)
    else:
        yield Finding("device", Level.OK, said)
    yield _compiler(can_compile(name), facts.kind)
    measured = not facts.energy.startswith("not measured")
    yield Finding("energy", Level.OK if measured else Level.NOTE, facts.energy)


def _compiler(can: bool, kind: str) -> Finding:
    if can:
        return Finding("compiler", Level.OK, "the training step can be compiled")
    lacks = "Triton" if kind == "cuda" else "a C++ compiler (g++ or clang++) and Python's headers (python3-dev)"
    return Finding(
        "compiler", Level.NOTE, "steps run uncompiled, which takes several times as long", f"Install {lacks}."
    )


def monotonic_clock(place: Place) -> Iterator[Finding]:
    """Costs are differences of this clock's readings."""
    info = time.get_clock_info("perf_counter")
    if info.monotonic and not info.adjustable:
        yield Finding(
            "clock", Level.OK, f"times are measured to {1e9 * info.resolution:.0f} ns, and never run backwards"
        )
    else:
        mend = "Costs measured here can't be trusted; use another Python or another system."
        yield Finding("clock", Level.PROBLEM, "the clock that times are measured by can be set", mend)
