"""torch.compile for the engine's functions, where a C++ compiler is at hand."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from sweeper.errors import EngineError

F = TypeVar("F", bound=Callable[..., Any])


def can_compile(device: str) -> bool:
    """Whether torch.compile can make code here: needs a C++ compiler and Python's headers, or Triton."""
    if torch.device(device).type == "cuda":
        return torch.utils._triton.has_triton()
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    headers = Path(sysconfig.get_path("include"), "Python.h")  # Inductor's code is called from Python
    return headers.exists() and any(shutil.which(name) for name in compilers if name)


# One step is compiled per engine, and PyTorch counts them together: a worker that serves many sweeps needs more than 8.
ENGINES_PER_PROCESS = 256


def compiled(function: F) -> F:
    """One compiled function with static shapes: whatever would recompile is a mistake, not a slow-down."""
    torch._dynamo.config.recompile_limit = ENGINES_PER_PROCESS
    return cast(F, torch.compile(function, fullgraph=True, dynamic=False))


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turn a compiler's failure into an EngineError that says so in one line; the caller can go on eager."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # importing them takes seconds
            raise
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"the training step can't be compiled here: {reason} Pass --compile off.") from error
