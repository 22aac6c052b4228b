"""When a cluster is refused, and what the message says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from small import write_sweep
from sweeper import __version__
from sweeper.cli.app import app
from sweeper.cluster import Witness, connected, refuse
from sweeper.errors import ClusterError

HERE, ELSEWHERE = "laptop:1", "gpu7:1"


def witness(place: str = ELSEWHERE, version: str = __version__, *, sees: bool = True) -> Witness:
    return Witness("10.0.0.7", place, version, sees)


@pytest.mark.parametrize(
    ("one", "local_store", "words"),
    [
        (witness(), True, r"ledger is a file of this machine, and the Ray cluster has others \(10.0.0.7\).*--store"),
        (witness(sees=False), False, "10.0.0.7 does not see the folder /home/me/checkpoints.*--home.*--checkpoints"),
        (witness(version="0.0.1"), False, f"10.0.0.7 has sweeper 0.0.1, and this is {__version__}"),
    ],
    ids=["SQLite", "a folder of its own", "another version"],
)
def test_a_node_that_could_not_work_is_refused(one: Witness, local_store: bool, words: str):
    with pytest.raises(ClusterError, match=words):
        refuse([witness(HERE), one], HERE, is_local_store=local_store, checkpoints=Path("/home/me/checkpoints"))


def test_nodes_of_this_machine_may_share_its_files():
    refuse([witness(HERE), witness(HERE)], HERE, is_local_store=True, checkpoints=Path("/home/me/checkpoints"))


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(
        app, ["run", str(write_sweep(tmp_path)), "--on", "ray://head:10001", "--home", str(tmp_path / "home")]
    )
    assert isinstance(done.exception, ClusterError)
    assert "pip install 'sweeper[ray]'" in str(done.exception)


def test_an_address_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(ClusterError, match=r"'slurm://x' names no Ray cluster\. Right would be ray://HOST:10001"):
        connected("slurm://x", tmp_path / "ray.log").__enter__()
