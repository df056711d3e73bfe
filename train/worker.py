"""One rank, from the frozen config to the exported model; no Hydra here."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from transformers.utils import logging as transformers_logging

from ropewalk.conf.artifacts.disk import disk_error
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.train import metrics
from ropewalk.train.adapters import save as adapter_save
from ropewalk.train.assemble import RunInputs, assemble
from ropewalk.train.checkpoint.previous_phase import save_for_next_phase
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.environment import remove_sent
from ropewalk.train.launcher.numa import bind_to_device
from ropewalk.train.launcher.process import ignore_library_warnings
from ropewalk.train.launcher.stop import stop_if_requested
from ropewalk.train.loop import validation
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.loop.trainer import Trainer, skip_counts
from ropewalk.train.loop.watchdog import Watchdog, checkpoint_s, phase, read_s
from ropewalk.train.model.save import save_pretrained
from ropewalk.train.results import write_done
from ropewalk.train.zero import rendezvous
from ropewalk.train.zero.mesh import end_distributed, start_process_group
from ropewalk.train.zero.params import model_bytes


def train(run_dir: Path) -> None:
    """Train into `RUN_DIR/train.tmp`; the stage publishes it. Watched from the first meeting of all
    ranks to the last."""
    inputs = RunInputs.read(run_dir)
    launcher = inputs.config.train.launcher
    metrics.refuse_missing_trackers(inputs.config)
    if inputs.config.train.deterministic:
        use_deterministic_kernels()
    if launcher.bind_numa and torch.cuda.is_available():
        bind_to_device(int(os.environ["LOCAL_RANK"]))
    store = rendezvous.join(launcher.start_timeout_s)
    if os.environ["RANK"] == "0":
        remove_sent()
        metrics.import_dashboards(inputs.config)
    with Watchdog(inputs.folder, store, launcher.hang_timeout_s):
        with phase("joining the process group"):
            start_process_group(store)
        stop_if_requested(inputs.folder, "the model was loaded")
        trainer = assemble(inputs)
        if trainer.state.step < inputs.config.train.steps:
            stop_if_requested(inputs.folder, f"step {trainer.state.step + 1}")
        trainer.train()
        save(trainer, inputs)
        with phase("leaving the process group"):
            end_distributed()


def save(trainer: Trainer, inputs: RunInputs) -> None:
    """Collective. The last checkpoint, the model, its adapter, and the stage's result."""
    config, checkpointer, state = trainer.config, trainer.checkpointer, trainer.state
    model = trainer.engine.module.model
    seconds = read_s(model_bytes(model))
    with phase("writing the last checkpoint", checkpoint_s(model, trainer.mesh.world_size)):
        save_for_next_phase(config, checkpointer, state)
        checkpointer.save_final(state)
    with phase("exporting the model", seconds):
        save_pretrained(model, inputs.folder / "model")
    if config.train.lora.rank:
        adapter = inputs.folder / "adapter"
        with phase("exporting the adapter", seconds):
            adapter_save.save_adapter(model, inputs.plan, inputs.base.name, adapter)
    with phase("hashing the results", seconds):
        if dist.get_rank() == 0:
            result = {
                "steps": config.train.steps,
                "checkpoints_failed": checkpointer.failed_saves,
                **skip_counts(state),
                **validation.summary(metrics.read_metrics(inputs.folder)),
            }
            write_done(inputs.folder, result)


def run(run_dir: Path) -> None:
    """The process of one rank. An error becomes a message that names the rank, and an exit code."""
    ignore_library_warnings()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    is_rank0 = os.environ.get("RANK", "0") == "0"
    try:
        with lock_or_refuse(run_dir.resolve(), "train.tmp") if is_rank0 else nullcontext():
            train(run_dir)
    except Exception as error:
        sys.exit(failure.report(disk_error(error) or error, run_dir / "train.tmp"))
