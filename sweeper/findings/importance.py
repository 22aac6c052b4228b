"""Which hyperparameters of a sweep's largest space decide the loss, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from sweeper.errors import PriceError
from sweeper.launched import launched_spaces
from sweeper.ledger import sweeps, trials
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.report import Sheet
from sweeper.search.proposer import PastTrial

if TYPE_CHECKING:
    from sweeper.search.importance import Importance


@dataclass(frozen=True)
class Decisive:
    """Which hyperparameters of one space decide the loss."""

    space: str
    importances: tuple[Importance, ...]

    @classmethod
    def of(cls, ledger: Ledger, sweep: Sweep) -> Decisive:
        """Of the largest space, placebos not counted; takes some seconds.

        Raises:
            PriceError: no space searches anything.
        """
        from sweeper.search.importance import importances  # loads scikit-learn, which only this needs

        spaces = launched_spaces(sweep)
        space = max(spaces.values(), key=lambda one: one.dimensions - one.placebo)
        if not space.parameters:
            raise PriceError(f"{sweep.name} searches no hyperparameter, so there is none to compare.")
        return cls(space.name, importances(space.parameters, _studies(ledger, sweep, space.name)))

    def as_json(self) -> dict[str, Any]:
        """For programs: per evaluator one share per group of studies."""
        return {"space": self.space, "parameters": [asdict(one) for one in self.importances]}

    def sheet(self) -> Sheet:
        """For people: mean shares over groups of studies, and from the least to the greatest of them."""
        if not self.importances:
            missing = f"{self.space} has too few trials that differ (20 complete ones are needed)."
            return Sheet(f"importance in {self.space}", (), missing)
        rows = [
            {
                "hyperparameter": one.parameter,
                "layers": ", ".join(map(str, one.layers)) or "-",
                "for the best tenth (PED-ANOVA)": _shares(one.ped_anova),
                "in the loss's variance (fANOVA)": _shares(one.fanova),
            }
            for one in self.importances
        ]
        groups = len(self.importances[0].fanova)
        return Sheet(f"importance in {self.space}: mean share [least, most] over {groups} groups of studies", rows)


def _studies(ledger: Ledger, sweep: Sweep, space: str) -> list[list[PastTrial]]:
    """The trials of one space, study by study."""
    with ledger.read() as connection:
        own = [study.id for study in sweeps.studies(connection, sweep.id) if study.space == space]
        history = trials.past(connection, own)
    found: dict[int, list[PastTrial]] = {}
    for one in history:
        past = PastTrial(one.number, one.params, one.state, one.validation_loss)
        found.setdefault(one.study_id, []).append(past)
    return list(found.values())


def _shares(shares: Sequence[float]) -> str:
    return f"{mean(shares):.0%} [{min(shares):.0%}, {max(shares):.0%}]"
