"""Seconds from the command to the first line of metrics.jsonl; earlier stages are done."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

PEER = "transformers Trainer in a script, from python to the end of its first step"
WAIT = 300.0  # seconds


# -- in the parent ---------------------------------------------------------------------------------


def start_to_first_step(quick: bool) -> list[dict[str, Any]]:
    """Median of several starts. The peer builds the demo's model and trains one such step."""
    recipe, tokens = _recipe()
    overrides = [
        f"recipe={recipe}",
        "data.total_tokens=200000",
        "train.steps=1",
        "train.schedule.warmup_steps=0",
        "train.metrics.wandb=offline",
    ]
    common.say(f"start_to_first_step: recipe={recipe}")
    with tempfile.TemporaryDirectory() as folder:
        overrides += ["name=start", f"runs_dir={folder}/runs", f"cache_dir={folder}/cache"]
        _end(_ropewalk("data", overrides, folder), folder)
        run = Path(folder) / "runs" / "start"
        arms = {
            "ours": lambda: _first_step(overrides, run, folder),
            "trainer": lambda: _peer(tokens),
        }
        runs = common.alternate(1 if quick else 3, arms)
    ours, peer = (common.median(runs[side]) for side in ("ours", "trainer"))
    more = {"recipe": recipe, "of_rounds": common.spread(runs["ours"])}
    return [
        common.result(
            "start_to_first_step", ours, "s", peer=PEER, peer_value=peer, bar="value <= 12", **more
        )
    ]


def _recipe() -> tuple[str, int]:
    """The demo recipe, or `base` where the demo's base is missing; and the tokens of a step."""
    base_exists = (common.ROOT / "train" / "bases" / "demo" / "model.safetensors").is_file()
    return ("demo" if base_exists else "base"), 4096


def _ropewalk(verb: str, overrides: list[str], folder: str) -> subprocess.Popen[bytes]:
    """Start the console script, as a user does."""
    command = [str(Path(sys.executable).with_name("ropewalk")), verb, *overrides]
    with _output(folder).open("wb") as output:
        return subprocess.Popen(
            command, env=common.without_ranks(), stdout=output, stderr=subprocess.STDOUT
        )


def _output(folder: str) -> Path:
    return Path(folder) / "output.txt"


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    if process.wait():
        raise RuntimeError(
            f"ropewalk: exit code {process.returncode}\n{_output(folder).read_text()[-1000:]}"
        )


def _first_step(overrides: list[str], run: Path, folder: str) -> float:
    """Seconds to the first complete line. Waits for the end and removes the training."""
    started = time.perf_counter()
    process = _ropewalk("train", overrides, folder)
    paths = [run / "train.tmp" / "metrics.jsonl", run / "train" / "metrics.jsonl"]
    while process.poll() is None and not any(_has_line(path) for path in paths):
        if time.perf_counter() - started > WAIT:
            process.terminate()  # it saves a checkpoint and stops
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    _end(process, folder)
    for train_dir in run.glob("train*"):
        shutil.rmtree(train_dir)
    return seconds


def _has_line(path: Path) -> bool:
    try:
        return "\n" in path.read_text()
    except OSError:
        return False


def _peer(tokens: int) -> float:
    started = time.perf_counter()
    common.child("startup:peer_step", tokens=tokens)
    return time.perf_counter() - started


# -- in the child ----------------------------------------------------------------------------------


def peer_step(tokens: int) -> dict[str, Any]:
    """One Trainer step without warm-up on a sequence of `tokens` tokens."""
    import sides

    return sides.trainer(tokens, 1, checkpointing=False, warm=False)
