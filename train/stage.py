"""The train stage as launch sees it: starts the ranks through DeepSpeed's launcher, waits, publishes what they made."""

import json
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import Manifest, read_json, run_stage, stands, temporary_of
from ropewalk.conf.errors import Stopped
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.train.checkpoint import storage as checkpoints
from ropewalk.train.launcher.ranks import _how_to_resume, launch
from ropewalk.train.launcher.stop import STOP


def run(config: Config, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of the base, rope plan and data that this training starts from.

    Raises: Stopped (run again to resume), RopewalkError with the ranks' exit code, ProofError.
    """
    decides = {
        "inputs": inputs,
        "seed": config.seed,
        "train": content(config.train),
        "seq_len": config.data.seq_len,
    }

    if not stands("train", decides, output):
        _refuse_other_checkpoints(output, decides)

    def work(temporary: Path) -> dict[str, Any]:
        (temporary / STOP).unlink(missing_ok=True)
        if not (temporary / "done.json").is_file():
            launch(config, temporary.parent, temporary)
        _finish(temporary)
        _reload(config, temporary)
        return read_json(temporary / "done.json")  # type: ignore[no-any-return]

    done = run_stage("train", decides, output, work, resumable=True)
    if (output / STOP).exists():  # asked when no step was left to stop after
        (output / STOP).unlink()
        raise Stopped(
            f"train is done, and stopped before what comes after it; {_how_to_resume(config)}"
        )
    return done


def _refuse_other_checkpoints(output: Path, decides: dict[str, Any]) -> None:
    """An unfinished training of other settings is not thrown away unasked. Raises: ConfigError with the first difference."""
    for name, facts in checkpoints.list_checkpoints(temporary_of(output) / "checkpoints")[:1]:
        checkpoints.refuse_other_content(name, facts["content"], json.loads(json.dumps(decides)))


def _finish(temporary: Path) -> None:
    """The tokenizer goes with the model, so that the exported folder is whole."""
    for file in (temporary.parent / "data" / "tokenizer").iterdir():
        (temporary / "model" / file.name).write_bytes(file.read_bytes())


def _reload(config: Config, temporary: Path) -> None:
    """What was exported, as a reader loads it. Raises: ProofError, before anything is published."""
    from ropewalk.train.model.build import load_trained
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(temporary.parent / "rope.json")
    load_trained(
        temporary / "model", plan, dtype="auto", attention_kernel=config.train.attention.kernel
    )
