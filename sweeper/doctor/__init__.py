"""Whether this machine, the store and MLflow are fit for sweeps: checked one by one, and nothing is changed."""

from sweeper.doctor.checks import CHECKS, examine
from sweeper.doctor.findings import Finding, Level, Place

__all__ = ["CHECKS", "Finding", "Level", "Place", "examine"]
