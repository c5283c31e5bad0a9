"""The tree of errors: each says what was expected, what was found, where, and what to do.

The command line prints the message as one line and leaves with `exit_code`.
"""


class DupMAEError(Exception):
    """Base of every error that a user can cause or cure."""

    exit_code = 1


class UsageError(DupMAEError):
    """A setting or argument is out of its range, or two do not fit together."""

    exit_code = 2


class DataError(DupMAEError):
    """An input file or record cannot be read as what it should be."""


class CheckpointError(DupMAEError):
    """A model folder or training checkpoint is missing, damaged or of another shape."""


class TorchNeededError(CheckpointError):
    """A model folder is none that can be run without torch."""


class TrainingError(DupMAEError):
    """Training cannot go on: a loss or a gradient is not finite."""


class IndexMissingError(DupMAEError):
    """There is no readable index where one was asked for: absent, damaged or of a newer format."""

    exit_code = 3


class SealError(DupMAEError):
    """An index was made by another encoder than the one at work, or this one has drifted since."""

    exit_code = 4


class GateError(DupMAEError):
    """A measure fell significantly against an earlier report."""

    exit_code = 5


class WriterBusyError(DupMAEError):
    """Another writer is at work in an index folder."""


class ServerError(DupMAEError):
    """A server could not be reached, or failed to answer."""


class ServerBusyError(ServerError):
    """A server has too much to do; the same request may succeed later."""


class AccessError(ServerError):
    """A server wants a key, or one that may do more."""
