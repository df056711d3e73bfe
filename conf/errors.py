"""The errors a user meets, and the exit code of each. Text: *key is VALUE; RULE; way out.*"""

DONE, FAILED, REFUSED, SAID_NO, STOPPED = 0, 1, 2, 3, 75


class RopewalkError(Exception):
    """Base of all errors that are told in lines, without a traceback."""

    exit_code = FAILED


class ConfigError(RopewalkError):
    """The user changes a setting. One line a problem; all problems at once."""

    exit_code = REFUSED


class DataError(RopewalkError):
    """The user changes the data."""

    exit_code = REFUSED


class ProofError(RopewalkError):
    """A proof said no: what was asked for is not what happened."""

    exit_code = SAID_NO


class Stopped(RopewalkError):
    """Stopped in good order on request; the same command resumes."""

    exit_code = STOPPED
