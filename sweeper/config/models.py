"""Kinds of networks: the lectures' perceptron, a function of the user's own, and a head on a frozen backbone.

Letters: L weight layers, D numbers per row, C outputs. `weight_layers` is L where the file tells it, and None where
only building the network does. `keep_prob` are the L chances to be kept that the model itself names, None elsewhere.
Reading a file imports nothing: a reference to Python code is text until somebody asks for the function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sweeper.config.base import FORM, Count, Problem, Section, Text, is_number, refuse, refuse_here
from sweeper.config.spaces import Drops, kept_from

PYTHON, TORCHVISION = "python:", "torchvision:"
_PYTHON_FORM, _TORCHVISION_FORM = "python:PKG.MOD:FUNCTION", "torchvision:NAME"
_PYTHON_PATTERN = r"^python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
_BACKBONE_PATTERN = rf"({_PYTHON_PATTERN})|(^torchvision:\w+$)"
_USUAL_P, _USUAL_LAST_P = 0.25, 0.5
"""fast.ai's: of each extra layer, and of the one to the classes (R11)."""


def _names_function(kind: str) -> str:
    if not re.match(_PYTHON_PATTERN, kind):
        refuse_here(f"{kind!r} names no function. Write {_PYTHON_FORM}, e.g. python:models:digits_conv.")
    return kind


def _names_backbone(kind: str) -> str:
    if not re.match(_BACKBONE_PATTERN, kind):
        refuse_here(
            f"{kind!r} names no backbone. Write {_PYTHON_FORM} or {_TORCHVISION_FORM}, e.g. torchvision:resnet18."
        )
    return kind


PythonName = Annotated[
    Text, AfterValidator(_names_function), WithJsonSchema({"type": "string", "pattern": _PYTHON_PATTERN})
]
BackboneName = Annotated[
    Text, AfterValidator(_names_backbone), WithJsonSchema({"type": "string", "pattern": _BACKBONE_PATTERN})
]


class Mlp(Section):
    """A multilayer perceptron, as in the lectures."""

    kind: Literal["mlp"] = Field(description="the kind of network")
    hidden: tuple[Count, ...] = Field(description="units of each hidden layer, e.g. [64, 64, 64]")
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu"] = Field(
        "relu", description="what follows each hidden layer"
    )
    keep_prob: ClassVar[None] = None
    references: ClassVar[tuple[str, ...]] = ()

    @property
    def weight_layers(self) -> int:
        """L, the number of weight layers."""
        return len(self.hidden) + 1


class Python(Section):
    """A network that a function of your own makes; every other key is one of that function's arguments.

    It is called as FUNCTION(D, C, **arguments) and returns a torch.nn.Module that turns `rows x D` into `rows x C`.
    """

    model_config = ConfigDict(extra="allow")

    kind: PythonName = Field(description="the function that makes the network, as python:PKG.MOD:FUNCTION")
    drop: Literal["unit", "channel"] = Field(
        "unit", description="what dropout drops before a convolution: each number apart, or whole channels"
    )
    tag: ClassVar[str] = "python"
    form: ClassVar[str] = _PYTHON_FORM
    weight_layers: ClassVar[None] = None
    keep_prob: ClassVar[None] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function is called with beyond D and C."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def references(self) -> tuple[str, ...]:
        """The functions of the user's own that the model names."""
        return (self.kind,)


class Backbone(Section):
    """The frozen network under a head; every other key is one of its function's arguments.

    A function is called as FUNCTION(D, **arguments), or with `shape` in D's place where the head gives one.
    """

    model_config = ConfigDict(extra="allow")

    kind: BackboneName = Field(description="python:PKG.MOD:FUNCTION, a function that makes it, or torchvision:NAME")

    @property
    def arguments(self) -> dict[str, Any]:
        """What its function is called with beyond D."""
        return dict(self.__pydantic_extra__ or {})


def _by_name(value: Any) -> Any:
    if not isinstance(value, str | Mapping | Section):
        raise PydanticCustomError(FORM, "should be a name, or {kind: NAME, ...}")
    return {"kind": value} if isinstance(value, str) else value


