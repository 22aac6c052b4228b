"""Seeds as functions of what they are for: the same on every machine, in every worker, at every attempt."""

from __future__ import annotations

import hashlib


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that is a function of its parts alone (BLAKE2b of their text, joined by "/")."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def fit_seed(sweep: int, replicate: int, number: int, fold: int) -> int:
    """The seed of a fit: the same in every space, so that spaces are compared on the same luck.

    Args:
        sweep: the sweep file's seed.
        replicate: the statistical block.
        number: the trial's.
        fold: which of the trial's fits.
    """
    return seed_of(sweep, "fit", replicate, number, fold)


def study_seed(sweep: int, replicate: int) -> int:
    """The seed of a study's suggestions: the same in every space, so that parameters of one name share their draws."""
    return seed_of(sweep, "study", replicate)
