"""A module's layers as the engine runs them: dropped inputs, products of steady bits, statistics of real rows alone.

Letters: B rows of a batch, of which `rows` are real and the rest padding; I inputs, O outputs; C channels.
A layer is turned where it stands, so that its parameters, its names and whatever else a module asks of it stay. What a
step decides comes in as buffers through `torch.func.functional_call`, one value per slot under vmap: `key0`, `key1`
(int32) pick a layer's mask, `threshold` (int32) is round(keep_prob * 2^24), `rows` (int64) a batch's real rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sweeper.engine.convolution import Window, convolution, window_of
from sweeper.engine.dropout import WHOLE, inverted_dropout
from sweeper.engine.products import linear
from sweeper.networks import RegularizedNetwork


class Dropped(nn.Module):
    """A layer that sees its input through inverted dropout in training mode; another mask each time that it runs."""

    key0: Tensor
    key1: Tensor
    threshold: Tensor
    uses: int
    per_channel: bool
    keeps_all: bool

    def undropped(self) -> None:
        """Prepare a layer that was just turned: it keeps everything."""
        self.uses, self.per_channel, self.keeps_all = 0, False, False
        for name, value in (("key0", 0), ("key1", 0), ("threshold", WHOLE)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.int32), persistent=False)

    def dropped(self, rows: Tensor) -> Tensor:
        """The input that the layer is to see."""
        if not self.training or self.keeps_all:
            return rows
        use, self.uses = self.uses, self.uses + 1
        return inverted_dropout(rows, self.key0, self.key1, self.threshold, use=use, per_channel=self.per_channel)


class SteadyLinear(nn.Linear):
    """A linear layer by `products.linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """`B x ... x I` to `B x ... x O`."""
        flat = linear(rows.reshape(-1, rows.shape[-1]), self.weight, self.bias)
        return flat.view(*rows.shape[:-1], -1)


class DroppedLinear(Dropped, SteadyLinear):
    """A linear layer that sees each number of its input with a chance of keep_prob, scaled by 1 / keep_prob."""

    def forward(self, rows: Tensor) -> Tensor:
        """`B x ... x I` to `B x ... x O`."""
        return super().forward(self.dropped(rows))


class SteadyConvolution(nn.Module):
    """A convolution by `convolution`; what it is made of stays where nn.Conv1d or nn.Conv2d put it."""

    weight: Tensor
    bias: Tensor | None
    window: Window

    def forward(self, rows: Tensor) -> Tensor:
        """`B x I x ...` to `B x O x ...`."""
        return convolution(rows, self.weight, self.bias, self.window)


class DroppedConvolution(Dropped, SteadyConvolution):
    """A convolution that sees each number of its input, or each channel, with a chance of keep_prob."""

    def forward(self, rows: Tensor) -> Tensor:
        """`B x I x ...` to `B x O x ...`."""
        return super().forward(self.dropped(rows))


class SlotBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics count the real rows of a batch alone (Ioffe & Szegedy 2015).

    The formulas are those of torch.nn.BatchNorm: the batch's own mean and biased variance in training, the running
    ones in evaluation; the running variance is of the unbiased kind. `momentum=None` averages over all batches.
    """

    rows: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """`B x C x ...`; in training mode the running statistics are replaced by new ones."""
        per_channel = (1, -1) + (1,) * (x.dim() - 2)
        if self.training:
            mean, variance = self._of_batch(x)
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            mean, variance = self.running_mean, self.running_var
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        normal = (x - mean.view(per_channel)) * scale.view(per_channel)
        return normal if self.bias is None else normal + self.bias.view(per_channel)

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the real rows, each `C`; enters them into the running ones."""
        real = (torch.arange(x.shape[0], device=x.device) < self.rows).view(-1, 1, 1)
        values = x.flatten(2) if x.dim() > 2 else x[:, :, None]  # B x C x values of a row
        number = (self.rows * values.shape[2]).clamp(min=1).to(x.dtype)
        mean = _sum_over_rows(torch.where(real, values, 0.0)) / number
        apart = torch.where(real, values - mean[:, None], 0.0)
        variance = _sum_over_rows(apart * apart) / number
        self._enter(mean.detach(), variance.detach() * (number / (number - 1).clamp(min=1)))
        return mean, variance

    def _enter(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None  # the survey refuses the others
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked = self.num_batches_tracked + 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean = (1 - share) * self.running_mean + share * mean
        self.running_var = (1 - share) * self.running_var + share * variance


def _sum_over_rows(values: Tensor) -> Tensor:
    """`C` of `B x C x P`, in two stages: one over both dimensions takes another order by the number of slots."""
    return values.sum(2).sum(0)


def in_slots(*, per_channel: bool = False) -> Callable[[nn.Module, bool], None]:
    """What turns a module's layers into the engine's, for `networks.regularize`.

    Args:
        per_channel: whether dropout before a convolution drops whole channels.
    """

    def turn(layer: nn.Module, regularized: bool) -> None:
        if isinstance(layer, _BatchNorm):
            _become(layer, SlotBatchNorm)
            layer.register_buffer("rows", torch.tensor(0), persistent=False)
            return
        if isinstance(layer, nn.Linear):
            _become(layer, DroppedLinear if regularized else SteadyLinear)
        else:
            window = window_of(layer)
            _become(layer, DroppedConvolution if regularized else SteadyConvolution)
            cast(SteadyConvolution, layer).window = window
        if isinstance(layer, Dropped):
            layer.undropped()
            layer.per_channel = per_channel and isinstance(layer, SteadyConvolution)

    return turn


def keep_all(network: RegularizedNetwork, layers: Collection[int]) -> None:
    """Spare some layers their masks: their keep_prob is always 1."""
    for layer in layers:
        place = network.module.get_submodule(network.places[layer])
        assert isinstance(place, Dropped)
        place.keeps_all = True


def _become(layer: nn.Module, kind: type[Any]) -> None:
    """Change what a layer does and keep all that it has, as torch.nn.utils.parametrize does."""
    layer.__class__ = kind