class Head(Section):
    """Linear layers on the activations of a frozen, pretrained network, with fast.ai's names and meanings (R12).

    Each of the L = len(xtra_fc) + 1 layers is batch normalisation, dropout, linear; ReLU follows all but the last. The
    backbone sees the rows as the data source has them; data.standardise is for its activations.
    """

    kind: Literal["head"] = Field(description="the kind of network")
    backbone: Annotated[Backbone, BeforeValidator(_by_name, json_schema_input_type=BackboneName | Backbone)] = Field(
        description="the pretrained network: python:PKG.MOD:FUNCTION or torchvision:NAME; or {kind: NAME, ...} with "
        "arguments",
    )
    weights: Text = Field(
        description="file with the backbone's weights, .safetensors or a .pt of plain tensors; relative to the sweep "
        "file's folder"
    )
    made_by: Text | None = Field(
        None, exclude=True, description="command that makes the weights file, shown where the file is missing"
    )
    shape: Annotated[tuple[Count, ...], Field(min_length=1)] | None = Field(
        None, description="shape of one row for the backbone, e.g. [3, 224, 224]; left out, rows go in as they are"
    )
    xtra_fc: tuple[Count, ...] = Field((512,), description="units of the extra linear layers; [] leaves the last alone")
    ps: Drops = Field(
        (_USUAL_P, _USUAL_LAST_P),
        description="chance to be DROPPED before each linear layer, extra ones first; one number stands for all; "
        "default 0.25 for the extra ones and 0.5 for the last",
    )

    @property
    def weight_layers(self) -> int:
        """L, the number of weight layers."""
        return len(self.xtra_fc) + 1

    @property
    def keep_prob(self) -> tuple[float, ...]:
        """1 - ps: what acts on the input of each weight layer, unless a space searches it."""
        kept: tuple[float, ...] = kept_from(self.ps)
        return kept

    @property
    def references(self) -> tuple[str, ...]:
        """The functions of the user's own that the model names."""
        return (self.backbone.kind,) if self.backbone.kind.startswith(PYTHON) else ()

    @model_validator(mode="before")
    @classmethod
    def _write_out_ps(cls, given: Any) -> Any:
        """One p per layer, so that a recorded sweep says what its spaces fixed."""
        if not isinstance(given, Mapping):
            return given
        extra = given.get("xtra_fc", (512,))
        if not isinstance(extra, list | tuple):
            return given
        ps = given.get("ps", (_USUAL_P,) * len(extra) + (_USUAL_LAST_P,))
        return {**given, "ps": (ps,) * (len(extra) + 1) if is_number(ps) and 0 <= ps < 1 else ps}

    @model_validator(mode="after")
    def _one_p_per_layer(self) -> Head:
        if isinstance(self.ps, tuple) and len(self.ps) != self.weight_layers:
            extra = f"the {len(self.xtra_fc)} of xtra_fc and the one" if self.xtra_fc else "the one"
            why = (
                f"{len(self.ps)} given, but this head has {self.weight_layers} linear layers: {extra} to the classes. "
                "Give one p for each, or one number for all."
            )
            refuse([Problem(("ps",), why)])
        return self


_TAGS: Mapping[str, str] = {"mlp": "mlp", "head": "head", Python.tag: _PYTHON_FORM}
"""What a union calls each kind, and how a file writes it."""


def _tag(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    if isinstance(kind, str) and kind.startswith(PYTHON):
        return Python.tag
    return kind if kind in ("mlp", "head") else None


def _known_kind(value: Any) -> Any:
    """Refuse what is of no known kind, so that one kind's errors are shown and not those of all."""
    if isinstance(value, Section):
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError(FORM, "should be a mapping with a kind, e.g. {kind: mlp, hidden: [64, 64]}")
    if "kind" in value and _tag(value) is None:
        found, known = value["kind"], list(_TAGS.values())
        near = get_close_matches(str(found), [*known, *_TAGS], n=1)
        hint = f" Did you mean {_TAGS.get(near[0], near[0])!r}?" if near else ""
        refuse([Problem(("kind",), f"{found!r} is no kind of network.{hint} Known: {', '.join(known)}.")])
    return value


Model = Annotated[
    Annotated[Mlp, Tag("mlp")] | Annotated[Head, Tag("head")] | Annotated[Python, Tag(Python.tag)],
    Discriminator(_tag),
    BeforeValidator(_known_kind),
]
"""Every kind of network, told apart by `kind`."""
