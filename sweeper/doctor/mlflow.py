"""MLflow: whether it answers; a store that is not there yet is not made."""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.doctor.findings import Finding, Level, Place
from sweeper.errors import DeliveryError
from sweeper.export.probe import Unlooked, probe


def tracking(place: Place) -> Iterator[Finding]:
    """MLflow's store or server."""
    try:
        found = probe(place.tracking_uri)
    except DeliveryError as error:
        yield Finding("mlflow", Level.PROBLEM, str(error), _mend(str(error)))
        return
    if isinstance(found, Unlooked):
        yield Finding("mlflow", Level.NOTE, found.why)
    else:
        said = f"{place.tracking_uri} answers in {found.took_s:.2g} s (here MLflow {found.client}"
        said += f", there {found.server})" if found.server else ")"
        yield Finding("mlflow", Level.OK, said)


def _mend(said: str) -> str:
    """What the usual statuses of a server mean."""
    if "403" in said:
        return (
            "The server may know itself by other names only: start it with --allowed-hosts HOST:PORT, as it stands in "
            "MLFLOW_TRACKING_URI; or your user may not read experiments."
        )
    if "401" in said:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    return "Sweeps run all the same. See to the server or MLFLOW_TRACKING_URI, then deliver with: sweeper mlflow sync"
