"""Trains many fits at once on one device. Needs torch and numpy alone."""

from sweeper.engine.compiler import can_compile
from sweeper.engine.engine import Engine, Tick

__all__ = ["Engine", "Tick", "can_compile"]
