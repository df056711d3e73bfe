"""What a phase takes over from earlier phases: optimizer state and position in the data.

With `phases[K].carry_optimizer` a phase takes over moments, step counts and fp32 weights: the
previous phase leaves a checkpoint of its last step, which is read by parameter name, at any world
size and ZeRO stage. Without it a phase starts from the exported weights with new moments.
"""

from pathlib import Path
from typing import Any

from ropewalk.conf import check, phases
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.train.checkpoint import reshard, storage
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState


def save_for_next_phase(config: Config, checkpoints: Checkpointer, train_state: TrainState) -> None:
    """Collective. Save after the last step if the next phase takes over the optimizer's state.

    Raises: RopewalkError when the checkpoint cannot be written.
    """
    is_saved = checkpoints.last_saved_step == train_state.step
    if phases.passes_optimizer_on(config) and not is_saved:
        checkpoints.save(train_state)
        checkpoints.finish()


def load_optimizer_state(config: Config, checkpoints: Checkpointer, train_state: TrainState) -> str:
    """Collective. Load the previous phase's state, unless this phase is resumed.

    Returns a line to log, empty if nothing was loaded. Raises: ConfigError when the state does not
    fit this phase's optimizer or parameters, DataError when it is damaged.
    """
    run_dir = phases.previous_run_dir(config)
    if train_state.step or run_dir is None or not phases.carries_optimizer(config):
        return ""
    name, metadata = _last_checkpoint(run_dir)
    way_out = f"remove {run_dir / 'train'} to run that phase again"
    path = run_dir / "train" / "checkpoints" / name
    if damage := checkpoints.verify(path, metadata):
        raise DataError(f"{path}/{damage}; its optimizer is to be carried on; {way_out}")
    try:
        reshard.load(checkpoints.engine, path, metadata)
    except ConfigError as error:
        raise ConfigError(
            f"phases[{config.phase - 1}].carry_optimizer is True; the optimizer of {run_dir.name} "
            f"must fit this phase's; {error}"
        ) from None
    return f"optimizer: moments and fp32 weights of {run_dir.name}, step {metadata['step']}"


def _last_checkpoint(run_dir: Path) -> tuple[str, dict[str, Any]]:
    checkpoints = storage.list_checkpoints(run_dir / "train" / "checkpoints")
    if not checkpoints:
        raise DataError(
            f"{run_dir / 'train' / 'checkpoints'} has no undamaged checkpoint; the optimizer of "
            f"its last step is to be carried on; remove {run_dir / 'train'} to run that phase again"
        )
    return checkpoints[0]


def sequences_consumed(config: Config, plan: Path, cache: Path) -> int:
    """Sequences of `plan` that the earlier phases read, in the order of the same seed."""
    run_dir, consumed = phases.previous_run_dir(config), 0
    while run_dir is not None:
        earlier = check.load(run_dir / "config.yaml")
        if DataArtifacts.of(run_dir, cache).plan == plan:
            consumed += earlier.tokens // earlier.data.seq_len
        run_dir = phases.previous_run_dir(earlier)
    return consumed
