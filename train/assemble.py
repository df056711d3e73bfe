""""""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.conf.artifacts.manifest import MARK, read_json
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.train.adapters import quantize
from ropewalk.train.attention import ulysses
from ropewalk.train.base import Base, base_config, resolve_base
from ropewalk.train.model import build as model_build
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero import engine
from ropewalk.train.zero.config import deepspeed_config
from ropewalk.train.zero.device import device
from ropewalk.train.zero.mesh import Mesh


def content_of(folder: Path) -> Any:
    """What the stage says that this training is made of."""
    return read_json(folder / MARK)["content"]


def refuse_another_tokenizer(base: Base, folder: Path) -> None:
    """The plan's ids mean the base's words. Raises: ConfigError when the tokenizer that wrote them is another than the base's own."""
    if base.path is None or not (Path(base.path) / "tokenizer.json").is_file():
        return
    wrote, own = (
        tokenizers.load(path, trust_remote_code=base.trust_remote_code)
        for path in (str(folder), base.path)
    )
    if tokenizers.encoding_fingerprint(wrote) != tokenizers.encoding_fingerprint(own):
        raise ConfigError(
            f"model.path is {base.name}; the data was tokenised by another tokenizer than its own ({len(wrote)} words, not {len(own)}); "
            "run ropewalk data with this model"
        )


def build_model(
    config: Config, cache: Path, plan: RopePlan, mesh: Mesh, accumulated: int
) -> model_build.PreTrainedModel:
    base = resolve_base(config, cache)
    exchange = ulysses.kernel_wrapper(base_config(base), mesh)
    computes = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    fewer_bits = quantize.load_kwargs(config.train.lora, computes, device())
    built = model_build.build(
        base,
        plan,
        dtype=computes
        if fewer_bits
        else torch.float32,  # what is not packed takes no more than it will
        seed=config.seed,
        attention_kernel=config.train.attention.kernel,
        wrap=exchange,
        computes=computes,
        s2_group=config.train.attention.s2_group,
        loading=fewer_bits,
        settings=deepspeed_config(config.train, accumulated),
    )
    if not fewer_bits:  # packed weights are in a dtype of their own
        engine.cast_weights(built, computes)
    return built.to(device())  # type: ignore[arg-type]


def describe_run(
    config: Config, ramp: list[tuple[int, int]], step: int, sequences: int, attention: str
) -> str:
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
        f"{config.train.precision}, attention {attention}"
        + (f"; resumed at step {step}" if step else "")
    )
