"""`ropewalk plan` of an 8B model, from the process's start to its end: a verdict, and a search."""

import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import common
from demo import timed
from planning_points import config_of

VERDICT = ["data.seq_len=131072", "train.sp_size=8", "train.zero_stage=3"]
SEARCH = ["data.seq_len=1048576", "train.global_batch_tokens=8388608"]
ROUNDS = 5


def plan_command(quick: bool) -> list[dict[str, Any]]:
    """Medians of a verdict at 128K tokens on 8 H100s; one search from 1M tokens, nothing set."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of("llama_8b") | {"max_position_embeddings": 131_072}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        words = ["plan", f"model.path={folder}", "rope=yarn", "rope.factor=8", "train.steps=200"]
        words += ["--hardware", "h100", "--gpus", "8"]
        arms = {"verdict": lambda: timed([*words, *VERDICT])}
        verdicts = common.alternate(1 if quick else ROUNDS, arms)["verdict"]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20)
        search = common.alone(lambda: timed([*words, *SEARCH]))
    return [
        common.result(
            "plan_verdict_seconds",
            common.median(verdicts),
            "s",
            bar="value <= 8",
            of_rounds=common.spread(verdicts),
        ),
        common.result("plan_verdict_memory", peak, "GiB", bar="value <= 1.5"),
        common.result("plan_search_seconds", search, "s", bar="value <= 180"),
    ]
