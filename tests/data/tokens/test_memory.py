"""The memory that a long document takes, in a process of its own: a few times its size at most."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
SIZE = 20 * MIB
ALLOWED = 100 + 6 * SIZE // MIB  # MiB: what two threads encode, and the text; it was 3.8 GiB
PROGRAM = """
import sys
sys.path.append({benchmarks!r})
from long_documents import store
import json
print(json.dumps(store({path!r})))
"""


def measured(path: Path) -> dict[str, float]:
    benchmarks = str(Path(__file__).parents[2] / "benchmarks")
    program = PROGRAM.format(benchmarks=benchmarks, path=str(path))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux resets the peak")
@pytest.mark.parametrize("kind", ["words", "one letter"])
def test_memory_of_a_long_line_is_a_few_times_its_size(tmp_path: Path, kind: str) -> None:
    """With an emoji, which makes a Python string four times as large."""
    text = (
        "the rope is laid in the long walk, and the strands are twisted; "
        if kind == "words"
        else "a"
    )
    size = SIZE if kind == "words" else SIZE // 8
    content = "😀" + (text * (size // len(text) + 1))[:size]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": content}) + "\n")
    result = measured(path)
    assert result["documents"] == 1 and result["peak"] < ALLOWED, result
