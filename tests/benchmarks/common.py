"""Shared by the benchmarks: child processes, peak memory, alternating rounds, result rows."""

import ctypes
import json
import operator
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.append(str(HERE.parent / "helpers"))  # every benchmark imports this module first
MIB = 1 << 20
BUSY = 0.15  # cores that others may use during a timing
OTHERS: list[float] = []  # cores that others used, a figure for each measurement
COMPARE = {">=": operator.ge, "<=": operator.le}


class Patience:
    """Seconds that this run may still spend on waiting for a quiet machine and on repeats."""

    seconds = 1800.0


patience = Patience()


class LeftOut(Exception):
    """This benchmark cannot be measured here, for the reason in the text."""


def result(
    name: str,
    value: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    bar: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One entry of latest.json.

    `ratio` is value / peer_value. `bar` is `value|ratio >=|<= NUMBER`; None: only reported.
    """
    ratio = None if not peer_value else value / peer_value
    row = {
        "name": name,
        "value": _rounded(value),
        "unit": unit,
        "peer": peer,
        "peer_value": _rounded(peer_value),
    }
    row |= {"ratio": _rounded(ratio), "bar": bar, "holds": _holds(bar, value, ratio)}
    return row | more


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _holds(bar: str | None, value: float, ratio: float | None) -> bool | None:
    if bar is None:
        return None
    subject, sign, number = bar.split()
    against = {"value": value, "ratio": ratio}[subject]
    return None if against is None else bool(COMPARE[sign](against, float(number)))


def environment() -> dict[str, str]:
    """The same for ours and the peer: CPU only, every core, offline, quiet."""
    env = dict(os.environ)
    env |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}
    env |= {
        "OMP_NUM_THREADS": str(cores()),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    env |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    return env


def without_ranks() -> dict[str, str]:
    """For our own command, whose launcher sets the ranks."""
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {key: value for key, value in environment().items() if key not in ranks}


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def child(function: str, timeout: float | None = None, **arguments: Any) -> Any:
    """Call `module:function` of this folder in a new process; returns its result, as JSON.

    Raises: LeftOut after `timeout` seconds, RuntimeError with the end of the child's stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [
            sys.executable,
            str(HERE / "child.py"),
            function,
            json.dumps(arguments),
            str(answer),
        ]
        try:
            done = subprocess.run(
                command,
                env=environment(),
                cwd=folder,
                timeout=timeout,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise LeftOut(f"took more than {timeout:.0f} s") from None
        if done.returncode:
            raise RuntimeError(
                f"{function} {arguments}: exit code {done.returncode}\n{done.stderr[-3000:]}"
            )
        return json.loads(answer.read_text())


def alternate(rounds: int, arms: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Measure every arm once a round (ABAB), so that a slow minute affects all of them."""
    results: dict[str, list[Any]] = {name: [] for name in arms}
    for number in range(rounds):
        for name, measure in arms.items():
            say(f"  round {number + 1} of {rounds}, {name}")
            results[name].append(alone(measure))
    return results


def alone(measure: Callable[[], Any]) -> Any:
    """The result of `measure` on a quiet machine; a disturbed one is repeated while time allows."""
    while True:
        wait_for_quiet()
        started = time.monotonic()
        result, share = _with_others(measure)
        if share <= BUSY or patience.seconds <= 0:
            OTHERS.append(round(share, 3))
            return result
        patience.seconds -= time.monotonic() - started
        say(f"    others used {share:.2f} cores meanwhile: measured again")


def wait_for_quiet() -> None:
    """Wait until other processes use less than BUSY cores for two seconds, or time is up."""
    while patience.seconds > 0 and _with_others(lambda: time.sleep(2))[1] > BUSY:
        patience.seconds -= 2


def _with_others(measure: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `measure`, and how many cores other processes used meanwhile."""
    started, all_before, ours_before = time.monotonic(), _cpu_of_all(), _cpu_of_ours()
    result = measure()
    others = (_cpu_of_all() - all_before) - (_cpu_of_ours() - ours_before)
    return result, max(0.0, others / (time.monotonic() - started))


def _cpu_of_all() -> float:
    """CPU seconds of the whole machine since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_of_ours() -> float:
    """CPU seconds of this process and of its finished children."""
    return sum(os.times()[:4])


def median(values: list[float]) -> float:
    return float(statistics.median(values))


def spread(values: list[float]) -> list[float]:
    """Smallest and largest value."""
    return [float(f"{min(values):.5g}"), float(f"{max(values):.5g}")]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Peak:
    """Peak resident memory of this process above its value at `Peak()` (Linux)."""

    def __init__(self) -> None:
        # return freed memory to the system: reusing it would not show in the peak
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.start = _status("VmRSS")

    def mib(self) -> float:
        return (_status("VmHWM") - self.start) / MIB


def _status(key: str) -> int:
    """Bytes."""
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert match is not None, f"{key} is not in /proc/self/status"
    return int(match[1]) * 1024


def available_mib() -> float:
    """Memory that a new process may take."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return int(match[1]) / 1024 if match else 0.0
