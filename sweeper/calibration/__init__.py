"""Calibration: a few seconds on the sweep's own network and data choose how to compute it, and say what it will take.

No choice changes a result (promise 1) but one: compiled code differs from eager code in the last bits, so that one is
made at the launch and kept (`Numerics`).
"""

from sweeper.calibration.choice import Wish, set_up
from sweeper.calibration.outlook import Estimate, Pace, Span, estimate, pilot, rehearsed_pace
from sweeper.calibration.setup import Maker, Numerics, Setup

__all__ = [
    "Estimate",
    "Maker",
    "Numerics",
    "Pace",
    "Setup",
    "Span",
    "Wish",
    "estimate",
    "pilot",
    "rehearsed_pace",
    "set_up",
]
