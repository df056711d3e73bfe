"""The scripts that the Makefile runs start outside pytest, with its import paths absent."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = re.findall(r"/python (tests/\S+\.py)", (ROOT / "Makefile").read_text())


def test_the_makefile_runs_the_benchmarks_and_the_mutants() -> None:
    assert {"tests/benchmarks/run.py", "tests/mutants/run.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_starts(script: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / script), "--help"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
