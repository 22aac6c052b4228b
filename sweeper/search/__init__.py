"""Search: Optuna's suggestions, replayable from the ledger."""

from sweeper.search.proposer import PastTrial, Proposal, Proposer
from sweeper.search.samplers import KINDS, SamplerSpec, explicit_arguments, is_history_free

__all__ = [
    "KINDS",
    "PastTrial",
    "Proposal",
    "Proposer",
    "SamplerSpec",
    "explicit_arguments",
    "is_history_free",
]
