"""What a sweep that was launched says of itself, from the ledger alone: its file, its network, its spaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.blueprint import Blueprint, plain_blueprint
from sweeper.config import PS, Grouped, Head, Mlp, Sweep, SweepFile, parse_sweep
from sweeper.data import FILES, Table, load
from sweeper.ledger.rows import Sweep as LaunchedSweep
from sweeper.price import SpaceShape
from sweeper.roots import ANYWHERE, Roots
from sweeper.space import Fixed, Ranges, Space, Way

NETWORK = "network"  # where a recorded config keeps the blueprint


def launched_file(sweep: LaunchedSweep) -> SweepFile:
    """The sweep file as the ledger keeps it; relative paths start in the folder of its recorded name."""
    return parse_sweep(sweep.file_text, sweep.file_path, Path(sweep.file_path).parent)


def launched_blueprint(sweep: LaunchedSweep) -> Blueprint:
    """The network of a launched sweep, from the ledger alone: no code of the user's own is imported."""
    recorded = sweep.config.get(NETWORK)
    # a sweep that is too old to have it recorded has a network that its file and data tell
    return Blueprint.of(recorded) if recorded else _told(launched_file(sweep))


def launched_shapes(sweep: LaunchedSweep) -> dict[str, SpaceShape]:
    """How each space of a launched sweep searches, for the price; from the ledger alone."""
    return {name: _shape(space) for name, space in launched_spaces(sweep).items()}


def launched_spaces(sweep: LaunchedSweep) -> dict[str, Space]:
    """The spaces of a launched sweep, from the ledger alone."""
    said = launched_file(sweep).sweep
    layers = said.model.weight_layers or len(launched_blueprint(sweep).layers)
    return {name: space_of(said, name, layers) for name in said.spaces}


def space_of(sweep: Sweep, name: str, layers: int) -> Space:
    """One of a sweep file's spaces, over a network of so many weight layers."""
    section, ranges = sweep.spaces[name], sweep.ranges
    given, in_ranges = sweep.input_keep_prob(name), ranges.input_keep_prob
    return Space(
        name=name,
        layers=layers,
        keep_prob=Fixed((sweep.model.keep_prob or ())[1:]) if section.keep_prob == PS else _way(section.keep_prob),
        lambda_=_way(section.lambda_),
        input_keep_prob=None if given == "searched" else given,
        ranges=Ranges(ranges.keep_prob, 1.0 if in_ranges == PS else in_ranges, ranges.lambda_),
        placebo=section.placebo,
    )


def sweep_shapes(sweep: Sweep, layers: int) -> dict[str, SpaceShape]:
    """How each space of a sweep over so many weight layers searches, for the price."""
    return {name: _shape(space_of(sweep, name, layers)) for name in sweep.spaces}


def _shape(space: Space) -> SpaceShape:
    return SpaceShape(*space.kinds, space.dimensions, space.placebo, bits=len(space.switches))


def table_of(file: SweepFile, roots: Roots = ANYWHERE) -> Table:
    """The rows that a sweep file names; they may lie under the roots alone."""
    data = file.sweep.data
    return load(data.source, folder=file.folder, target=data.target, columns=data.columns, task=data.task, roots=roots)


def named_places(file: SweepFile) -> tuple[Path, ...]:
    """What naming a sweep file by its path vouches for: its folder, and the files that it names outside of it.

    Where it names code, that is sought in the folder above, too.
    """
    model, (scheme, _, rest) = file.sweep.model, file.sweep.data.source.partition(":")
    named = [rest] if scheme in FILES else []
    named += [str(model.weights)] if isinstance(model, Head) else []
    here, paths = file.folder.resolve(), (ANYWHERE.find(name, file.folder) for name in named)
    above = [here.parent] if model.references else []
    return (here, *above, *(path for path in paths if not Roots((here,)).holds(path)))


def _told(file: SweepFile) -> Blueprint:
    """The perceptron that a file and its data tell."""
    model = file.sweep.model
    assert isinstance(model, Mlp)  # sweeps of other kinds record their network
    roots = Roots.here()
    return plain_blueprint(table_of(replace(file, folder=roots.place(file.folder)), roots), model.hidden)


def _way(choice: Any) -> Way:
    return tuple(tuple(group) for group in choice.grouped) if isinstance(choice, Grouped) else choice
