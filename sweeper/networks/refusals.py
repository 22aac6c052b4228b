"""Why a module can't be trained beside others, found before anything is trained; each says what to do about it.

Letters: B rows of the example. Batches are padded to one length and evaluation takes all rows at once, so a row's
output must be its own; and a fit must come out the same wherever it runs, so nothing may draw its own random numbers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from sweeper.errors import NetworkError

TOLERANCE = 1e-3  # of a row's output in other company: batch-sized kernels may differ in the last bits


def unready(module: Any, inputs: int, beside_others: bool) -> None:
    """Refuse what can be seen without running the module.

    Args:
        module: what a user's function returned.
        inputs: how many tensors it will be given.
        beside_others: whether fits of it are to train in slots.
    """
    if not isinstance(module, nn.Module):
        raise NetworkError(f"a network must be a torch.nn.Module, but this is a {type(module).__name__}.")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise NetworkError(
                f"{name!r} is lazy: its size is not known before the module first runs, so no fit could draw its "
                f"initial weights. Write the sizes out, e.g. nn.Linear(inputs, 64) instead of nn.LazyLinear(64)."
            )
        if beside_others and tensor.is_floating_point() and tensor.dtype is not torch.float32:
            raise NetworkError(f"{name!r} is {tensor.dtype}, but the engine trains in float32. Call .float() on it.")
    required = [p.name for p in _positional(module) if p.default is p.empty]
    if len(required) > inputs:
        raise NetworkError(
            f"forward takes {len(required)} inputs ({', '.join(required)}), but gets {inputs}. Write one "
            f"forward(rows) that takes the columns of its rows apart, e.g. left, right = rows.split(4, dim=1)."
        )


def _positional(module: nn.Module) -> list[inspect.Parameter]:
    """What forward takes by position; nothing where Python can't tell."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, or a refusal where there can't be one."""
    try:
        return copy.deepcopy(module)
    except Exception as error:  # whatever a user's object makes of being copied
        raise NetworkError(
            f"the network can't be copied ({_first_line(error)}), but it is tried out on a copy. Keep only modules, "
            f"parameters, buffers and plain values on it."
        ) from error


def ran(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Run a module as it is and return its output: one tensor with a row per row."""
    try:
        output = module(*inputs)
    except Exception as error:  # the user's own code runs here
        shapes = ", ".join(" x ".join(map(str, tensor.shape)) for tensor in inputs)
        mode = "training" if module.training else "evaluation"
        raise NetworkError(
            f"the network fails on a batch of {shapes} in {mode} mode: {type(error).__name__}: {_first_line(error)}. "
            f"The first number is the rows; forward must take any number of them."
        ) from error
    if not isinstance(output, Tensor):
        raise NetworkError(
            f"the network returns a {type(output).__name__}, but the loss takes one tensor. Return the logits (or "
            f"the regression value) alone."
        )
    if output.ndim == 0 or output.shape[0] != inputs[0].shape[0]:
        raise NetworkError(
            f"of {inputs[0].shape[0]} rows the network makes a {tuple(output.shape)}, so that no row has an output of "
            f"its own. Return one row per row."
        )
    return output


def own_weight(name: str, layer: nn.Module) -> Tensor:
    """A layer's weight, which must be a parameter of its own."""
    weight = layer._parameters.get("weight")
    if weight is None:
        raise NetworkError(
            f"the weight of layer {name!r} is computed from other parameters (weight_norm, spectral_norm, pruning or "
            f"the like), so there is no weight for lambda_ to act on. Take that off."
        )
    return weight


def tied(first: str, second: str) -> None:
    """Refuse one weight in two layers."""
    if first != second:
        raise NetworkError(
            f"layers {first!r} and {second!r} have one weight between them, so that two lambda_ would act on the same "
            f"numbers. Call one layer twice, or give each its own weight."
        )


