"""What a sweep's ledger says, gathered for people: what the report and `price` tell, whoever asks.

    facts        all that a report tells             accounts     where the time went, and whether it adds up
    importance   which hyperparameters decide        files        a report with its pictures and tables, as files

Nothing here prints: the command line does, and the courier hands the files to MLflow.
"""

from sweeper.findings.accounts import Accounts
from sweeper.findings.facts import gather
from sweeper.findings.files import write_report, write_tables
from sweeper.findings.importance import Decisive

__all__ = ["Accounts", "Decisive", "gather", "write_report", "write_tables"]
