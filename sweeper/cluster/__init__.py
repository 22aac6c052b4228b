"""Workers on a Ray cluster: Ray chooses their machines, and chooses others when machines die.

Each worker is an actor that keeps one process: `python -m sweeper worker`, as on any other machine. The actor is all
that Ray knows of; trials, results and leases meet in the ledger, so that nothing of a sweep travels through Ray but the
command. An actor is restarted on another node as soon as Ray takes its node for dead (15 s by Ray's own default).

This is Ray's one doorway. Actors import it on their nodes, so it imports nothing that takes long.
"""

from sweeper.cluster.driver import connected, room
from sweeper.cluster.keeper import Keeper, Look, Order
from sweeper.cluster.nodes import Witness, check_nodes, refuse
from sweeper.cluster.workers import Said, Workers

__all__ = ["Keeper", "Look", "Order", "Said", "Witness", "Workers", "check_nodes", "connected", "refuse", "room"]
