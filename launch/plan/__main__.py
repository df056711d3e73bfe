"""`python -m ropewalk.launch.plan`: a question a line on standard input, a forecast a line back.

One process for questions of one number of GPUs and of ranks that share a sequence: a process group
cannot be made again.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ropewalk.conf import check, hardware_file
from ropewalk.conf.errors import RopewalkError
from ropewalk.launch.plan import correction
from ropewalk.launch.plan.ask import MARK
from ropewalk.train.launcher.process import gc_paused_imports, without_package

with gc_paused_imports(), without_package("mlflow"):
    from ropewalk.launch.plan.forecast import Question, forecast


def answer(values: Mapping[str, Any]) -> dict[str, Any]:
    """A forecast, or `error` (its kind) and `message`."""
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(values["config"])
            config = check.load(path, "plan")
        hardware = hardware_file.load(values["hardware"])
        plan = forecast(Question(config, hardware, values["gpus"], values["is_try"]))
        cache = Path(config.cache_dir).expanduser()
        kept = correction.kept_for(cache, values["hardware"]) if values["corrected"] else None
        tokens = config.micro_batch_tokens // config.train.sp_size
        if kept is None or "peak_bytes" not in plan:  # of a try that was not traced
            return plan
        return correction.applied(plan, kept, tokens)
    except RopewalkError as error:
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(f"{MARK}{json.dumps(answer(json.loads(line)))}", flush=True)
