"""A recipe's twin in a folder, and verbs of the command line on it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from commands import ENV

from ropewalk.launch.recipes import twin


def written(name: str, folder: Path) -> Path:
    twin.write(name, folder)
    return folder


def call(name: str, folder: Path, verb: str, *words: str, seconds: int = 900) -> str:
    """What the verb prints; it must end well."""
    chosen = ["--config-dir", ".", f"recipe={name}_twin", *words]
    process = subprocess.run(
        [sys.executable, "-m", "ropewalk.launch.cli", verb, *chosen],
        cwd=folder,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert process.returncode == 0, f"{name} {verb}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def run_folders(name: str, folder: Path) -> list[Path]:
    """The runs of the phases in order; the last is the run itself."""
    run = folder / "runs" / f"{name.replace('_', '-')}-twin"
    return [*sorted((run / "phases").glob("*-*")), run]


def losses(run: Path) -> list[float]:
    lines = (run / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def exported(run: Path) -> dict[str, Any]:
    """config.json of the trained model."""
    config: dict[str, Any] = json.loads((run / "train" / "model" / "config.json").read_text())
    return config
