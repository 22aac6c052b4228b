"""A small valid sweep for tests to change."""

from __future__ import annotations

import pytest

from sweeper.config import Sweep, parse_sweep
from sweeper.errors import SweepFileError

DIGITS = """\
name: digits
data: {source: "sklearn:digits", train: 300, validation: 0.5}
model:
  kind: mlp
  hidden: [64, 64, 64]
train:
  epochs: 40
  batch_size: 32
search:
  sampler: random
  trials: 32
  replicates: 10
ranges:
  keep_prob: [0.2, 1.0]
  lambda: [1e-3, 30]
spaces:
  none: {}
  shared: {keep_prob: shared}
  both:
    keep_prob: per_layer
    lambda: per_layer
"""


def changed(*changes: tuple[str, str]) -> str:
    """DIGITS with pieces of text replaced, each of which it has."""
    text = DIGITS
    for old, new in changes:
        assert old in text, f"{old!r} is not in the sweep"
        text = text.replace(old, new, 1)
    return text


def sweep_with(*changes: tuple[str, str]) -> Sweep:
    """The sweep that a changed text says."""
    return parse_sweep(changed(*changes), "x.yaml", ".").sweep


def space(text: str) -> tuple[str, str]:
    """The change that puts a space called `shared` in place."""
    return ("{keep_prob: shared}", f"{{{text}}}")


def refused(*changes: tuple[str, str]) -> str:
    """Why a changed text is no sweep."""
    with pytest.raises(SweepFileError) as caught:
        parse_sweep(changed(*changes), "x.yaml", ".")
    return str(caught.value)
