"""Whether it is a trial that fails, or the device that trains it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sweeper.engine import Engine
from sweeper.errors import SweeperError, TrainingError
from sweeper.urls import masked

PROOF_S = 0.5  # of training nothing


@contextmanager
def training() -> Iterator[None]:
    """What fails inside is none of our own errors, but PyTorch's, or that of the user's code.

    Raises:
        TrainingError: it failed.
    """
    try:
        yield
    except SweeperError:
        raise
    except Exception as error:
        raise TrainingError(f"training failed: {type(error).__name__}: {masked(str(error))}.") from error


def is_sound(engine: Engine) -> bool:
    """Whether an empty engine trains nothing without an error."""
    try:
        engine.rehearse(PROOF_S)
    except Exception:  # whatever a device fails with
        return False
    return True
