"""Prepares a module for the engine: its layers turned into ones that take a keep_prob, its state named.

L weight layers in the order in which they run; keep_prob[l] acts on the input of layer l + 1, lambda_ on its weight.
What a layer turns into is the engine's business: it hands in the function that does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sweeper.networks.survey import Example, Survey, is_weight_layer, survey, without_dropout

Turn = Callable[[nn.Module, bool], None]
"""Turns a layer into the engine's own, in place; told whether it is one of the L."""


@dataclass(frozen=True)
class RegularizedNetwork:
    """A module whose layers are the engine's. A fit's state is its trained parameters and what it keeps beside them.

    Attributes:
        module: takes `B x ...` rows.
        survey: what it consists of.
        weight_names: the L penalised weights, as `module.named_parameters()` calls them.
        trained: names of the parameters that train.
        kept: names of frozen parameters and buffers, `survey.moving` among them.
        aliases: further names of parameters that several layers share -> their first.
    """

    module: nn.Module
    survey: Survey
    weight_names: tuple[str, ...]
    trained: tuple[str, ...]
    kept: tuple[str, ...]
    aliases: Mapping[str, str]

    @property
    def layers(self) -> int:
        """L, the number of weight layers."""
        return len(self.survey.layers)

    @property
    def places(self) -> tuple[str, ...]:
        """Where the L layers stand, as `module.get_submodule` takes it."""
        return tuple(layer.name for layer in self.survey.layers)


def regularize(network: nn.Module, example: Example, turn: Turn) -> RegularizedNetwork:
    """Turn the layers of a module into the engine's, and its own dropouts into the identity.

    Args:
        network: is changed in place; parameters, buffers and their names stay.
        example: `B x ...`, a few real rows, see `survey`.
        turn: called with every linear layer, convolution and batch normalisation.

    Raises:
        NetworkError: the network can't be trained beside other fits.
    """
    found = survey(network, example)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    trained = tuple(name for name, parameter in network.named_parameters() if parameter.requires_grad)
    buffers = tuple(name for name, _ in network.named_buffers())
    weights = tuple(names[id(network.get_submodule(layer.name).weight)] for layer in found.layers)
    aliases = _aliases(network)
    without_dropout(network)
    regularized = {layer.name for layer in found.layers}
    for name, layer in network.named_modules():
        if is_weight_layer(layer) or isinstance(layer, _BatchNorm):
            turn(layer, name in regularized)
    return RegularizedNetwork(network, found, weights, trained, (*found.frozen, *buffers), aliases)


def _aliases(network: nn.Module) -> dict[str, str]:
    """Names that `named_parameters` and `named_buffers` leave out: the same tensor in a second module."""
    first: dict[int, str] = {}
    aliases = {}
    for place, module in network.named_modules():
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            name = f"{place}.{own}" if place else own
            if tensor is not None and first.setdefault(id(tensor), name) != name:
                aliases[name] = first[id(tensor)]
    return aliases
