"""Errors for the user, and the exit code of each. Their text: *key is VALUE; RULE; way out.*"""

from collections.abc import Callable

DONE, FAILED, REFUSED, NOT_PROVEN, STOPPED = 0, 1, 2, 3, 75


class RopewalkError(Exception):
    """Base of all errors that are printed as lines, without a traceback."""

    exit_code = FAILED


class ConfigError(RopewalkError):
    """The user must change a setting. One line for each problem, all problems at once."""

    exit_code = REFUSED


class DataError(RopewalkError):
    """The user must change the data."""

    exit_code = REFUSED


class ProofError(RopewalkError):
    """A proof failed: the result does not follow the settings."""

    exit_code = NOT_PROVEN


class Stopped(RopewalkError):
    """The run was stopped on request and its state is saved; the same command resumes it."""

    exit_code = STOPPED


def problem_lines(check: Callable[[], object]) -> list[str]:
    """The lines of the `ConfigError` or `DataError` that a check raises; empty when it passes."""
    try:
        check()
    except (ConfigError, DataError) as error:
        return str(error).splitlines()
    return []
