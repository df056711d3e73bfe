"""A phase that goes on with the optimizer of the one before (`phases[K].carry_optimizer`): its moments, counts and fp32 weights.

The phase before leaves a checkpoint of its last step; it is read by parameter name, at whatever ranks and ZeRO stage. Without it a phase
starts from the exported weights, and its moments from nothing.
"""

from pathlib import Path
from typing import Any

from ropewalk.conf import check, phases
from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.train.checkpoint import reshard, storage
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState


def save_for_next_phase(config: Config, checkpoints: Checkpointer, progress: TrainState) -> None:
    """After the last step of a phase whose next one carries on; every rank. Raises: RopewalkError when it cannot be written."""
    if phases.passes_optimizer_on(config) and checkpoints.last_saved_step != progress.step:
        checkpoints.save(progress)
        checkpoints.finish()


def load_optimizer_state(config: Config, checkpoints: Checkpointer, progress: TrainState) -> str:
    """Before the first step of a phase that carries on; every rank. A resumed phase has its own already. Returns a line to log.

    Raises: ConfigError when the states do not fit this phase's optimizer or parameters, RopewalkError when they are torn.
    """
    before = phases.previous_run_dir(config)
    if progress.step or before is None or not phases.carries_optimizer(config):
        return ""
    path = before / "train" / "checkpoints"
    name, facts = _last(path)
    if trouble := checkpoints.verify(path / name, facts):
        raise RopewalkError(f"checkpoint {name} of {before.name}: {trouble}; run that phase again")
    try:
        reshard.load(
            checkpoints.engine,
            path / name,
            facts["world_size"],
            facts["zero_stage"],
            checkpoints.writer.load,
        )
    except ConfigError as error:
        raise ConfigError(
            f"phases[{config.phase - 1}].carry_optimizer is True; the optimizer of {before.name} must fit this phase's; {error}"
        ) from None
    return f"optimizer: moments and fp32 weights of {before.name}, step {facts['step']}"


def _last(path: Path) -> tuple[str, dict[str, Any]]:
    found = storage.list_checkpoints(path)
    if not found:
        raise RopewalkError(f"{path.parent.parent.name} left no checkpoint; run that phase again")
    return found[0]


def sequences_consumed(config: Config, plan: Path, cache: Path) -> int:
    """Sequences of `plan` that the phases before this one read, in the order of the same seed."""
    folder, found = phases.previous_run_dir(config), 0
    while folder is not None:
        earlier = check.load(folder / "config.yaml")
        if DataArtifacts.of(folder, cache).plan == plan:
            found += earlier.tokens // earlier.data.seq_len
        folder = phases.previous_run_dir(earlier)
    return found
