"""`check=auto`: the self-test before the first training on new hardware or another mesh."""

from typing import Any

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.artifacts.records import UNREADABLE
from ropewalk.conf.errors import ProofError
from ropewalk.launch.check import command
from ropewalk.launch.check.line import FAIL, failed
from ropewalk.launch.pipeline.run import Run


def refuse_untested(run: Run) -> None:
    """Run the self-test, unless one of these machines and this mesh passed. Its result stays with
    the run. Raises: ProofError when a line fails; ConfigError.
    """
    if run.config.check != "auto":
        return
    if _passed_before(run):
        print("check: passed before on this hardware and mesh; skipped")
        return
    lines = command.check(run, command.show)
    print(command.publish(run, lines), flush=True)
    if names := failed(lines):
        raise ProofError(
            f"check is auto; {', '.join(names)} must pass before this training starts; see "
            f"{command.FOLDER}/{command.RESULT}, or set check=off"
        )


def _passed_before(run: Run) -> bool:
    try:
        content: dict[str, Any] = read_json(run.folder / command.FOLDER / command.RESULT)
        statuses = {entry["status"] for entry in content["checks"]}
        return content["conditions"] == command.conditions(run.config) and FAIL not in statuses
    except (*UNREADABLE, TypeError, KeyError):
        return False
