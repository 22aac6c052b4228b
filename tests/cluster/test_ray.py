"""Workers on a real Ray cluster of several nodes on this machine, one of which dies in mid-sweep."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import distinct, func, select

from postgres import Postgres
from processes import Sweeper, shell
from small import outcome, run_here, small_workload, write_sweep
from sweeper.ledger.schema import AttemptRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger

ray = pytest.importorskip("ray", reason="sweeper[ray] is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:unclosed file .*/logs/ray_client_server:ResourceWarning"),  # Ray's own
]

LONGER = ("epochs: 4", "epochs: 40")  # long enough for a node to die in the middle
TRIALS, STUDIES = 20, 4
STORE_BYTES = 80_000_000  # of each node's object store, which nothing here uses
SOON = {  # for a test's patience; Ray takes a node for dead after 15 s by default
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "180",  # but a busy machine may take its time to let somebody in
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "60",
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "60",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Nodes:
    """A cluster of a head and two further nodes, each with room for one worker."""

    cluster: Any
    port: int

    @property
    def address(self) -> str:
        """As people name it who are not on one of its machines."""
        return f"ray://127.0.0.1:{self.port}"

    def kill_one_of(self, pids: list[int]) -> int:
        """Kill a node on which one of these processes runs, as if it lost its power: nothing there says goodbye.

        Returns:
            The process.
        """
        above = {pid: {parent.pid for parent in psutil.Process(pid).parents()} for pid in pids}
        pid, victim = next(
            (pid, node) for pid in pids for node in self.cluster.worker_nodes if above[pid] & _pids(node)
        )
        processes = [psutil.Process(own) for own in _pids(victim)]
        processes += [child for process in processes for child in process.children(recursive=True)]
        for process in processes:
            process.kill()
        self.cluster.remove_node(victim, allow_graceful=False)
        return pid

    @property
    def logs(self) -> Path:
        """All that Ray wrote down."""
        return Path(self.cluster.head_node.get_session_dir_path())


def _pids(node: Any) -> set[int]:
    return {info.process.pid for infos in node.all_processes.values() for info in infos}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        for name, value in SOON.items():
            patch.setenv(name, value)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        head = {"num_cpus": 1, "ray_client_server_port": port, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": STORE_BYTES})
        try:
            for _ in range(2):
                cluster.add_node(wait=False, num_cpus=1, object_store_memory=STORE_BYTES)
            cluster.wait_for_nodes()
            yield Nodes(cluster, port)
        finally:
            cluster.shutdown()


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Ledger]:
    with postgres.database(migrated=True) as url:
        ledger = Ledger(url)
        yield ledger
        ledger.close()


def count(ledger: Ledger, *conditions: Any) -> int:
    """Of trials."""
    with ledger.read() as connection:
        return int(connection.execute(select(func.count(TrialRow.id)).where(*conditions)).scalar_one())


def workers(ledger: Ledger, *conditions: Any) -> list[int]:
    """The processes of workers, in their order."""
    with ledger.read() as connection:
        return list(connection.execute(select(WorkerRow.pid).where(*conditions).order_by(WorkerRow.id)).scalars())


def in_mid_sweep(run: Sweeper, ledger: Ledger) -> list[int]:
    """Wait until two workers are at it; whichever comes first waits for the other, who would find all done."""
    run.wait_until(lambda: bool(workers(ledger)))
    with frozen(workers(ledger)[0]):
        run.wait_until(lambda: len(workers(ledger)) == 2)
    run.wait_until(lambda: busy_workers(ledger) == 2 and count(ledger, TrialRow.ended_at.is_not(None)) > 0)
    return workers(ledger)


def busy_workers(ledger: Ledger) -> int:
    """How many have trials in hand."""
    at_work = select(func.count(distinct(TrialRow.worker_id))).where(TrialRow.state == "RUNNING")
    with ledger.read() as connection:
        return int(connection.execute(at_work).scalar_one())


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that gets nowhere inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_sweep_survives_a_node_of_the_cluster(nodes: Nodes, store: Ledger, tmp_path: Path):
    write_sweep(tmp_path, LONGER)
    with shell(tmp_path, SWEEPER_STORE=store.url, **SOON) as sweeper:
        run = sweeper.start("run", "small.yaml", "--on", nodes.address, "-n", "2", "--no-mlflow", "--json")
        at_work = in_mid_sweep(run, store)
        (survivor,) = {*at_work} - {nodes.kill_one_of(at_work)}
        with frozen(survivor):  # so that there is something left to do
            killed = time.monotonic()
            run.wait_until(lambda: len(workers(store)) == 3)
            assert time.monotonic() - killed < 60
        assert run.wait().code == 0, run.err
    assert set(json.loads(run.out)["best"]) == {"shared", "both"}  # and nothing that Ray has to say
    assert "placed again" in run.err
    found = outcome(store)
    assert len(found) == TRIALS
    assert found == outcome(run_here(small_workload(tmp_path, LONGER), tmp_path / "alone").ledger)
    with store.read() as connection:
        per_trial = select(AttemptRow.trial_id, func.count()).where(AttemptRow.state == "COMPLETE")
        assert [times for _, times in connection.execute(per_trial.group_by(AttemptRow.trial_id))] == [1] * TRIALS
        lost = select(func.count()).where(AttemptRow.state == "LOST")
        assert connection.execute(lost).scalar_one() > 0  # what the dead node had in hand
    assert [path for path in nodes.logs.rglob("*") if path.is_file() and b"postgres:secret" in path.read_bytes()] == []


def test_a_run_that_is_told_to_end_has_its_worker_give_back_what_it_has(nodes: Nodes, store: Ledger, tmp_path: Path):
    write_sweep(tmp_path, ("epochs: 4", "epochs: 2000"))
    with shell(tmp_path, SWEEPER_STORE=store.url, **SOON) as sweeper:
        options = ["--no-mlflow", "--compile", "off", "--checkpoint-every", "1"]
        run = sweeper.start("run", "small.yaml", "--on", nodes.address, "-n", "1", *options)
        run.wait_until(lambda: len(saved(tmp_path)) > 0)  # it has come some way
        told = time.monotonic()
        run.send(signal.SIGTERM)
        assert run.wait().code == 0, run.err
        assert time.monotonic() - told < 30
    assert "go on with: sweeper resume small" in run.err
    assert workers(store, WorkerRow.ended_at.is_(None)) == []
    assert count(store, TrialRow.state == "RUNNING") == 0
    assert len({path.parent for path in saved(tmp_path)}) == STUDIES


def saved(folder: Path) -> list[Path]:
    """The checkpoints of trials."""
    return list((folder / "sweeper-data" / "checkpoints").rglob("*.safetensors"))
