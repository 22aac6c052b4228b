"""Every layer is turned where it stands; parameters, buffers and names stay the user's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sweeper.errors import EngineError
from sweeper.networks import RegularizedNetwork, mlp, regularize


class Tripled(nn.Linear):
    """A linear layer that can be told from a plain one."""

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.linear(3 * rows, self.weight, self.bias)


def turn(layer: nn.Module, regularized: bool) -> None:
    if regularized and isinstance(layer, nn.Linear):
        layer.__class__ = Tripled


def tripled(network: nn.Module, inputs: int = 4) -> RegularizedNetwork:
    return regularize(network, torch.randn(6, inputs), turn)


def named() -> nn.Sequential:
    network = nn.Sequential()
    network.add_module("wide", nn.Linear(4, 6))
    network.add_module("bend", nn.Tanh())
    network.add_module("narrow", nn.Linear(6, 2, bias=False))
    return network


def test_places_and_weights_are_named_in_running_order() -> None:
    network = tripled(mlp(3, (7, 7, 3, 2), 1), 3)
    assert network.layers == 5
    assert network.places == ("0", "2", "4", "6", "8")
    assert network.weight_names == ("0.weight", "2.weight", "4.weight", "6.weight", "8.weight")


def test_the_users_own_names_are_kept() -> None:
    network = tripled(named())
    assert network.places == ("wide", "narrow")
    assert network.weight_names == ("wide.weight", "narrow.weight")
    assert [type(layer) for layer in network.module.children()] == [Tripled, nn.Tanh, Tripled]


def test_a_module_that_is_one_layer_has_an_empty_place() -> None:
    network = tripled(nn.Linear(4, 2))
    assert (network.places, network.weight_names) == (("",), ("weight",))


def test_parameters_are_the_same_objects_in_the_same_order() -> None:
    plain = mlp(4, (6, 5), 2)
    before = dict(plain.named_parameters())
    after = dict(tripled(plain).module.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_biases_are_no_weights() -> None:
    network = tripled(mlp(4, (6,), 2))
    others = {name for name, _ in network.module.named_parameters()} - set(network.weight_names)
    assert others == {"0.bias", "2.bias"}


def test_what_a_layer_was_turned_into_sees_the_layers_input() -> None:
    plain, rows = nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4)
    expected = plain(3 * rows)
    assert torch.equal(tripled(plain).module(rows), expected)


def test_a_layer_keeps_what_a_module_may_ask_of_it() -> None:
    layer = nn.Linear(4, 2)
    layer.note = "mine"
    network = tripled(nn.Sequential(layer))
    assert network.module.get_submodule("0") is layer
    assert (layer.in_features, layer.out_features, layer.note) == (4, 2, "mine")


def test_its_own_dropouts_become_the_identity() -> None:
    network = tripled(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2), nn.AlphaDropout(0.5))).module
    assert [type(each) for each in network.children()] == [nn.Identity, Tripled, nn.Identity]


def test_the_engine_is_told_which_layers_are_regularised() -> None:
    class Spare(nn.Sequential):
        def forward(self, rows: Tensor) -> Tensor:
            return self[2](self[1](self[0](rows)))

    told: dict[str, bool] = {}
    network = Spare(nn.BatchNorm1d(4), nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2), nn.Linear(4, 2))
    names = {id(layer): name for name, layer in network.named_children()}
    regularize(network, torch.randn(6, 4), lambda layer, regularized: told.update({names[id(layer)]: regularized}))
    assert told == {"0": False, "1": False, "2": True, "3": False}


def test_what_trains_and_what_is_kept_are_told_apart() -> None:
    network = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network.register_buffer("constant", torch.ones(3))
    found = tripled(network)
    assert found.trained == ("1.weight", "1.bias", "2.weight", "2.bias")
    statistics = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert found.kept == ("0.weight", "0.bias", "constant", *statistics)
    assert found.survey.moving == statistics
    assert isinstance(network[1], _BatchNorm)


def test_a_parameter_of_two_modules_has_one_name_and_an_alias() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    network[2].bias = network[1].bias
    found = tripled(network)
    assert found.aliases == {"2.bias": "1.bias"}
    assert "2.bias" not in found.trained


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(
        EngineError, match=r"no linear layer .*, so there is nothing to regularise. Give it at least one"
    ):
        tripled(nn.Sequential(nn.ReLU()))
