"""Data: sources read into tables, tables divided into standardised folds."""

from sweeper.data.sources import FILES
from sweeper.data.splits import Parts, Share, SplitPlan, parts_of, split
from sweeper.data.tables import Kind, Table, load

__all__ = ["FILES", "Kind", "Parts", "Share", "SplitPlan", "Table", "load", "parts_of", "split"]
