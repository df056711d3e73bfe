"""The page of figures that `make test-gpu` measures: tests/benchmarks/gpu.json.

Each figure stands beside what arithmetic expects of it. Tests that run in several calls, as in the
kit for a machine without a network, add to one page; another commit, machine or library begins a
new one.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PATH = Path(__file__).parents[1] / "benchmarks" / "gpu.json"
LIBRARIES = ("torch", "transformers", "deepspeed", "flash-attn", "flash-attn-3", "flash-attn-4")


class GpuPage:
    """Figures in the order in which they were recorded, by name.

    With a `path` each is written at once: a call that is ended by its time keeps its figures.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.figures: dict[str, dict[str, Any]] = {}

    def record(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> bool:
        """Whether `value` is within its expectation; a figure without one holds.

        The figure is on the page also where it does not hold and the test then fails.
        """
        above, below = at_least is None or value >= at_least, at_most is None or value <= at_most
        limits = {"at_least": at_least, "at_most": at_most}
        expected = {key: limit for key, limit in limits.items() if limit is not None}
        self.figures[name] = {
            "name": name,
            "value": value,
            "unit": unit,
            "expected": expected or None,
            "holds": above and below,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if self.path is not None:
            self.write(self.path)
        return bool(above and below)

    def write(self, path: Path, origin: Mapping[str, Any] | None = None) -> None:
        """Add the figures to the page of the same `origin`, or begin a new page."""
        origin = dict(origin or origin_of_figures())
        page = json.loads(path.read_text()) if path.is_file() else {}
        same = page.get("origin") == origin
        earlier = {figure["name"]: figure for figure in page["figures"]} if same else {}
        figures = [*(earlier | self.figures).values()]
        path.write_text(json.dumps({"origin": origin, "figures": figures}, indent=1) + "\n")


@cache
def origin_of_figures() -> dict[str, Any]:
    """Hardware, versions and commit."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "gpus": [torch.cuda.get_device_name(n) for n in gpus],
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: number for name in LIBRARIES if (number := _version(name))},
        "commit": os.environ.get("ROPEWALK_COMMIT") or _commit(),
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    result = subprocess.run(command, cwd=PATH.parent, capture_output=True, text=True)
    return result.stdout.strip()


def report(page: Mapping[str, Any]) -> str:
    """The page as text: a line for each figure, its expectation, and whether it holds."""
    origin = page["origin"]
    versions = ", ".join(f"{name} {number}" for name, number in origin["versions"].items())
    lines = [f"{', '.join(origin['gpus']) or 'no GPU'}; {versions}; commit {origin['commit'][:12]}"]
    for figure in page["figures"]:
        limits = figure["expected"] or {}
        expected = ", ".join(f"{key.replace('_', ' ')} {n:.5g}" for key, n in limits.items())
        mark = "holds" if figure["holds"] else "DOES NOT HOLD"
        verdict = f" (expected {expected}: {mark})" if expected else ""
        lines.append(f"{figure['name']}: {figure['value']:.5g} {figure['unit']}{verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(json.loads(PATH.read_text())) if PATH.is_file() else "no figure was recorded")
