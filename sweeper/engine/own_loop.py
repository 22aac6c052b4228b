"""Dropout and L2 per layer for a training loop of one's own: what `sweeper.regularize` gives.

Letters: L weight layers, m training rows. The module stays PyTorch's, layer by layer; only the inputs of its L weight
layers pass through a gate that drops in training mode. With a seed the masks are those of a fit in the engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sweeper.engine.dropout import inverted_dropout, thresholds
from sweeper.engine.random import slot_keys
from sweeper.errors import SettingError
from sweeper.networks.survey import Example, Survey, survey, without_dropout
from sweeper.records import Setting


class Regularized(nn.Module):
    """A module with a keep_prob and a lambda_ per weight layer; `regularize` makes one.

    Attributes:
        module: the user's own, its parameters untouched.
        survey: what it consists of; `survey.layers` names the L layers in the order in which they run.
        step: training passes so far; with a seed, the next pass's masks are a function of it.
    """

    def __init__(
        self,
        module: nn.Module,
        survey: Survey,
        *,
        per_channel: bool,
        seed: int | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.module, self.survey = module, survey
        self.per_channel, self.seed, self.generator = per_channel, seed, generator
        self.step = 0
        self._setting = Setting((1.0,) * len(survey.layers), (0.0,) * len(survey.layers))
        self._gates = [_Gate(self, number) for number in range(len(survey.layers))]
        for layer, gate in zip(survey.layers, self._gates, strict=True):
            module.get_submodule(layer.name).register_forward_pre_hook(gate)

    @property
    def keep_prob(self) -> tuple[float, ...]:
        """The chance that a unit is kept, per layer, keep_prob[0] being the input's.

        Set it to L numbers, or to one for all layers but the input's, which then keeps everything.
        """
        return self._setting.keep_prob

    @keep_prob.setter
    def keep_prob(self, value: float | Sequence[float]) -> None:
        each = (1.0, *[float(value)] * (self._layers - 1)) if isinstance(value, int | float) else tuple(value)
        self._set(Setting(self._per_layer(each, "keep_prob"), self.lambda_))

    @property
    def lambda_(self) -> tuple[float, ...]:
        """L2 per layer, in the convention of `penalty`. Set it to L numbers, or to one for all."""
        return self._setting.lambda_

    @lambda_.setter
    def lambda_(self, value: float | Sequence[float]) -> None:
        each = (float(value),) * self._layers if isinstance(value, int | float) else tuple(value)
        self._set(Setting(self.keep_prob, self._per_layer(each, "lambda_")))

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the module makes of its inputs; in training mode each weight layer sees what its gate keeps."""
        for gate in self._gates:
            gate.uses = 0
        output = self.module(*arguments, **named)
        self.step += self.training
        return output

    def penalty(self, rows: int) -> Tensor:
        """(1 / 2m) sum_l lambda_l ||W_l||_F^2, to be added to the mean training loss; biases are exempt.

        Args:
            rows: m, all training rows (not those of a batch).
        """
        weights = [self.module.get_parameter(f"{layer.name}.weight".lstrip(".")) for layer in self.survey.layers]
        terms = [lambda_ * weight.square().sum() for lambda_, weight in zip(self.lambda_, weights, strict=True)]
        return torch.stack(terms).sum() / (2 * rows)

    @property
    def _layers(self) -> int:
        return len(self.survey.layers)

    def _per_layer(self, values: tuple[float, ...], name: str) -> tuple[float, ...]:
        if len(values) != self._layers:
            names = ", ".join(layer.name or "the module itself" for layer in self.survey.layers)
            raise SettingError(f"{len(values)} {name} were given for {self._layers} weight layers ({names}).")
        return tuple(float(value) for value in values)

    def _set(self, setting: Setting) -> None:
        self._setting = setting


class _Gate:
    """Stands before one weight layer; an object and no closure, so that a copied module has gates of its own."""

    def __init__(self, owner: Regularized, number: int) -> None:
        self.owner, self.number, self.uses = owner, number, 0

    def __call__(self, layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        keep_prob = self.owner.keep_prob[self.number]
        use, self.uses = self.uses, self.uses + 1
        if not layer.training or keep_prob == 1.0:
            return None
        rows, *rest = arguments
        return self._dropped(rows, keep_prob, use), *rest

    def _dropped(self, rows: Tensor, keep_prob: float, use: int) -> Tensor:
        kind = self.owner.survey.layers[self.number].kind
        per_channel = self.owner.per_channel and kind == "channels"
        if self.owner.seed is None:
            drawn = rows.shape[:2] + (1,) * (rows.dim() - 2) if per_channel else rows.shape
            kept = torch.rand(drawn, generator=self.owner.generator, device=rows.device) < keep_prob
            return torch.where(kept, rows / keep_prob, 0.0)
        draw = (torch.tensor(value, device=rows.device) for value in (self.owner.seed, self.number, self.owner.step))
        key0, key1 = slot_keys(*draw)
        bar = thresholds(torch.tensor(keep_prob, dtype=torch.float64, device=rows.device))
        return inverted_dropout(rows, key0, key1, bar, use=use, per_channel=per_channel)


def regularize(
    module: nn.Module,
    example: Example,
    *,
    keep_prob: float | Sequence[float] = 1.0,
    lambda_: float | Sequence[float] = 0.0,
    per_channel: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Regularized:
    """Give every weight layer of a module a keep_prob and a lambda_, for a training loop of one's own.

    Inverted dropout acts on the input of each linear layer and convolution in training mode, and is the identity in
    evaluation mode. The module's own nn.Dropouts are replaced by the identity, with a warning.

    >>> import torch
    >>> from torch import nn
    >>> import sweeper
    >>> x, y = torch.randn(100, 8), torch.randint(3, (100,))
    >>> network = sweeper.regularize(
    ...     nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), x[:4], keep_prob=(1.0, 0.5), lambda_=0.1
    ... )
    >>> [layer.name for layer in network.survey.layers]
    ['0', '2']
    >>> optimizer = torch.optim.Adam(network.parameters())
    >>> for rows in torch.arange(100).split(20):
    ...     loss = nn.functional.cross_entropy(network(x[rows]), y[rows]) + network.penalty(rows=100)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    >>> network.keep_prob = (0.9, 0.5)  # from the next pass on
    >>> network.step
    5

    Args:
        module: is changed in place, but for its parameters and buffers.
        example: a few rows, `B x ...`; a tuple of tensors for a forward that takes several.
        keep_prob: L numbers in (0, 1], in the order in which the layers run, keep_prob[0] being the input's; or one for
            all layers but the input's.
        lambda_: L numbers >= 0, or one for all; see `Regularized.penalty`.
        per_channel: whether dropout before a convolution drops whole channels.
        seed: makes masks a function of seed, layer and step, as in the engine; None draws them from `generator`.
        generator: of the masks; None is PyTorch's global one.

    Returns:
        A module that takes what the given one takes.

    Raises:
        NetworkError: there is no weight layer, or one without a weight of its own.
        SettingError: a keep_prob or lambda_ lies outside its range, or there are too many or too few.
    """
    found = survey(module, example, beside_others=False)
    if found.dropouts:
        warnings.warn(
            f"the module's own dropouts ({', '.join(found.dropouts)}) are replaced by the identity: keep_prob says "
            f"what is kept.",
            stacklevel=2,
        )
    without_dropout(module)
    network = Regularized(module, found, per_channel=per_channel, seed=seed, generator=generator)
    network.keep_prob, network.lambda_ = keep_prob, lambda_
    return network
