"""`mlflow sync` and `dashboard`: runs to MLflow, and MLflow's own pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import suppress
from typing import Annotated

import typer

from sweeper.cli.console import errors, print_json
from sweeper.cli.places import HOME, HomeOption, JsonOption, Places, StoreOption
from sweeper.courier import deliver, until_closed_input
from sweeper.errors import DeliveryError, ReportError
from sweeper.export import dashboard_command, prepare
from sweeper.ledger import deliveries, sweeps


def sync(
    name: Annotated[str | None, typer.Argument(help="Name of a sweep; all of them by default.")] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until standard input is closed; used by `sweeper run`.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Deliver to MLflow what it has not been told yet, and the report of what is complete."""
    places = Places.of(home, store)
    more_to_come = until_closed_input() if follow else lambda: False
    ledger = places.ledger()
    with ledger.read() as connection:
        chosen = sweeps.chosen(connection, name)
    told, unreported, elsewhere = {}, list[ReportError](), False
    for sweep in chosen:
        problem = None
        try:
            where = places.tracking_uri, places.artifacts
            problem = deliver(ledger, sweep, *where, more_to_come=more_to_come).problem
        except ReportError as error:
            unreported.append(error)  # its runs are all there, and other sweeps have theirs to deliver
        with ledger.read() as connection:
            delivered, waiting, parked = deliveries.counts(connection, sweep.id)
        told[sweep.name] = {"delivered": delivered, "waiting": waiting, "parked": parked}
        why, elsewhere = f": {problem}" if problem else "", elsewhere or problem is not None
        errors.print(f"{sweep.name}: MLflow has {delivered} runs, {waiting} are waiting, {parked} were refused{why}")
    if json:
        print_json(told)
    if unreported:
        raise ReportError("\n".join(map(str, unreported)))
    if follow and elsewhere:
        raise typer.Exit(1)  # `sweeper run` is not to say that all is done while another process is still at it


def dashboard(
    home: HomeOption = HOME,
    port: Annotated[int, typer.Option("--port", help="Port on this machine's loopback.")] = 5000,
) -> None:
    """Open MLflow's pages on this machine (loopback only); Ctrl-C ends them."""
    places = Places.of(home, None)
    command = dashboard_command(places.tracking_uri, port, str(places.artifacts))
    _check_free(port)
    prepare(places.tracking_uri)
    errors.print(f"MLflow's pages are at {command.url} (Ctrl-C ends them)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # in a session of its own: Ctrl-C in the terminal would reach every process of the server, each with a traceback
    server = subprocess.Popen(command.argv, env=os.environ | dict(command.environment), start_new_session=True)
    try:
        raise typer.Exit(server.wait())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DeliveryError(f"port {port} of this machine can't be used: {error.strerror}. Try --port.") from error
