"""Questions that may never be answered, each with a limit: a driver that hangs, a network disk
whose server is gone."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
LIMIT_S = 5.0
"""Of a question. Whoever waits longer has found the problem."""


class NoAnswerError(Exception):
    """Its text says what did not answer, and why."""


def start(question: Callable[[], T], limit_s: float = LIMIT_S) -> Callable[[], T]:
    """Begin to answer in a thread; the result waits for the answer.

    It raises what the question raises, and NoAnswerError after `limit_s`.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()

    def wait() -> T:
        thread.join(limit_s)
        if errors:
            raise errors[0]
        if not answers:
            raise NoAnswerError(f"no answer in {limit_s:g} s")
        return answers[0]

    return wait


def output_of(command: Sequence[str], limit_s: float = LIMIT_S) -> str:
    """What a program prints. Raises: NoAnswerError with its last line when it fails or hangs."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=limit_s, env=env, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"{command[0]} did not answer in {limit_s:g} s") from None
    except OSError as error:
        raise NoAnswerError(f"{command[0]} did not start ({error.strerror})") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        raise NoAnswerError(f"{command[0]} ended with exit code {done.returncode}: {last[:200]}")
    return done.stdout.decode(errors="replace")


def child_json(module: str, limit_s: float = LIMIT_S) -> Any:
    """The JSON that a module of ours prints in its last line. Raises: NoAnswerError."""
    try:
        output = output_of([sys.executable, "-m", module], limit_s)
        return json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        raise NoAnswerError(f"{module} printed no JSON") from None
