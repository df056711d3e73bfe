"""One rank, from the frozen config to the exported model; no Hydra here."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch.distributed as dist
from transformers.utils import logging as transformers_logging

from ropewalk.conf import check
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.manifest import write_json
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BatchLoader, DataArtifacts
from ropewalk.train import attention, metrics
from ropewalk.train.adapters import attach, save
from ropewalk.train.assemble import build_model, content_of, describe_run, refuse_another_tokenizer
from ropewalk.train.base import resolve_base
from ropewalk.train.checkpoint import previous_phase
from ropewalk.train.checkpoint.checkpointer import Checkpointer
from ropewalk.train.checkpoint.previous_phase import sequences_consumed
from ropewalk.train.launcher import failure
from ropewalk.train.loop import seeds, trainer
from ropewalk.train.loop import validation as loop_validation
from ropewalk.train.model import build as model_build
from ropewalk.train.model.save import save_pretrained
from ropewalk.train.optim import param_groups
from ropewalk.train.rope import mixed_windows, proof
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero import engine, params
from ropewalk.train.zero.batch import accumulation_steps, batch_ramp
from ropewalk.train.zero.device import start_distributed
from ropewalk.train.zero.mesh import Mesh


def train(run_dir: Path) -> None:
    """Train into `RUN_DIR/train.tmp`; the stage publishes it."""
    config = check.load(run_dir / "config.yaml")
    metrics.refuse_missing_tensorboard(config)
    if config.train.deterministic:
        seeds.use_deterministic_kernels()
    start_distributed()
    cache, folder = Path(config.cache_dir).expanduser(), run_dir / "train.tmp"
    data = DataArtifacts.of(run_dir, cache)
    plan = RopePlan.read(run_dir / "rope.json")
    mesh = Mesh.of(config.train.sp_size, config.train.memory.zero_hpz_size)
    accumulated = accumulation_steps(config, mesh.dp_size)
    refuse_another_tokenizer(resolve_base(config, cache), data.tokenizer)
    built = build_model(config, cache, plan, mesh, accumulated)
    model_build.check_vocabulary(built, len(tokenizers.load(str(data.tokenizer))))
    with_adapter = attach.attach(built, config.train.lora, config.seed)
    live = engine.build_engine(built, config, accumulated, mesh)
    proof.restore(built, plan)
    print_rank0(proof.prove(built, plan, "after the engine's casts"))
    if params.is_partitioned(built):
        attention.prove_documents_isolated(built)  # it could not run before
    if config.train.mixed_windows:
        live.module.rope = mixed_windows.install(built, plan, mesh.sp_rank)
    validation = loop_validation.build_validation(live, config, data, mesh)
    checkpoints = Checkpointer(live, folder / "checkpoints", config.train, mesh, content_of(folder))
    progress = checkpoints.load()
    if carried := previous_phase.load_optimizer_state(config, checkpoints, progress):
        print_rank0(carried)
    sequences = data.sequences()
    ramp = batch_ramp(config, mesh.dp_size)
    print_rank0(
        describe_run(
            config,
            ramp,
            progress.step,
            len(sequences),
            attention.describe(str(built.config._attn_implementation)),
        )
    )
    feed = BatchLoader(
        sequences,
        mesh,
        seed=config.seed,
        micro_batch_size=config.train.micro_batch_size,
        batch_ramp=ramp,
        balanced=config.train.balance_attention_work,
        start=sequences_consumed(config, data.plan, cache),
    )
    print_rank0("; ".join(filter(None, [with_adapter, param_groups.describe_trainable(built)])))
    if with_adapter:
        attach.fully_trained_modules(built)
    seen = metrics.StepMetrics(live, config, mesh, feed, list(data.stores))
    progress = trainer.train(
        live, config, feed, folder, mesh, checkpoints, progress, seen, validation
    )
    previous_phase.save_for_next_phase(config, checkpoints, progress)
    checkpoints.save_final(progress)
    save_pretrained(live, folder / "model")
    if with_adapter:
        save.save_adapter(built, plan, resolve_base(config, cache).name, folder / "adapter")
    if dist.get_rank() == 0:
        told = {
            **trainer.skip_counts(progress),
            **loop_validation.summary(metrics.read_metrics(folder)),
        }
        write_json(
            folder / "done.json",
            {"steps": config.train.steps, "checkpoints_failed": checkpoints.failed_saves, **told},
        )


def print_rank0(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def run(run_dir: Path) -> None:
    """What the process does: `train`, its errors as a line that names the rank and an exit code."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  rank 0 speaks; errors go to stderr
    try:
        with (
            nullcontext()
            if os.environ.get("RANK", "0") != "0"
            else lock_or_refuse(run_dir.resolve(), "train.tmp")
        ):
            train(run_dir)
    except Exception as error:
        sys.exit(failure.report(error, run_dir / "train.tmp"))
