"""What is fixed about a sweep's network, as the ledger keeps it: looking needs neither data, code nor PyTorch.

Letters: L weight layers, D numbers per row, C outputs, F activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sweeper.config import Sweep
from sweeper.data import Table
from sweeper.imports import Reference
from sweeper.records import Task, WeightLayer


@dataclass(frozen=True)
class Blueprint:
    """What is fixed about a sweep's network.

    Attributes:
        task: what its output means.
        inputs: D, or F under a head.
        layers: the L weight layers in the order in which they run.
        marks: hashes by what they are of: "code", "weights", "rows", "activations".
    """

    task: Task
    inputs: int
    layers: tuple[WeightLayer, ...]
    marks: Mapping[str, str]

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Blueprint:
        """From what `recorded` gave."""
        layers = tuple(WeightLayer(**{**layer, "shape": tuple(layer["shape"])}) for layer in recorded["layers"])
        return cls(Task(recorded["task"]), recorded["inputs"], layers, recorded["marks"])

    def recorded(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        layers = [{**vars(layer), "shape": list(layer.shape)} for layer in self.layers]
        return {"task": self.task.value, "inputs": self.inputs, "layers": layers, "marks": dict(self.marks)}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers per row, then the units or channels of each weight layer."""
        return (self.inputs, *(layer.outputs for layer in self.layers))

    @property
    def words(self) -> tuple[str, ...]:
        """L, what each weight layer leads to: "64 units", "conv1 16 channels", last "10 outputs"."""
        *hidden, last = self.layers
        ends = f"{last.outputs} output{'s' if last.outputs != 1 else ''}"
        return (*(_named(one, f"{one.outputs} {one.kind}") for one in hidden), _named(last, ends))

    @property
    def title(self) -> str:
        """The whole network in a line: "64-64-10", or with the layers' names where they have some."""
        if any(layer.name for layer in self.layers):
            return " | ".join([f"{self.inputs} inputs", *self.words])
        return "-".join(map(str, self.sizes))


def named_packages(sweep: Sweep) -> frozenset[str]:
    """The top-level packages of the code that a sweep names."""
    return frozenset(Reference.of(reference).package for reference in sweep.model.references)


def _named(layer: WeightLayer, size: str) -> str:
    return f"{layer.name} {size}" if layer.name else size


def outputs_of(table: Table) -> int:
    """C, or 1 where one number says it all."""
    return len(table.classes) if table.task is Task.MULTICLASS else 1


def plain_blueprint(table: Table, hidden: tuple[int, ...], marks: Mapping[str, str] | None = None) -> Blueprint:
    """Linear layers that need no names, on the rows of a table."""
    inputs = table.x.shape[1]
    sizes = pairwise([inputs, *hidden, outputs_of(table)])
    layers = tuple(WeightLayer("", narrow, "units", (narrow, wide)) for wide, narrow in sizes)
    return Blueprint(table.task, inputs, layers, marks or {})
