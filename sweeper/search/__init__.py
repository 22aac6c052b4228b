"""Search: Optuna's suggestions, replayable from the ledger, and the rules that prune trials."""

from sweeper.search.proposer import PastTrial, Proposal, Proposer
from sweeper.search.rungs import Action, Decision, Field, Pruner, pruner
from sweeper.search.samplers import KINDS, SamplerSpec, explicit_arguments, is_history_free

__all__ = [
    "KINDS",
    "Action",
    "Decision",
    "Field",
    "PastTrial",
    "Proposal",
    "Proposer",
    "Pruner",
    "SamplerSpec",
    "explicit_arguments",
    "is_history_free",
    "pruner",
]