def unknown_norms(module: nn.Module) -> None:
    """Refuse normalisations whose statistics the engine can't keep to a slot's real rows."""
    for name, each in module.named_modules():
        if isinstance(each, nn.SyncBatchNorm):
            raise NetworkError(f"{name!r} is a SyncBatchNorm, but a fit lives on one device. Use nn.BatchNorm1d or 2d.")
        if isinstance(each, _BatchNorm) and each.running_mean is None:
            raise NetworkError(
                f"{name!r} keeps no running statistics, so that a row's evaluation would depend on the rows beside it. "
                f"Leave track_running_stats at True."
            )
        if isinstance(each, _InstanceNorm) and each.running_mean is not None:
            raise NetworkError(
                f"{name!r} keeps running statistics of instances, padded rows included. Pass track_running_stats=False."
            )


def grown(before: set[str], module: nn.Module) -> None:
    """Refuse parameters and buffers that only came, or went, as the module ran."""
    changed = before ^ names_of(module)
    if changed:
        raise NetworkError(
            f"{', '.join(sorted(changed))} came or went while the network ran, so that no fit could start with it. "
            f"Register parameters and buffers in __init__."
        )


def names_of(module: nn.Module) -> set[str]:
    """Names of a module's parameters and buffers."""
    return {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}


def written(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """The buffers that a pass replaces or writes to."""
    before = {name: (buffer, buffer._version) for name, buffer in module.named_buffers()}
    ran(module, inputs)
    after = dict(module.named_buffers())
    return [
        name for name, (buffer, version) in before.items() if after[name] is not buffer or buffer._version != version
    ]


def restless(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse buffers that an evaluation changes."""
    changed = written(module.eval(), inputs)
    if changed:
        raise NetworkError(
            f"the network changes {', '.join(changed)} in evaluation mode, but that must leave no trace in a fit. "
            f"Change it only where self.training."
        )


def entangled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Refuse outputs that depend on random numbers, on earlier passes, or on the other rows of the batch.

    Args:
        module: without dropouts; batch normalisations are judged by their running statistics.
        inputs: the example.
        output: what it made of them in evaluation mode.
    """
    _refuse_entangled(module.eval(), inputs, output)
    module.train()
    for each in module.modules():
        if isinstance(each, _BatchNorm):
            each.eval()
    with _buffers_kept(module):
        output = ran(module, inputs)
    _refuse_entangled(module, inputs, output)


def _refuse_entangled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    mode = "training" if module.training else "evaluation"
    before = torch.get_rng_state()
    with _buffers_kept(module):
        again = ran(module, inputs)
    if not torch.equal(torch.get_rng_state(), before):
        raise NetworkError(
            f"the network draws random numbers of its own in {mode} mode, so that a fit could not be repeated. "
            f"{_suspects(module)}"
        )
    if not torch.allclose(again, output, rtol=1e-5, atol=1e-6, equal_nan=True):
        raise NetworkError(
            f"the network makes other numbers of the same rows the second time in {mode} mode: it has noise or memory "
            f"of its own outside its parameters and buffers. Take that out, or keep it in a registered buffer."
        )
    own = inputs[0].shape[0] // 2
    with _buffers_kept(module):
        others = ran(module, tuple(torch.cat([each[:own], each[:1].expand_as(each[own:])]) for each in inputs))
    if not torch.allclose(others[:own], output[:own], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        raise NetworkError(
            f"in {mode} mode a row's output changes with the other rows of its batch, but short batches are padded "
            f"and all rows are evaluated at once. Normalise each row by itself, or with nn.BatchNorm1d or 2d."
        )


def _suspects(module: nn.Module) -> str:
    """Which part of a module probably draws random numbers, and what to do."""
    for name, each in module.named_modules():
        chance = getattr(each, "dropout", 0.0)
        if isinstance(chance, float) and chance > 0:
            return f"Pass dropout=0.0 to {type(each).__name__} {name!r}: keep_prob is what drops here."
        if isinstance(each, nn.RReLU):
            return f"Replace nn.RReLU {name!r} by nn.LeakyReLU."
    return "Leave functional dropout and noise out of forward: keep_prob is what drops here."


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Whatever happens to the buffers inside, they are as they were afterwards."""
    before = [(each, dict(each._buffers)) for each in module.modules()]
    values = {id(buffer): buffer.clone() for _, own in before for buffer in own.values() if buffer is not None}
    try:
        yield
    finally:
        for each, own in before:
            each._buffers.update(own)
            for buffer in own.values():
                if buffer is not None:
                    buffer.copy_(values[id(buffer)])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
