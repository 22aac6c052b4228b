"""torch.compile for the engine's functions, where a C++ compiler is at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def can_compile(device: str) -> bool:
    """Whether torch.compile can make code here: on a CPU it needs a C++ compiler, on a GPU Triton."""
    if torch.device(device).type == "cuda":
        return torch.utils._triton.has_triton()
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


# One step is compiled per engine, and PyTorch counts them together: a worker that serves many sweeps needs more than 8.
ENGINES_PER_PROCESS = 256


def compiled(function: F) -> F:
    """One compiled function with static shapes: whatever would recompile is a mistake, not a slow-down."""
    torch._dynamo.config.recompile_limit = ENGINES_PER_PROCESS
    return cast(F, torch.compile(function, fullgraph=True, dynamic=False))
