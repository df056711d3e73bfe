"""What a recipe costs on its card's machine, by the code of `ropewalk plan`."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ropewalk.conf.recipe_card import Planned
from ropewalk.conf.schema import Config
from ropewalk.launch.plan.ask import Asked, Tracers, or_raise
from ropewalk.launch.recipes.bases import card_of, phases_on

GIB = 2**30


def plan(name: str) -> list[dict[str, Any]]:
    """Each phase that trains: memory, time and GPU-hours. Raises: RopewalkError."""
    with TemporaryDirectory() as folder:
        phases = phases_on(name, Path(folder))
        questions = _questions(phases, card_of(name).planned)
        with Tracers() as ask:
            answers = [or_raise(answer) for answer in ask(questions)]
    return [_facts(one, answer) for one, answer in zip(questions, answers, strict=True)]


def _questions(phases: Sequence[Config], planned: Planned) -> list[Asked]:
    """Not corrected by what this machine measured: the table is the same on every machine."""
    gpus = planned.gpus if len(planned.gpus) > 1 else cycle(planned.gpus)
    pairs = zip(phases, gpus, strict=False)
    return [
        Asked(phase, planned.hardware, count, corrected=False)
        for phase, count in pairs
        if phase.train.steps
    ]


def _facts(asked: Asked, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "phase": answer["phase"],
        "gpus": asked.gpus,
        "verdict": answer["verdict"],
        "peak_gib": round(answer["peak_bytes"]["expandable"] / GIB, 1),
        "usable_gib": round(answer["usable_bytes"] / GIB, 1),
        "host_gib": round(answer["host_bytes"] / GIB),
        "step_s": {key: _rounded(value) for key, value in answer["step_s"].items()},
        "gpu_hours": {key: _rounded(value) for key, value in answer["gpu_hours"].items()},
    }


def _rounded(value: float) -> float:
    """To three digits, so that a file holds no noise."""
    return float(f"{value:.3g}")
