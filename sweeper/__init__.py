"""Hyperparameter sweeps that measure what each extra hyperparameter costs and what it buys.

`sweeper.regularize(module, example, ...)` gives a module of one's own a keep_prob and a lambda_ per layer.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "regularize"]


def __getattr__(name: str) -> Any:
    """Import PyTorch only when somebody asks for what needs it."""
    if name == "regularize":
        return import_module("sweeper.engine.own_loop").regularize
    raise AttributeError(f"module 'sweeper' has no attribute {name!r}")
