"""The command line on a tiny corpus: ten packages of the standard library, a small recipe."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

STDLIB = Path(json.__file__).parent.parent
PACKAGES = (
    "asyncio",
    "email",
    "http",
    "json",
    "logging",
    "unittest",
    "xml",
    "concurrent",
    "importlib",
    "argparse.py",
)
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
SMALL = [
    "recipe=demo",
    "rope.factor=2",
    "data.seq_len=512",
    "data.total_tokens=80000",
    "data.heldout_share=0.3",
    "train.steps=4",
    "train.optimizer.lr=1e-3",
    "train.schedule.warmup_steps=1",
    "train.global_batch_tokens=2048",
    "train.micro_batch_size=1",
    "train.checkpoint.interval_steps=2",
    "train.metrics.wandb=off",
    "eval.windows=4",
    "eval.tasks=[nll_by_position,perplexity,context_gain,passkey]",
    "eval.passkey_tries=2",
    "eval.passkey_lengths=[256,512]",
]


def corpus(folder: Path) -> None:
    """Copy the packages into `folder/corpus`."""
    for name in PACKAGES:
        files = (
            sorted((STDLIB / name).rglob("*.py")) if (STDLIB / name).is_dir() else [STDLIB / name]
        )
        for file in files:
            target = folder / "corpus" / file.relative_to(STDLIB)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())


def command(work: Path, verb: str, *overrides: str) -> list[str]:
    paths = [
        f"data.sources.stdlib.path={work / 'corpus'}",
        f"cache_dir={work / 'cache'}",
        f"runs_dir={work / 'runs'}",
    ]
    phases = next((word for word in overrides if word.startswith("phases=")), "")
    # a word that every phase sets is refused: it would change nothing
    count = phases.count("{") or 1
    small = [w for w in SMALL if phases.count(f"{w.partition('=')[0]}:") < count]
    return [sys.executable, "-m", "ropewalk.launch.cli", verb, *small, *paths, *overrides]


def ropewalk(work: Path, verb: str, *overrides: str, code: int = 0) -> Any:
    done = subprocess.run(
        command(work, verb, *overrides),
        env=ENV,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
