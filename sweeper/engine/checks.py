"""What can't be put into a slot is refused before it gets there."""

from __future__ import annotations

from collections.abc import Collection

from sweeper.engine.arena import Arena
from sweeper.engine.tick import Snapshot
from sweeper.errors import EngineError
from sweeper.records import Fit


def check_fit(fit: Fit, layers: int, undropped: Collection[int], folds: int) -> None:
    """Refuse a fit that is not for this engine.

    Args:
        fit: which.
        layers: L of the engine's network.
        undropped: layers whose keep_prob is 1 in every fit.
        folds: how many folds the engine has.

    Raises:
        EngineError: the setting has the wrong number of layers, or there is no such fold.
    """
    if len(fit.setting.keep_prob) != layers:
        raise EngineError(
            f"fit {fit.key}: its setting has {len(fit.setting.keep_prob)} layers, but the network has {layers} weight "
            f"layers. Give one keep_prob and one lambda_ per weight layer."
        )
    for layer in undropped:
        if fit.setting.keep_prob[layer] != 1.0:
            raise EngineError(f"fit {fit.key}: keep_prob_{layer} is not 1, but the engine was told that it always is.")
    if not 0 <= fit.fold < folds:
        raise EngineError(f"fit {fit.key}: there is no fold {fit.fold}; the engine has {folds}, from 0.")


def check_past(fit: Fit, past: Snapshot, arena: Arena) -> None:
    """Refuse a snapshot that this engine can't go on from.

    Raises:
        EngineError: it is of another network or optimiser.
    """
    theirs = {name: (value.shape, value.dtype) for name, value in past.tensors.items()}
    if arena.shapes() != theirs or int(past.tensors["fit/epoch"]) != len(past.scores):
        raise EngineError(f"fit {fit.key}: the snapshot is of another network or optimiser. Start the fit anew.")
