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

signal.signal(signal.SIGINT, {first_handler})
with bounded_interrupt(0.5):
    if {own_handler}:
        signal.signal(signal.SIGINT, lambda *_: None)
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", {rounds})
print("done", flush=True)
"""


def interrupted(
    number: int,
    rounds: int,
    own_handler: bool = False,
    first_handler: str = "signal.default_int_handler",
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of SCRIPT, sent signal `number` while it computes."""
    script = SCRIPT.format(rounds=rounds, own_handler=own_handler, first_handler=first_handler)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, output, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_of_minutes_ends_soon_after_the_signal(number: int) -> None:
    started = time.monotonic()
    code, output, errors = interrupted(number, 2**31 - 1)
    assert time.monotonic() - started < 20
    assert (code, output) == (75, "")
    assert errors.startswith("stopped; run the same command again")


def test_a_background_job_whose_shell_ignores_ctrl_c_is_ended_by_a_termination() -> None:
    code, _, errors = interrupted(signal.SIGTERM, 2**31 - 1, first_handler="signal.SIG_IGN")
    assert code == 75 and errors.startswith("stopped; run the same command again")


def test_a_stage_with_its_own_handler_keeps_the_signal() -> None:
    assert interrupted(signal.SIGINT, 10**7, own_handler=True) == (0, "done\n", "")
