"""Frozen, pretrained networks: their weights read without running anybody's code, their activations pooled.

Letters: N rows, F activations of one row. A backbone turns rows into `N x F`, or into feature maps `N x C x H x W`,
which are concat-pooled as fast.ai does: the C maxima, then the C means. Anything else is flattened.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from hashlib import file_digest
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sweeper.errors import CodeError, DataError
from sweeper.records import Floats

BATCH_ROWS = 256  # fixed, so that a row's last bits don't depend on the machine's memory
_TORCH_FILES = (".pt", ".pth", ".bin")
_TAIL = ("avgpool", "fc", "classifier", "head", "heads")
_WAY_OUT = "Write a function that returns the part that you need, and name it as python:PKG.MOD:FUNCTION."
_MOST_NAMES = 3

Progress = Callable[[int, int], None]
"""Is told how many rows of how many are done."""


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes.

    Raises:
        DataError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name, on the CPU.

    Args:
        path: .safetensors, or PyTorch's own format (.pt, .pth, .bin) as long as it holds nothing but tensors.

    Raises:
        DataError: it is of another kind, damaged, or holds objects that would have to be unpickled.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} can't be read as safetensors: {error}.") from error
    if path.suffix not in _TORCH_FILES:
        raise DataError(f"{path} is no weights file. Known: .safetensors, {', '.join(_TORCH_FILES)}.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader makes of bytes that anybody may have written
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"{path} can't be read as plain tensors: {first_line} Anything else would have to be unpickled, which runs "
            f"code, so it is refused. Save the weights with safetensors.torch.save_file(module.state_dict(), "
            f"'weights.safetensors')."
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path} holds no mapping of names to tensors. Save module.state_dict().")
    return dict(found)


def with_weights(module: Any, path: Path) -> nn.Module:
    """Put a file's weights into a module, all of them and no others.

    Raises:
        CodeError: what a user's function returned is no module.
        DataError: the file can't be read, or its names or shapes are not the module's.
    """
    if not isinstance(module, nn.Module):
        raise CodeError(f"a backbone must be a torch.nn.Module, but this is a {type(module).__name__}.")
    weights, own = read_weights(path), module.state_dict()
    others = [f"has no {name}" for name in own if name not in weights]
    others += [f"has {name}, which the backbone has not" for name in weights if name not in own]
    others += [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if others:
        more = f", and {len(others) - _MOST_NAMES} differences more" if len(others) > _MOST_NAMES else ""
        raise DataError(f"the weights in {path} are not this backbone's: {', '.join(others[:_MOST_NAMES])}{more}.")
    module.load_state_dict(weights)
    return module


def torchvision_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of torchvision's, untrained and whole.

    Args:
        name: as `torchvision.models.get_model` knows it, e.g. "resnet18".
        arguments: for its function.

    Raises:
        CodeError: torchvision is not installed, or has no such network.
    """
    try:
        models = importlib.import_module("torchvision.models")
    except ModuleNotFoundError:
        raise CodeError(
            f"torchvision:{name} needs torchvision, which is not installed: pip install torchvision"
        ) from None
    known = models.list_models()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise CodeError(f"torchvision has no network {name!r}.{hint} See torchvision.models.list_models().")
    network: nn.Module = models.get_model(name, weights=None, **arguments)
    return network


class Body(nn.Module):
    """A torchvision network cut off before its pooling and classifier, as fast.ai cuts it; takes grey images too.

    Args:
        network: whole; its children up to the first that is called avgpool, fc, classifier or head run one by one.

    Raises:
        CodeError: it is none that runs its children one by one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        children = list(network.named_children())
        kept = list(takewhile(lambda child: child[0] not in _TAIL, children))
        if not kept or len(kept) == len(children) or any(name.lower().startswith("aux") for name, _ in kept):
            raise CodeError(f"torchvision's {type(network).__name__} can't be cut before its classifier. {_WAY_OUT}")
        self.layers = nn.Sequential(*(child for _, child in kept))

    def forward(self, images: Tensor) -> Tensor:
        """`B x 3 x H x W` images, or `B x 1 x H x W` grey ones, to feature maps."""
        maps: Tensor = self.layers(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)
        return maps


def activations_of(
    module: nn.Module,
    x: npt.NDArray[np.float64],
    *,
    shape: Sequence[int] | None,
    device: str,
    progress: Progress,
) -> Floats:
    """What a backbone makes of rows: evaluation mode, no gradients, a batch at a time.

    Args:
        module: the backbone with its weights.
        x: `N x D`, as the data source has them.
        shape: of one row for the backbone, of D numbers; None leaves them in a row.
        device: where to compute.
        progress: told after each batch.

    Returns:
        `N x F` float32.

    Raises:
        DataError: an activation is no finite number.
        CodeError: the backbone returns something else than one tensor with a row per row.
    """
    module = module.to(device).eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(x), BATCH_ROWS):
            rows = torch.from_numpy(x[start : start + BATCH_ROWS].astype(np.float32)).to(device)
            parts.append(_pooled(module(rows if shape is None else rows.view(-1, *shape)), len(rows)).cpu().numpy())
            progress(min(start + BATCH_ROWS, len(x)), len(x))
    found: Floats = np.concatenate(parts)
    if not np.all(np.isfinite(found)):
        raise DataError("the backbone's activations are not all finite numbers. Scale the rows as it was trained on.")
    return found


def _pooled(output: Any, rows: int) -> Tensor:
    """`B x F` of whatever a backbone returned."""
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[0] != rows:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise CodeError(
            f"the backbone must return one tensor with a row for each of {rows} rows, but returned {found}."
        )
    if output.ndim == 4:
        maxima, means = functional.adaptive_max_pool2d(output, 1), functional.adaptive_avg_pool2d(output, 1)
        output = torch.cat([maxima, means], 1)
    flat: Tensor = output.flatten(1)
    return flat.float()
