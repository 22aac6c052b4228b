"""Every error that a user can meet, as a tree.

    SweeperError                exit code 2, message without a traceback
    ├── SweepFileError          a sweep file says something that can't be (file, line, nearest known key)
    ├── DataError               a data source is missing, unreadable or unfit
    ├── CodeError               a function of the user's own may not be imported, or fails
    ├── SettingError            a keep_prob or lambda_ outside its range, or one that a space can't reach
    ├── EngineError             a network, device or plan that the engine can't train
    │   ├── NetworkError        a module that can't be trained in slots, or doesn't fit the task
    │   └── TrainingError       code that trains fails, of PyTorch's or the user's own
    ├── SearchError             a sampler that can't search this space
    ├── LedgerError             the SQL store refuses or can't be reached
    │   ├── UnknownSweepError   no sweep of that name in this store
    │   ├── SweepChangedError   the name is taken by a sweep with other content
    │   ├── OutdatedError       a sweep changed under the worker that works on it
    │   ├── ForbiddenError      its user lacks the right
    │   └── StoreAwayError      its server is away for now
    ├── DeliveryError           MLflow can't be reached or refuses a run
    │   └── ReportError         MLflow has all runs of a sweep, but not its report
    ├── ClusterError            a Ray cluster can't be reached, or can't work on a sweep
    └── PriceError              too little was measured to compare two spaces

Each message says what was found and where, what would be right, and what to do about it.
"""


class SweeperError(Exception):
    """The root: anything a user can cause and mend. The command line prints it and exits with 2."""


class SweepFileError(SweeperError):
    """A sweep file is missing, is not YAML, or says something that can't be."""


class DataError(SweeperError):
    """A data source is missing, can't be read, or holds what can't be trained on."""


class CodeError(SweeperError):
    """A function that a sweep file names is not there, may not be imported, or fails."""


class SettingError(SweeperError):
    """A keep_prob or lambda_ lies outside its range, or a space has no parameters for it."""


class EngineError(SweeperError):
    """The engine can't train this network on this device as planned."""


class OutOfMemoryError(EngineError):
    """So many fits at once don't fit the device's memory; half of them may."""


class NetworkError(EngineError):
    """A module can't be trained beside others as it is, or its output doesn't fit the task."""


class TrainingError(EngineError):
    """Something failed while trials were trained; which of them, if any, is to blame is not known yet."""


class CheckpointError(SweeperError):
    """A checkpoint can't be written or read."""


class SearchError(SweeperError):
    """A sampler can't search the space that it was given."""


class LedgerError(SweeperError):
    """The SQL store refuses a request or can't be reached."""


class UnknownSweepError(LedgerError):
    """No sweep of that name stands in this store."""


class UnknownTrialError(LedgerError):
    """No trial of that name stands in this sweep."""


class SweepChangedError(LedgerError):
    """The name is taken by a sweep whose file or data differ."""


class OutdatedError(LedgerError):
    """A worker's sweep was forgotten or extended, or its trials were taken over; it has to begin anew."""


class ForbiddenError(LedgerError):
    """The SQL store does not let its user do this."""


class StoreAwayError(LedgerError):
    """The SQL store's server is away, or undid a transaction for another's sake; a later try may succeed."""


class DeliveryError(SweeperError):
    """MLflow can't be reached, or refuses a run."""


class ReportError(DeliveryError):
    """MLflow has all runs of a sweep, but its report could not be made or logged."""


class ClusterError(SweeperError):
    """A Ray cluster can't be reached, or its nodes can't work on a sweep."""


class PriceError(SweeperError):
    """Too little was measured to compare two spaces."""
