"""`.eval_results/`: results of benchmarks that are registered on the hub.

https://huggingface.co/docs/hub/eval-results. The hub shows no others there, so no other is written;
the card's own tables have them all. Pure but for `write`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

FOLDER = ".eval_results"


def entries(
    results: Mapping[str, Any], benchmarks: Mapping[str, str], column: str
) -> dict[str, EvalResultEntry]:
    """By lm-eval task: the entry of each registered benchmark that was measured."""
    rows = ((results.get("models") or {}).get(column) or {}).get("short_context") or []
    measured = {row["task"]: row for row in rows if row.get("part") == "lm_eval"}
    result = {}
    for task, benchmark in benchmarks.items():
        row = measured.get(task)
        if row is not None and row.get("accuracy") is not None:
            dataset, _, name = benchmark.partition(":")
            notes = f"{row['protocol']}, {row['metric']}, n {row['n']}"
            result[task] = EvalResultEntry(dataset, name, row["accuracy"], notes=notes)
    return result


def write(folder: Path, found: Mapping[str, EvalResultEntry]) -> list[str]:
    """A file for each entry. Returns their names."""
    for task, entry in found.items():
        path = folder / FOLDER / f"{task}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))
    return [f"{FOLDER}/{task}.yaml" for task in found]
