"""Changes one number in the text of a sweep file; its comments and its layout stay as they are."""

from __future__ import annotations

from sweeper.config.reader import SweepFile, parse_sweep
from sweeper.config.tree import scalar_span
from sweeper.errors import SweepFileError


def with_trials(file: SweepFile, trials: int) -> SweepFile:
    """The file with another number of trials in each study.

    Args:
        file: as it was launched.
        trials: of each study.

    Raises:
        SweepFileError: its text has no place for the number, or would say something else with it.
    """
    span = scalar_span(file.text, ("search", "trials"))
    if span is not None:
        start, end = span
        changed = parse_sweep(f"{file.text[:start]}{trials}{file.text[end:]}", file.name, file.folder)
        search = file.sweep.search.model_copy(update={"trials": trials})
        if changed.sweep == file.sweep.model_copy(update={"search": search}):
            return changed
    raise SweepFileError(
        f"{file.where('search', 'trials')}: the number of trials can't be changed in the recorded text of this sweep. "
        f"Write trials: {trials} into the file itself, and run that: sweeper run {file.name}"
    )
