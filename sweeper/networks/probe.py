"""A network built once and looked at on rows of the data, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sweeper.networks.survey import Survey, survey
from sweeper.records import Floats, Task


def probe(build: Callable[[], nn.Module], rows: Floats, task: Task, classes: int) -> Survey:
    """What a network consists of, if it can be trained in slots and fits the data.

    Args:
        build: makes it.
        rows: `B x D`, a few real ones, B >= 2.
        task: what its output means.
        classes: how many there are; counts for MULTICLASS.

    Raises:
        NetworkError: it can't be trained beside other fits, or makes other outputs than the task needs.
    """
    found = survey(build(), torch.from_numpy(rows))
    found.check_task(task, classes)
    return found
