"""Wall seconds of `make demo` after set-up, with an empty cache."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

QUICK = [
    "train.steps=2",
    "train.schedule.warmup_steps=1",
    "eval.windows=2",
    "eval.passkey_tries=1",
    "data.total_tokens=200000",
    "eval.gates.deciding=[]",  # two steps extend nothing
]


def demo_seconds(quick: bool) -> list[dict[str, Any]]:
    """Seconds of `ropewalk run recipe=demo` and of its stages; peak memory of the training."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "run",
            "recipe=demo",
            f"runs_dir={folder}/runs",
            f"cache_dir={folder}/cache",
            *(QUICK if quick else []),
        ]
        seconds = common.alone(lambda: timed(arguments))
        run = Path(folder) / "runs" / "demo"
        stages = json.loads((run / "manifest.json").read_text())["stages"]
        peaks = [
            json.loads(line)["peak_memory_bytes"]
            for line in (run / "train" / "metrics.jsonl").open()
        ]
    of_stages = {name: stage["seconds"] for name, stage in stages.items()}
    return [
        common.result("demo_seconds", seconds, "s", bar="value <= 360", stages=of_stages),
        common.result("demo_train_peak_memory", max(peaks) / (1 << 30), "GiB", bar="value <= 4"),
    ]


def timed(arguments: list[str], exit_code: int = 0) -> float:
    """Seconds of a `ropewalk` command.

    Raises: RuntimeError where it ends with another exit code.
    """
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("ropewalk")), *arguments]
    done = subprocess.run(command, env=common.without_ranks(), capture_output=True, text=True)
    if done.returncode != exit_code:
        raise RuntimeError(f"ropewalk: exit code {done.returncode}\n{done.stderr[-1000:]}")
    return time.perf_counter() - started
