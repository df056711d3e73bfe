"""Wall seconds of commands that have nothing to compute, from the process's start to its end."""

import tempfile
from typing import Any

import common
from demo import QUICK, timed

ROUNDS = 5


def quick_commands(quick: bool) -> list[dict[str, Any]]:
    """Medians of a finished `ropewalk run` that is started again, and of a refused setting."""
    common.say("quick_commands")
    with tempfile.TemporaryDirectory() as folder:
        run = [
            "run",
            "recipe=demo",
            f"runs_dir={folder}/runs",
            f"cache_dir={folder}/cache",
            *QUICK,
        ]
        timed(run)
        arms = {
            "no_op_run": lambda: timed(run),
            "config_error": lambda: timed([*run, "train.stepz=3"], exit_code=2),
        }
        seconds = common.alternate(1 if quick else ROUNDS, arms)
    bars = {"no_op_run": "value <= 3", "config_error": "value <= 0.7"}
    return [
        common.result(
            name, common.median(values), "s", bar=bars[name], of_rounds=common.spread(values)
        )
        for name, values in seconds.items()
    ]
