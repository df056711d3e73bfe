"""launch/recipes/table.json: a row a recipe, with what it costs by plan.

The listing reads it, so that it needs neither Hydra nor torch. `make recipes` writes it anew; tests
hold it against what the recipes compose to, and against a few plans made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from ropewalk.conf.errors import DataError

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config
    from ropewalk.train.rope.plan import RopePlan

FILE = Path(__file__).parent / "table.json"
SCHEMA = 1


def read() -> dict[str, Any]:
    """Recipe -> row. Raises: DataError for a file of another schema."""
    content = json.loads(FILE.read_text("utf-8"))
    if content["schema"] != SCHEMA:
        raise DataError(
            f"{FILE.name} has schema {content['schema']}; this version reads {SCHEMA}; make recipes"
        )
    rows: dict[str, Any] = content["recipes"]
    return rows


def write(rows: dict[str, Any]) -> None:
    text = json.dumps({"schema": SCHEMA, "recipes": dict(sorted(rows.items()))}, indent=1)
    FILE.write_text(text + "\n", "utf-8")


def facts(name: str, phases: Sequence["Config"], plans: Sequence["RopePlan"]) -> dict[str, Any]:
    """What a recipe composes to, without its cost. `plans`: the rope plan of each phase."""
    from ropewalk.launch.recipes.bases import RECIPES, card_of

    card = card_of(name)
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    return {
        "name": name,
        "base": content["model"]["path"],
        "window": [plans[0].original_max_position_embeddings, plans[-1].max_position_embeddings],
        "seq_len": max(phase.data.seq_len for phase in phases),
        "method": plans[-1].method,
        "tokens": sum(phase.tokens for phase in phases),
        "phases": len(phases),
        "hardware": card.planned.hardware,
        "gpus": max(card.planned.gpus),
        "licence": card.base.licence,
    }


def row(name: str) -> dict[str, Any]:
    """The facts, the plan of each phase, and their GPU-hours. Raises: RopewalkError."""
    from ropewalk.launch.pipeline.run import Run
    from ropewalk.launch.recipes import costs
    from ropewalk.launch.recipes.bases import phases_on

    with TemporaryDirectory() as folder:
        phases = phases_on(name, Path(folder) / "base", f"cache_dir={folder}/cache")
        composed = facts(name, phases, [Run(phase).rope_plan for phase in phases])
    plan = costs.plan(name)
    hours = {
        key: float(f"{sum(phase['gpu_hours'][key] for phase in plan):.3g}")
        for key in ("low", "likely", "high")
    }
    return {**composed, "gpu_hours": hours, "plan": plan}
