"""What tests/benchmarks/engine.py checks and shows on a device beside the turns: masks, a profile, MPS.

profile    one tick under torch.profiler: seconds by kind of work, the device's gaps, the costliest operations.
masks      random bits, masks and row orders, bit for bit as the CPU makes them, eager and compiled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from engine_ours import Ours
from engine_workload import Work
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sweeper.engine import can_compile
from sweeper.engine.random import row_order, slot_keys, uniform24

ELEMENTS = 1 << 20

# By words in a kernel's name, the first that fits.
KINDS = {
    "products": ("gemm", "cutlass", "nvjet", "xmma", "splitk", "triton_tem", "bmm_kernel"),
    "copies": ("memcpy", "memset"),
    "generated code": ("triton",),
}


def check_masks(device: str) -> str:
    """One line: whether this device draws the CPU's bits."""
    here, there = torch.device("cpu"), torch.device(device)
    ways: dict[str, Callable[[torch.device], tuple[Tensor, ...]]] = {"eager": _draws}
    if can_compile(device):
        ways["compiled"] = torch.compile(_draws, dynamic=False)
    expected = _draws(here)
    verdicts = []
    for name, draws in ways.items():
        same = all(torch.equal(one, other.cpu()) for one, other in zip(expected, draws(there), strict=True))
        verdicts.append(f"{name}: {'equal bit for bit' if same else 'DIFFERENT'}")
    return f"masks and row orders on {device} against eager on the CPU, {ELEMENTS:,} draws: {'; '.join(verdicts)}"


def _draws(device: torch.device) -> tuple[Tensor, ...]:
    seed = torch.arange(4, device=device) * 0x1234567890ABCD + 7
    keys = slot_keys(seed, torch.arange(4, device=device), torch.full_like(seed, 1 << 33))
    element = torch.arange(ELEMENTS // 4, dtype=torch.int32, device=device)[None]
    bits = uniform24(keys[:, :1], keys[:, 1:], element)
    rows = torch.tensor([8192, 8191, 5, 1], device=device)
    order = row_order(seed, torch.arange(4, device=device), rows, 8192)
    real = torch.arange(8192, device=device)[None] < rows[:, None]
    return bits, bits < (1 << 23), torch.where(real, order, -1)


def mps() -> str:
    """Whether processes share the GPU under NVIDIA's multi-process service."""
    control = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control")
    return "MPS is running" if control.exists() else "no MPS: processes take turns on the device"


def profiled(work: Work, slots: int, compiled: bool) -> str:
    """A page: where one tick of a full engine spends its time, the host's part included."""
    ours, cuda = Ours(work, slots, compiled), work.device.startswith("cuda")
    ours.warm_up()
    ours.engine.admit([fit for _, fit in zip(range(slots), work.fits(0), strict=False)])
    ours.engine.train()
    _, took_s = _one_tick(ours)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as seen:
        busy, slowed_s = _one_tick(ours)
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table = seen.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=60)
    head = f"one tick of K={slots}: {1e3 * took_s:.1f} ms, {1e6 * took_s / busy:.1f} us a slot-step"
    return f"{head}; under the profiler {1e3 * slowed_s:.1f} ms\n{_by_kind(seen, took_s) if cuda else ''}{table}"


def _one_tick(ours: Ours) -> tuple[int, float]:
    """Its slot-steps and seconds."""
    start = time.perf_counter()
    tick = ours.engine.train()
    return tick.busy, time.perf_counter() - start


def _by_kind(seen: profile, took_s: float) -> str:
    """Kernels by kind, as shares of a tick without the profiler, and what of the tick no kernel covers."""
    kernels = [
        event
        for event in seen.events() or []
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not event.is_user_annotation  # a compiled region's span on the device, gaps included
        and not event.name.startswith("##")
    ]
    spans = [(event.time_range.start, event.time_range.end) for event in kernels]
    by_kind: dict[str, float] = {}
    for event in kernels:
        kind = kind_of(event.name)
        by_kind[kind] = by_kind.get(kind, 0.0) + event.time_range.elapsed_us()
    by_kind["no kernel at work"] = max(0.0, 1e6 * took_s - covered(spans))
    lines = [f"  {kind:<24} {us / 1e3:>9.2f} ms {us / took_s / 1e4:>5.1f} %" for kind, us in by_kind.items()]
    return "\n".join([*lines, f"  {len(kernels)} kernels", ""])


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other kernels")


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans: kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
