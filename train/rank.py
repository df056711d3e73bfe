"""One rank, from the frozen config to the exported model; no Hydra here."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers.utils import logging as transformers_logging

from ropewalk.conf import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.manifest import MARK, alone, read_json, write_json
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataFolders, Feed
from ropewalk.train import (
    attention,
    carry,
    engine,
    failure,
    groups,
    loop,
    metrics,
    mixed_rope,
    model,
    pieces,
    places,
    seeds,
    ulysses,
    validate,
    whole,
)
from ropewalk.train.adapters import attach, quantize, save
from ropewalk.train.checkpoint.keeper import Checkpoints
from ropewalk.train.mesh import Mesh
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan


def train(run_dir: Path) -> None:
    """Train into `RUN_DIR/train.tmp`; the stage publishes it."""
    config = check.load(run_dir / "config.yaml")
    metrics.refuse_missing(config)
    if config.train.deterministic:
        seeds.fix_order()
    engine.start_distributed()
    cache, folder = Path(config.cache_dir).expanduser(), run_dir / "train.tmp"
    data = DataFolders.of(run_dir, cache)
    plan = RopePlan.read(run_dir / "rope.json")
    mesh = Mesh.of(config.train.sp_size, config.train.zero_hpz_size)
    accumulated = engine.accumulation(config, mesh.dp_size)
    refuse_another_tokenizer(model.starting(config, cache), data.tokenizer)
    built = build(config, cache, plan, mesh, accumulated)
    model.check_vocabulary(built, len(tokenizers.load(str(data.tokenizer))))
    with_adapter = attach.attach(built, config.train.lora, config.seed)
    live = engine.make(built, config, accumulated, mesh)
    proof.restore(built, plan)
    say(proof.prove(built, plan, "after the engine's casts"))
    if pieces.are(built):
        attention.prove(built)  # it could not run before
    if config.train.mixed_windows:
        live.module.rope = mixed_rope.install(built, plan, mesh.sp_rank)
    validation = validate.of(live, config, data, mesh)
    checkpoints = Checkpoints(live, folder / "checkpoints", config.train, mesh, content_of(folder))
    progress = checkpoints.load()
    if carried := carry.take(config, checkpoints, progress):
        say(carried)
    sequences = data.sequences()
    ramp = engine.ramp(config, mesh.dp_size)
    say(describe(config, ramp, progress.step, len(sequences), attention.told(str(built.config._attn_implementation))))
    feed = Feed(
        sequences,
        seed=config.seed,
        micro=config.train.micro_batch_size,
        accumulated=accumulated,
        dp_rank=mesh.dp_rank,
        dp_size=mesh.dp_size,
        sp_rank=mesh.sp_rank,
        sp_size=mesh.sp_size,
        balanced=config.train.balance,
        ramp=ramp[1:],
        start=places.read_before(config, data.plan, cache),
    )
    say("; ".join(filter(None, [with_adapter, groups.told(built)])))
    if with_adapter:
        attach.fully_trained(built)
    seen = metrics.Seen(live, config, mesh, feed, list(data.stores))
    progress = loop.train(live, config, feed, folder, mesh, checkpoints, progress, seen, validation)
    carry.leave(config, checkpoints, progress)
    checkpoints.save_trained(progress)
    whole.export(live, folder / "model")
    if with_adapter:
        save.save(built, plan, model.starting(config, cache).name, folder / "adapter")
    if dist.get_rank() == 0:
        told = {**loop.events(progress), **validate.summary(metrics.lines(folder))}
        write_json(
            folder / "done.json", {"steps": config.train.steps, "checkpoints_failed": checkpoints.failed, **told}
        )


def content_of(folder: Path) -> Any:
    """What the stage says that this training is made of."""
    return read_json(folder / MARK)["content"]


def refuse_another_tokenizer(base: model.Base, folder: Path) -> None:
    """The plan's ids mean the base's words. Raises: ConfigError when the tokenizer that wrote them is another than the base's own."""
    if base.path is None or not (Path(base.path) / "tokenizer.json").is_file():
        return
    wrote, own = (tokenizers.load(path, trust_remote_code=base.trust_remote_code) for path in (str(folder), base.path))
    if tokenizers.identity(wrote) != tokenizers.identity(own):
        raise ConfigError(
            f"model.path is {base.name}; the data was tokenised by another tokenizer than its own ({len(wrote)} words, not {len(own)}); "
            "run ropewalk data with this model"
        )


def build(config: Config, cache: Path, plan: RopePlan, mesh: Mesh, accumulated: int) -> model.PreTrainedModel:
    base = model.starting(config, cache)
    exchange = ulysses.around(model.base_config(base), mesh)
    computes = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    fewer_bits = quantize.loading(config.train.lora, computes, engine.device())
    built = model.build(
        base,
        plan,
        dtype=computes if fewer_bits else torch.float32,  # what is not packed takes no more than it will
        seed=config.seed,
        attention_kernel=config.train.attention,
        wrap=exchange,
        computes=computes,
        s2_group=config.train.s2_group,
        loading=fewer_bits,
        settings=engine.settings(config.train, accumulated),
    )
    if not fewer_bits:  # packed weights are in a dtype of their own
        engine.round_weights(built, computes)
    return built.to(engine.device())  # type: ignore[arg-type]


def describe(config: Config, ramp: list[tuple[int, int]], step: int, sequences: int, attention: str) -> str:
    """What was derived, in one block, once."""
    sp_size = config.train.sp_size
    who = f"{dist.get_world_size() // sp_size} {'rank(s)' if sp_size == 1 else f'group(s) of {sp_size} ranks'}"
    batches = ", ".join(
        f"{f'from step {first + 1} ' if first else ''}{tokens:,} tokens = {who} x {accumulated} accumulated x "
        f"{config.train.micro_batch_size} x {config.data.seq_len:,}"
        for (_, first, tokens), (_, accumulated) in zip(config.batches(), ramp, strict=True)
    )
    return (
        f"train: {config.train.steps} steps x {batches}; {config.tokens:,} tokens of {sequences:,} sequences, "
        f"{config.tokens / max(1, sequences * config.data.seq_len):.2f} epochs; ZeRO {config.train.zero_stage}, "
        f"{config.train.precision}, attention {attention}" + (f"; resumed at step {step}" if step else "")
    )


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def run(run_dir: Path) -> None:
    """What the process does: `train`, its errors as a line that names the rank and an exit code."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  rank 0 speaks; errors go to stderr
    try:
        with nullcontext() if os.environ.get("RANK", "0") != "0" else alone(run_dir.resolve(), "train.tmp"):
            train(run_dir)
    except Exception as error:
        sys.exit(failure.tell(error, run_dir / "train.tmp"))
