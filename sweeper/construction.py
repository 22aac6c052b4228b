"""A sweep's network made concrete: what its layers are, how to build it, and the rows that it is trained on.

Letters: L weight layers, D numbers per row, C outputs, F activations.
The marks of its blueprint are hashes of what the sweep file only names (code, weights, rows), so that a sweep that goes
on with other code is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.blueprint import Blueprint, outputs_of, plain_blueprint
from sweeper.config import Backbone, Head, Mlp, Python, SweepFile
from sweeper.data import Table
from sweeper.errors import CodeError, DataError, NetworkError, SweepFileError
from sweeper.imports import Importer, Reference, argument_problems, called, code_sha256
from sweeper.networks import Network, head, mlp
from sweeper.networks.activations import computed_once, kept, key_of
from sweeper.networks.backbone import (
    Body,
    Progress,
    activations_of,
    file_sha256,
    torchvision_network,
    with_weights,
)
from sweeper.networks.probe import probe
from sweeper.networks.survey import Survey
from sweeper.roots import ANYWHERE, Roots

TORCHVISION = "torchvision:"
PROBED_ROWS = 4


def _silent(done: int, rows: int) -> None:
    pass


@dataclass(frozen=True)
class Access:
    """What making a sweep concrete may touch beyond its file and its data.

    Attributes:
        allowed: packages whose code may be imported (see `imports`).
        activations: folder that keeps a backbone's activations; None keeps none.
        device: where a backbone runs, "cpu", "cuda", ...
        progress: told how many rows of how many a backbone has done.
        roots: where data, weights and code beside the file may lie.
    """

    allowed: frozenset[str] = frozenset()
    activations: Path | None = None
    device: str = "cpu"
    progress: Progress = _silent
    roots: Roots = ANYWHERE

    def importer(self, folder: Path) -> Importer:
        """Imports what is allowed for a sweep file in that folder: what lies beside it, if that is under a root."""
        sought = Importer.beside(folder.resolve(), self.allowed)  # resolved, since the folder above "x/.." is not x
        return replace(sought, folders=tuple(filter(self.roots.holds, sought.folders)))


@dataclass(frozen=True)
class Construction:
    """A network that can be built, and what it is trained on.

    Attributes:
        build: makes the plain network from torch's global generator.
        table: the rows; under a head, the backbone's activations of them.
        per_channel: whether dropout before a convolution drops whole channels.
        survey: what the built network consists of; None for a perceptron, of which the file says it all.
        notes: what a user should know about it.
    """

    blueprint: Blueprint
    build: Callable[[], Network]
    table: Table
    per_channel: bool = False
    survey: Survey | None = None
    notes: tuple[str, ...] = ()

    def check_batches(self, file: SweepFile, rows: Collection[int]) -> None:
        """Refuse a batch size that leaves batch normalisation a single row of some fold's training rows.

        Raises:
            SweepFileError: names file and line.
        """
        if self.survey is not None:
            with _at(file, "train", "batch_size"):
                self.survey.check_batches(rows, file.sweep.train.batch_size)


def construct(file: SweepFile, table: Table, access: Access, known: Blueprint | None) -> Construction:
    """Make a sweep file's network concrete.

    Args:
        file: the sweep file.
        table: its rows.
        access: what may be touched.
        known: the network's blueprint when the sweep was launched, for one that is read back from a ledger.

    Raises:
        SweepFileError: code, weights or a backbone that can't be used; names file and line.
    """
    match file.sweep.model:
        case Mlp() as model:
            build = partial(mlp, table.x.shape[1], model.hidden, outputs_of(table), model.activation)
            return Construction(plain_blueprint(table, model.hidden), build, table)
        case Head() as model:
            return _head(file, model, _Backbone(file, model, table, access).activations(known))
        case Python() as model:
            return _python(file, model, table, access)


def _probed(file: SweepFile, build: Callable[[], Network], table: Table) -> Survey:
    """Look at the network on rows such as it will see."""
    x = table.x
    if file.sweep.data.standardise:
        deviation = x.std(axis=0)
        x = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    with _at(file, "model", "kind"):
        survey: Survey = called(probe, build, x[:PROBED_ROWS].astype(np.float32), table.task, len(table.classes))
    return survey


# a function of the user's own -----------------------------------------------------------------------------------------


def _python(file: SweepFile, model: Python, table: Table, access: Access) -> Construction:
    function = _function(file, model.kind, access, "model", "kind")
    _check_arguments(file, function, model.arguments, 2, "model")
    inputs, outputs = table.x.shape[1], outputs_of(table)
    build = partial(function, inputs, outputs, **model.arguments)
    survey = _probed(file, build, table)
    blueprint = Blueprint(table.task, inputs, survey.layers, _marks(code=code_sha256(function)))
    return Construction(blueprint, build, table, model.drop == "channel", survey, survey.notes)


def _function(file: SweepFile, kind: str, access: Access, *place: str) -> Callable[..., Any]:
    with _at(file, *place):
        return access.importer(file.folder).function(Reference.of(kind))


def _check_arguments(
    file: SweepFile, function: Callable[..., Any], given: Mapping[str, Any], leading: int, *place: str
) -> None:
    name = getattr(function, "__qualname__", repr(function))
    problems = [
        f"{file.where(*place, key or 'kind')}: {'.'.join(filter(None, (*place, key)))}: {name}: {why}"
        for key, why in argument_problems(function, given, leading)
    ]
    if problems:
        raise SweepFileError("\n".join(problems))


# a head on a backbone -------------------------------------------------------------------------------------------------


def _head(file: SweepFile, model: Head, made: tuple[Table, Mapping[str, str]]) -> Construction:
    table, marks = made
    build = partial(head, table.x.shape[1], model.xtra_fc, outputs_of(table))
    notes = (f"the head is trained on {table.x.shape[1]} activations per row of {model.backbone.kind}, kept frozen",)
    survey = _probed(file, build, table)
    return Construction(plain_blueprint(table, model.xtra_fc, marks), build, table, survey=survey, notes=notes)


@dataclass(frozen=True)
class _Backbone:
    """The frozen network of a head, and the rows that go through it."""

    file: SweepFile
    model: Head
    table: Table
    access: Access

    def activations(self, known: Blueprint | None) -> tuple[Table, Mapping[str, str]]:
        """The activations as a table, computed once, and the marks of what they depend on.

        Where code may not be imported, those that the sweep was launched with will do, if they are still kept.
        """
        if known is not None and not self._may_import():
            found = self._kept(known.marks.get("activations", ""))
            if found is not None:
                return self._table(found, known.marks["activations"]), {**known.marks, "rows": self.table.sha256}
        self._check_shape()
        function = None if self._is_torchvision else self._function()
        marks = _marks(code=function and code_sha256(function), weights=self._weights_sha256(), rows=self.table.sha256)
        backbone, shape = self.model.backbone, self.model.shape
        key = key_of(backbone=backbone.model_dump(mode="json"), shape=shape, **marks)
        compute = partial(self._compute, function)
        if self.access.activations is None:
            found = compute()
        else:
            found = computed_once(self.access.activations, key, len(self.table.x), compute)
        return self._table(found, key), {**marks, "activations": key}

    @property
    def _is_torchvision(self) -> bool:
        return self.model.backbone.kind.startswith(TORCHVISION)

    @property
    def _weights(self) -> Path:
        with _at(self.file, "model", "weights"):
            return self.access.roots.find(self.model.weights, self.file.folder)

    def _may_import(self) -> bool:
        reference = Reference.of(self.model.backbone.kind)
        return self._is_torchvision or self.access.importer(self.file.folder).allows(reference)

    def _kept(self, key: str) -> Any:
        return None if self.access.activations is None else kept(self.access.activations, key, len(self.table.x))

    def _table(self, activations: Any, key: str) -> Table:
        names = tuple(f"activation_{number}" for number in range(activations.shape[1]))
        return replace(self.table, x=activations.astype(np.float64), feature_names=names, sha256=key)

    def _function(self) -> Callable[..., Any]:
        backbone: Backbone = self.model.backbone
        place = ("model", "backbone")
        function = _function(self.file, backbone.kind, self.access, *place)
        _check_arguments(self.file, function, backbone.arguments, 1, *place)
        return function

    def _check_shape(self) -> None:
        shape, numbers = self.model.shape, self.table.x.shape[1]
        if shape is not None and prod(shape) != numbers:
            where = self.file.where("model", "shape")
            wanted = " x ".join(map(str, shape))
            raise SweepFileError(f"{where}: model.shape: a row has {numbers} numbers, which are no {wanted}.")

    def _weights_sha256(self) -> str:
        if not self._weights.is_file():
            way_out = f" Make it: {self.model.made_by}" if self.model.made_by else " Give the file of trained weights."
            raise SweepFileError(
                f"{self.file.where('model', 'weights')}: model.weights: there is no file {self._weights}.{way_out}"
            )
        with _at(self.file, "model", "weights"):
            return file_sha256(self._weights)

    def _compute(self, function: Callable[..., Any] | None) -> Any:
        model, x = self.model, self.table.x
        with _at(self.file, "model", "backbone"):
            if function is None:
                network = called(
                    torchvision_network, model.backbone.kind.removeprefix(TORCHVISION), model.backbone.arguments
                )
            else:
                network = called(function, model.shape or x.shape[1], **model.backbone.arguments)
        with _at(self.file, "model", "weights"):
            network = with_weights(network, self._weights)
        with _at(self.file, "model", "backbone"):
            body = network if function else Body(network)
            access = self.access
            return called(activations_of, body, x, shape=model.shape, device=access.device, progress=access.progress)


def _marks(**hashes: str | None) -> dict[str, str]:
    return {name: value for name, value in hashes.items() if value is not None}


@contextmanager
def _at(file: SweepFile, *place: str) -> Iterator[None]:
    """Errors of code and data get the place in the sweep file that asked for it."""
    try:
        yield
    except (CodeError, DataError, NetworkError) as error:
        raise SweepFileError(f"{file.where(*place)}: {'.'.join(place)}: {error}") from error
