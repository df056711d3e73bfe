"""From the command to the first step's line in metrics.jsonl, with the earlier stages done."""

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


# -- in the parent -----------------------------------------------------------------------------------------------------


def start_to_first_step(quick: bool) -> list[dict[str, Any]]:
    """Median of several starts; the peer builds the demo's model and trains one step of as many tokens."""
    recipe, tokens = _recipe()
    words = [
        f"recipe={recipe}",
        "data.total_tokens=200000",
        "train.steps=1",
        "train.schedule.warmup_steps=0",
        "train.metrics.wandb=offline",
    ]
    common.say(f"start_to_first_step: recipe={recipe}")
    with tempfile.TemporaryDirectory() as folder:
        words += ["name=start", f"runs_dir={folder}/runs", f"cache_dir={folder}/cache"]
        _end(_ropewalk("data", words, folder), folder)
        run = Path(folder) / "runs" / "start"
        arms = {"ours": lambda: _first_step(words, run, folder), "trainer": lambda: _peer(tokens)}
        runs = common.alternate(1 if quick else 3, arms)
    ours, peer = (common.median(runs[side]) for side in ("ours", "trainer"))
    more = {"recipe": recipe, "of_rounds": common.spread(runs["ours"])}
    return [
        common.result(
            "start_to_first_step", ours, "s", peer=PEER, peer_value=peer, bar="value <= 20", **more
        )
    ]


def _recipe() -> tuple[str, int]:
    """The demo where its base is there, else the recipe that makes that base; and the tokens of its step."""
    there = (common.ROOT / "train" / "bases" / "demo" / "model.safetensors").is_file()
    return ("demo" if there else "base"), 4096


def _ropewalk(verb: str, words: list[str], folder: str) -> subprocess.Popen[bytes]:
    """As a user starts it: the console script, its own launcher."""
    command = [str(Path(sys.executable).with_name("ropewalk")), verb, *words]
    with _said(folder).open("wb") as said:
        return subprocess.Popen(
            command, env=common.without_ranks(), stdout=said, stderr=subprocess.STDOUT
        )


def _said(folder: str) -> Path:
    return Path(folder) / "said.txt"


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    if process.wait():
        raise RuntimeError(
            f"ropewalk: exit code {process.returncode}\n{_said(folder).read_text()[-1000:]}"
        )


def _first_step(words: list[str], run: Path, folder: str) -> float:
    """Seconds to the first whole line; then the run is let end, and its training removed."""
    started = time.perf_counter()
    process = _ropewalk("train", words, folder)
    places = [run / "train.tmp" / "metrics.jsonl", run / "train" / "metrics.jsonl"]
    while process.poll() is None and not any(_has_line(place) for place in places):
        if time.perf_counter() - started > WAIT:
            process.terminate()  # it stops in good order
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    _end(process, folder)
    for made in run.glob("train*"):
        shutil.rmtree(made)
    return seconds


def _has_line(place: Path) -> bool:
    try:
        return "\n" in place.read_text()
    except OSError:
        return False


def _peer(tokens: int) -> float:
    started = time.perf_counter()
    common.child("startup:peer_step", tokens=tokens)
    return time.perf_counter() - started


# -- in the child ------------------------------------------------------------------------------------------------------


def peer_step(tokens: int) -> dict[str, Any]:
    """One Trainer step and no warm-up: one sequence of as many tokens, random weights."""
    import sides

    return sides.trainer(tokens, 1, checkpointing=False, warm=False)
