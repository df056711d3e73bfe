"""Ctrl-C ends a command that is within a long call of a compiled library."""

import signal
import subprocess
import sys
import time

import pytest

# PBKDF2 of OpenSSL computes for minutes and leaves no instruction of Python between
SCRIPT = """
import hashlib, signal, sys
from ropewalk.launch.interrupt import bounded_interrupt

with bounded_interrupt(0.5):
    if {own_handler}:
        signal.signal(signal.SIGINT, lambda *_: None)
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", {rounds})
print("done", flush=True)
"""


def interrupted(number: int, rounds: int, own_handler: bool) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of SCRIPT, sent signal `number` while it computes."""
    script = SCRIPT.format(rounds=rounds, own_handler=own_handler)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_of_minutes_ends_soon_after_the_signal(number: int) -> None:
    started = time.monotonic()
    code, output, errors = interrupted(number, 2**31 - 1, own_handler=False)
    assert time.monotonic() - started < 20
    assert (code, output) == (75, "")
    assert errors.startswith("stopped; run the same command again")


def test_a_stage_with_its_own_handler_keeps_the_signal() -> None:
    assert interrupted(signal.SIGINT, 10**7, own_handler=True) == (0, "done\n", "")
