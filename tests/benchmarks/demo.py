"""What the last `make demo` took, from its own run folder; nothing is run here."""

import json
from pathlib import Path
from typing import Any

import common


def demo_seconds(quick: bool) -> list[dict[str, Any]]:
    """Seconds of all its stages and the training's peak memory. Raises: LeftOut without a finished demo run."""
    run = common.ROOT / "runs" / "demo"
    stages = _stages(run)
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    found = [common.result("demo_seconds", sum(seconds.values()), "s", bar="value <= 360", stages=seconds)]
    peaks = [json.loads(line)["peak_memory_bytes"] for line in (run / "train" / "metrics.jsonl").open()]
    gib = max(peaks) / (1 << 30)
    return [*found, common.result("demo_train_peak_memory", gib, "GiB", bar="value <= 4")]


def _stages(run: Path) -> dict[str, Any]:
    manifest = run / "manifest.json"
    stages = json.loads(manifest.read_text())["stages"] if manifest.is_file() else {}
    if "report" not in stages:
        raise common.LeftOut("no finished run in runs/demo; run make demo first")
    return stages
