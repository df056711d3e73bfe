"""The train stage as launch sees it: it starts the ranks, waits, and publishes their results."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts.manifest import (
    Manifest,
    is_finished,
    read,
    run_stage,
    temporary_folder,
)
from ropewalk.conf.artifacts.records import remove
from ropewalk.conf.errors import Stopped
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.train import remote_code
from ropewalk.train.base import resolve_base
from ropewalk.train.checkpoint import storage
from ropewalk.train.launcher.ranks import STOP_FILE, launch
from ropewalk.train.model.companions import take_licences
from ropewalk.train.results import RESULTS, is_done, take_facts

FORMAT = 4  # raise when the same settings train another model


def cache_key_of(config: Config, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the trained weights depend on, as JSON holds it. `inputs` as for `run`."""
    cache_key = {
        "format": FORMAT,
        "inputs": inputs,
        "seed": config.seed,
        "train": content(config.train),
        "seq_len": config.data.seq_len,
    }
    return json.loads(json.dumps(cache_key))  # type: ignore[no-any-return]


def standing(output: Path) -> dict[str, Any] | None:
    """The content of the training that stands: finished, or interrupted after a checkpoint."""
    if (finished := read(output)) is not None:
        return finished.content
    checkpoints = storage.iter_checkpoints(temporary_folder(output) / "checkpoints")
    return next((metadata["content"] for _, metadata in checkpoints), None)


def run(config: Config, inputs: dict[str, Any], output: Path) -> tuple[Manifest, str]:
    """`inputs`: the fingerprints of the base, the rope plan and the data.

    Raises: Stopped (run again to resume), RopewalkError with the ranks' exit code, ProofError.
    """
    cache_key = cache_key_of(config, inputs)
    refuse_other_checkpoints(output, cache_key)

    def train(temporary: Path) -> dict[str, Any]:
        remove(temporary / STOP_FILE)
        if not is_done(temporary):
            launch(config, temporary.parent, temporary)
        _copy_tokenizer(temporary)
        _take_code_along(config, temporary)
        _raise_limits(temporary)
        _prove_reloaded(config, temporary)
        return take_facts(temporary)

    def reuse(damaged: Path, temporary: Path) -> None:
        _take_checkpoints(damaged, temporary, cache_key)

    names = [*RESULTS, *(["checkpoints"] if phases.passes_optimizer_on(config) else [])]
    result = run_stage("train", cache_key, output, train, resumable=True, reuse=reuse, names=names)
    if (output / STOP_FILE).exists():  # requested after the last step
        (output / STOP_FILE).unlink()
        raise Stopped(
            "train is done; the stages after it were not started; run the same command again to "
            "resume"
        )
    return result


def refuse_other_checkpoints(output: Path, cache_key: dict[str, Any]) -> None:
    """Raises: ConfigError when an unfinished training of other settings would be thrown away."""
    if is_finished("train", cache_key, output):
        return
    for name, metadata in storage.list_checkpoints(temporary_folder(output) / "checkpoints")[:1]:
        storage.refuse_other_content(name, metadata["content"], cache_key)


def _take_checkpoints(damaged: Path, temporary: Path, cache_key: dict[str, Any]) -> None:
    """Resume from the checkpoints of a damaged training, if they are of the same settings."""
    folder, expected = "checkpoints", json.loads(json.dumps(cache_key))
    saved = storage.list_checkpoints(damaged / folder)
    if saved and saved[0][1]["content"] == expected and not (temporary / folder).exists():
        os.replace(damaged / folder, temporary / folder)


def _copy_tokenizer(temporary: Path) -> None:
    """The tokenizer belongs to the exported model's folder."""
    tokenizer = temporary.parent / "data" / "tokenizer"
    shutil.copytree(
        tokenizer, temporary / "model", copy_function=shutil.copyfile, dirs_exist_ok=True
    )


def _take_code_along(config: Config, temporary: Path) -> None:
    """The model's own code belongs there as well, so that it loads without its base; and its
    licence."""
    base = resolve_base(config, Path(config.cache_dir).expanduser())
    trusted = base.trust_remote_code
    if base.path is not None and Path(base.path).is_dir():
        take_licences(Path(base.path), temporary / "model")
    for line in remote_code.take_along(
        base.path, base.revision, temporary / "model", trusted=trusted
    ):
        print(f"train: {line}", flush=True)


def _raise_limits(temporary: Path) -> None:
    """What else names the old window would cut texts and generations at it."""
    from ropewalk.train.model.windows import raise_limits
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(temporary.parent / "rope.json")
    for line in raise_limits(temporary / "model", plan):
        print(f"train: model/{line}", flush=True)


def _prove_reloaded(config: Config, temporary: Path) -> None:
    """Load the export as a user would. Raises: ProofError, before anything is published."""
    from ropewalk.train.model.build import load_trained
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(temporary.parent / "rope.json")
    kernel = config.train.attention.kernel
    trusted = config.model.trust_remote_code
    load_trained(
        temporary / "model",
        plan,
        dtype="auto",
        attention_kernel=kernel,
        trust_remote_code=trusted,
    )
