"""Save, forget, resume: the continued training against the uninterrupted one, to the bit."""

import hashlib
import os
import shutil
from pathlib import Path

import torch

from ropewalk.launch.check.line import Line
from ropewalk.launch.check.numbers import RTOL
from ropewalk.launch.check.small_training import Measured, SmallTraining, step_of
from ropewalk.train.checkpoint import storage
from ropewalk.train.checkpoint.checkpointer import TrainState
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.model.save import gather_full_state_dict
from ropewalk.train.zero.mesh import device

WAY_OUT = (
    "do not count on a resume here; look at the disk of runs_dir first, then try "
    "train.checkpoint.async_write=false, and report it with check.json"
)


def save_and_go_on(trainer: Trainer) -> tuple[Measured, str]:
    """Collective. Save after step 1, train step 2; its numbers and the weights after it."""
    trainer.checkpointer.save(TrainState(1))
    trainer.checkpointer.finish()
    numbers = step_of(trainer, 1), weights_digest(trainer)
    if trainer.mesh.rank == 0:
        _leave_unfinished(trainer.checkpointer.path)
    return numbers


def _leave_unfinished(path: Path) -> None:
    """What a kill in the middle of the next save leaves: a part of a published one's files."""
    name = storage.checkpoint_name(1)
    unfinished = path / f"{storage.checkpoint_name(2)}.tmp"
    shutil.copytree(path / name, unfinished)
    file = max(unfinished.iterdir(), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)


def resume_line(small: SmallTraining, name: str, expected: tuple[Measured, str]) -> Line:
    """Collective. New engine, the checkpoint of `name` from the disk, step 2 again."""
    resumed = small.trainer(name)
    step = resumed.state.step
    measured = step_of(resumed, step), weights_digest(resumed)
    resumed.engine.destroy()
    (line, digest), (expected_line, expected_digest) = measured, expected
    exact = device().type == "cpu" or small.config.train.deterministic
    same = (line.loss, line.grad_norm, digest) == (
        expected_line.loss,
        expected_line.grad_norm,
        expected_digest,
    )
    apart = abs(line.loss / expected_line.loss - 1) if expected_line.loss else 0.0
    result = "alike to the bit" if same else f"not: the loss is {apart:.1e} off"
    return Line.judged(
        "save and resume",
        step == 1 and (same if exact else apart <= RTOL["cuda"]),
        f"resumed at step {step} beside a checkpoint that a kill left unfinished; loss, norm and "
        f"weights of the next step are {result}",
        "alike to the bit"
        if exact
        else f"losses within {RTOL['cuda']:.0e} (bitwise with train.deterministic=true)",
        WAY_OUT,
    )


def weights_digest(trainer: Trainer) -> str:
    """Collective. sha256 of all weights, gathered."""
    state, digest = (
        gather_full_state_dict(trainer.engine.module.model.named_parameters()),
        hashlib.sha256(),
    )
    for name in sorted(state):
        digest.update(state[name].contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()
