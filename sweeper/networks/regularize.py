"""Finds the weight layers of a module, so that a dropout can stand in front of each.

L weight layers in the order in which they run; keep_prob[l] acts on the input of layer l + 1, lambda_ on its weight.
What stands in a layer's place is the engine's business: it hands in the function that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sweeper.errors import EngineError


@dataclass(frozen=True)
class RegularizedNetwork:
    """A module whose weight layers were replaced by ones that drop their input.

    Attributes:
        module: takes `B x ...` rows.
        places: where the L replaced layers stand, as `module.get_submodule` takes it.
        weight_names: the L penalised weights, as `module.named_parameters()` calls them.
    """

    module: nn.Module
    places: tuple[str, ...]
    weight_names: tuple[str, ...]

    @property
    def layers(self) -> int:
        """L, the number of weight layers."""
        return len(self.places)


def regularize(network: nn.Sequential, dropped: Callable[[nn.Linear], nn.Module]) -> RegularizedNetwork:
    """Replace every Linear of a sequential network by `dropped(layer)`.

    Args:
        network: is changed in place; its layers run in the order in which they stand.
        dropped: makes the module that drops its input and then does what the layer does, with the same parameters.

    Returns:
        The network and the names of its places and weights, first layer first.

    Raises:
        EngineError: the network has no weight layer, or one that stands elsewhere than in its plain sequence.
    """
    layers = {name: layer for name, layer in network.named_children() if isinstance(layer, nn.Linear)}
    if not layers:
        raise EngineError("the network has no linear layer, so there is nothing to regularise. Give it at least one.")
    everywhere = [layer for _, layer in network.named_modules(remove_duplicate=False) if isinstance(layer, nn.Linear)]
    if len(everywhere) != len({id(layer) for layer in layers.values()}):
        raise EngineError(
            f"the network has {len(everywhere)} linear layers, but {len(layers)} stand in its plain sequence; the "
            f"rest are nested or shared. Write them one after the other, each its own."
        )
    weights = {id(layer.weight) for layer in layers.values()}
    for name, layer in layers.items():
        setattr(network, name, dropped(layer))
    names = tuple(name for name, parameter in network.named_parameters() if id(parameter) in weights)
    return RegularizedNetwork(network, tuple(layers), names)
