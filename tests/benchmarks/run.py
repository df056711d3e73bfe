"""Measure Ropewalk beside its peers: `run.py [--quick] [--only NAME ... [--update]]`.

A full run writes latest.json. --only writes nothing; with --update it replaces its rows there, each
with its date and commit. --quick uses tiny sizes, to try the benchmarks, and writes nothing.
Exit codes: 0 all bars hold, 1 a benchmark failed, 2 a package is missing, 3 a bar was missed.
"""

import argparse
import importlib.util
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arithmetic
import checkpointing
import common
import demo
import eval_engine
import kept_attention
import large_plans
import long_documents
import losses
import packing
import performance
import plan_command
import quick_commands
import reading
import ruler_prompts
import startup
import tokenising
import training
import weights

BENCHMARKS = {
    "arithmetic": arithmetic.arithmetic,
    "performance": performance.performance,
    "train_step_2048": training.train_step_2048,
    "train_step_8192": training.train_step_8192,
    "train_step_16384": training.train_step_16384,
    "train_memory_growth": training.train_memory_growth,
    "train_memory": training.train_memory,
    "kept_attention": kept_attention.kept_attention,
    "train_loop_overhead": training.train_loop_overhead,
    "loss_memory": losses.loss_memory,
    "start_to_first_step": startup.start_to_first_step,
    "checkpoint_stall": checkpointing.checkpoint_stall,
    "resume_to_first_step": checkpointing.resume_to_first_step,
    "pack_1m": packing.pack_1m,
    "pack_10m": packing.pack_10m,
    "plan_100m": large_plans.plan_100m,
    "reading": reading.reading,
    "ruler_prompts": ruler_prompts.ruler_prompts,
    "tokenise": tokenising.tokenise,
    "weights_preflight": weights.weights_preflight,
    "long_document": long_documents.long_document,
    "quick_commands": quick_commands.quick_commands,
    "plan_command": plan_command.plan_command,
    "eval_sweeps": eval_engine.eval_sweeps,
    "eval_curve": eval_engine.eval_curve,
    "eval_decode_step": eval_engine.eval_decode_step,
    "eval_memory": eval_engine.eval_memory,
    "demo_seconds": demo.demo_seconds,
}
PEERS = ("accelerate", "trl")
PACKAGES = ("torch", "transformers", *PEERS, "deepspeed", "numpy", "tokenizers", "datasets")
LATEST = common.HERE / "latest.json"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if missing := [peer for peer in PEERS if importlib.util.find_spec(peer) is None]:
        print(
            f"{', '.join(missing)} is not installed; the peers need it; pip install 'ropewalk[dev]'"
        )
        return 2
    if arguments.update and (arguments.quick or not arguments.only):
        parser().error("--update goes with --only NAME, and not with --quick")
    if arguments.quick:
        common.patience.seconds = 0.0
    head = header()
    results, left_out, failed = measure(arguments.only or list(BENCHMARKS), arguments.quick)
    print(table(results, left_out))
    report = {
        **head,
        "others_cores": max(common.OTHERS, default=0.0),
        "results": results,
        "left_out": left_out,
    }
    if arguments.update:
        report = updated(json.loads(LATEST.read_text()), report)
    if not failed and (arguments.update or not (arguments.quick or arguments.only)):
        LATEST.write_text(json.dumps(report, indent=1) + "\n")
        print(f"wrote {LATEST.relative_to(common.ROOT)}")
    missed = any(r["holds"] is False for r in results)
    return 1 if failed else 3 if missed and not arguments.quick else 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description="Measure Ropewalk beside its peers; writes tests/benchmarks/latest.json."
    )
    result.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes, one round: tries the benchmarks, writes nothing",
    )
    result.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), help="one benchmark (again for more)"
    )
    result.add_argument(
        "--update", action="store_true", help="with --only: replace these rows of latest.json"
    )
    return result


def updated(former: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The former file with the new rows in their places, each with its date and commit."""
    if former["hardware"] != now["hardware"]:
        raise SystemExit(
            f"latest.json is of {former['hardware']}, this is {now['hardware']}; run all of them"
        )
    mark = {key: now[key] for key in ("date", "commit", "others_cores")}
    new = {row["name"]: {**row, "measured": mark} for row in now["results"]}
    rows = [new.pop(row["name"], row) for row in former["results"]]
    return {**former, "results": [*rows, *new.values()]}


def measure(names: Sequence[str], quick: bool) -> tuple[list[Any], list[Any], bool]:
    """Results, benchmarks left out with the reason, and whether one failed."""
    results: list[Any] = []
    left_out: list[Any] = []
    failed = False
    for name in names:
        started = time.monotonic()
        try:
            results += BENCHMARKS[name](quick)
        except common.LeftOut as why:
            left_out.append({"name": name, "why": str(why)})
        except RuntimeError as error:
            failed = True
            left_out.append({"name": name, "why": f"failed: {str(error).strip().splitlines()[-1]}"})
            common.say(str(error))
        common.say(f"{name}: {time.monotonic() - started:.0f} s")
    return results, left_out, failed


def header() -> dict[str, Any]:
    """Date, commit, hardware and versions."""
    return {
        "schema": 1,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def commit() -> str:
    """HEAD, with `+dirty` when a file other than latest.json differs from it."""
    git = ["git", "--no-optional-locks", "-C", str(common.ROOT)]
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain"], capture_output=True, text=True
    ).stdout.splitlines()
    dirty = [line for line in changed if not line.endswith("benchmarks/latest.json")]
    return (head or "unknown") + ("+dirty" if dirty else "")


def hardware() -> dict[str, Any]:
    cpu, memory = Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text()
    model, total = (
        re.search(r"model name\s*: (.*)", cpu),
        re.search(r"MemTotal:\s+(\d+) kB", memory),
    )
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": common.cores(),
        "memory_gib": round(int(total[1]) / (1 << 20), 1) if total else None,
    }


def table(results: Sequence[dict[str, Any]], left_out: Sequence[dict[str, Any]]) -> str:
    """The results for a terminal, in the order measured."""
    rows = [["name", "value", "unit", "peer", "ratio", "bar", ""]]
    for r in results:
        verdict = {True: "holds", False: "MISSED", None: ""}[r["holds"]]
        numbers = [_number(r["value"]), r["unit"], _number(r["peer_value"]), _number(r["ratio"])]
        rows.append([r["name"], *numbers, r["bar"] or "", verdict])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *(f"left out: {x['name']}: {x['why']}" for x in left_out)])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
