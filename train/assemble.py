"""Where a run's parts are put together: from its folder to a `Trainer`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ropewalk.conf import check
from ropewalk.conf.artifacts.manifest import CONTENT_FILE, read_json
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BatchLoader, DataArtifacts
from ropewalk.train import attention, router_loss
from ropewalk.train.adapters import attach, quantize
from ropewalk.train.attention import ulysses
from ropewalk.train.base import Base, base_config, resolve_base, weight_bytes
from ropewalk.train.checkpoint import previous_phase
from ropewalk.train.checkpoint.checkpointer import Checkpointer
from ropewalk.train.cost.kernel_choice import faster_kernel
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.loop.validation import build_validation
from ropewalk.train.loop.watchdog import checkpoint_s, phase, read_s
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.model.build import build, check_vocabulary
from ropewalk.train.model.dropout import prove_nothing_drawn
from ropewalk.train.optim import param_groups
from ropewalk.train.rope import mixed_windows, proof
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero.config import accumulation_steps, batch_ramp, deepspeed_config
from ropewalk.train.zero.engine import Engine, build_engine, cast_weights
from ropewalk.train.zero.mesh import Mesh, device
from ropewalk.train.zero.params import is_partitioned


@dataclass(frozen=True)
class RunInputs:
    """What a training starts from: the frozen config and the earlier stages' results."""

    config: Config
    folder: Path
    """train.tmp of the run."""
    base: Base
    plan: RopePlan
    data: DataArtifacts
    cache: Path

    @classmethod
    def read(cls, run_dir: Path) -> "RunInputs":
        """Raises: ConfigError when the base is not found."""
        config = check.load(run_dir / "config.yaml")
        cache = Path(config.cache_dir).expanduser()
        return cls(
            config,
            run_dir / "train.tmp",
            resolve_base(config, cache),
            RopePlan.read(run_dir / "rope.json"),
            DataArtifacts.of(run_dir, cache),
            cache,
        )


def assemble(inputs: RunInputs) -> Trainer:
    """Collective. One rank's trainer, at the step of the newest checkpoint.

    Raises: ConfigError, DataError, ProofError, RopewalkError.
    """
    config = inputs.config
    mesh = Mesh.of(config.train.sp_size, config.train.memory.zero_hpz_size)
    refuse_other_tokenizer(inputs.base, inputs.data.tokenizer)
    with phase("loading the model", read_s(weight_bytes(inputs.base))):
        model = build_model(inputs, mesh)
    with phase("proving the attention kernel"):  # flash-attn 4 is compiled at its first call
        log.info(attention.prove_kernel(model, compute_dtype(config), device(), mesh.sp_size))
    adapter = attach.attach(model, config.train.lora, config.seed)
    engine = wrap_in_engine(model, inputs, mesh)
    validation = build_validation(engine, config, inputs.data, mesh)
    content = read_json(inputs.folder / CONTENT_FILE)["content"]
    checkpointer = Checkpointer(engine, inputs.folder / "checkpoints", config.train, mesh, content)
    with phase("loading the checkpoint", checkpoint_s(model, mesh.world_size)):
        state = checkpointer.load()
        if message := previous_phase.load_optimizer_state(config, checkpointer, state):
            log.info(message)
    loader = build_loader(inputs, mesh)
    if advice := faster_kernel(model, compute_dtype(config), config.data.seq_len):
        log.warning(advice)
    kernel = attention.describe(str(model.config._attn_implementation))
    if mesh.sp_size > 1:
        kernel += f", {ulysses.describe(model.config, mesh.sp_size)}"
    log.info(describe_run(config, mesh, loader, kernel, state.step))
    log.info("; ".join(filter(None, [adapter, param_groups.describe_trainable(model)])))
    if adapter:
        attach.fully_trained_modules(model)
    metrics = StepMetrics(engine, config, mesh, loader, list(inputs.data.stores))
    return Trainer(
        engine, config, loader, mesh, inputs.folder, checkpointer, state, metrics, validation
    )


def refuse_other_tokenizer(base: Base, folder: Path) -> None:
    """Raises: ConfigError when the data was tokenised by another tokenizer than the base's own."""
    if base.path is None or not (Path(base.path) / "tokenizer.json").is_file():
        return
    of_data, of_base = (
        tokenizers.load(path, trust_remote_code=base.trust_remote_code)
        for path in (str(folder), base.path)
    )
    words, own = (tokenizers.vocab_size(tokenizer) for tokenizer in (of_data, of_base))
    if tokenizers.encoding_fingerprint(of_data) != tokenizers.encoding_fingerprint(of_base):
        raise ConfigError(
            f"model.path is {base.name}; the data was tokenised by another tokenizer than its own "
            f"({words} words, not {own}); run ropewalk data with this model"
        )


def compute_dtype(config: Config) -> torch.dtype:
    """The dtype that the model computes in."""
    return torch.bfloat16 if config.train.precision == "bf16" else torch.float32


def build_model(inputs: RunInputs, mesh: Mesh) -> PreTrainedModel:
    """The rescaled base on this rank's device, proved, in the dtype that the engine computes in."""
    train, base = inputs.config.train, inputs.base
    dtype = compute_dtype(inputs.config)
    quantization = quantize.load_kwargs(train.lora, dtype, device())
    model = build(
        base,
        inputs.plan,
        dtype=dtype,
        seed=inputs.config.seed,
        attention_kernel=train.attention.kernel,
        kernel_wrapper=ulysses.kernel_wrapper(base_config(base), mesh),
        compute_dtype=dtype,
        s2_group=train.attention.s2_group,
        load_kwargs=quantization,
        deepspeed_config=deepspeed_config(train, accumulation_steps(inputs.config, mesh.dp_size)),
        device=device(),
    )
    if not quantization:  # packed weights have a dtype of their own
        cast_weights(model, dtype)
    tokenizer = tokenizers.load(
        str(inputs.data.tokenizer), trust_remote_code=base.trust_remote_code
    )
    check_vocabulary(model, tokenizers.vocab_size(tokenizer))
    return model.to(device())  # type: ignore[arg-type]


def wrap_in_engine(model: PreTrainedModel, inputs: RunInputs, mesh: Mesh) -> Engine:
    """The engine around `model`, proved as the engine left it. Raises: ConfigError, ProofError."""
    config, plan = inputs.config, inputs.plan
    with phase("building the engine"):
        engine = build_engine(model, config, accumulation_steps(config, mesh.dp_size), mesh)
    proof.restore(model, plan)
    with phase("proving the model"):
        log.info(proof.prove(model, plan, "after the engine's casts"))
        if is_partitioned(model):  # only now do partitioned weights compute
            attention.prove_documents_isolated(model)
        prove_nothing_drawn(model)
        if (loss := engine.module.router_loss) is not None:
            router_loss.prove(model, loss)
    if config.train.mixed_windows:
        engine.module.rope = mixed_windows.install(model, plan, mesh.sp_rank)
    return engine


def build_loader(inputs: RunInputs, mesh: Mesh) -> BatchLoader:
    config, data = inputs.config, inputs.data
    return BatchLoader(
        data.sequences(),
        mesh,
        seed=config.seed,
        micro_batch_size=config.train.micro_batch_size,
        batch_ramp=batch_ramp(config, mesh.dp_size),
        balanced=config.train.balance_attention_work,
        start=previous_phase.sequences_consumed(config, data.plan, inputs.cache),
    )


def describe_run(
    config: Config, mesh: Mesh, loader: BatchLoader, kernel: str, first_step: int
) -> str:
    """The derived sizes of a training, in one line."""
    train, seq_len, sequences = config.train, config.data.seq_len, len(loader.sequences)
    groups = "rank(s)" if mesh.sp_size == 1 else f"group(s) of {mesh.sp_size} ranks"
    batches = ", ".join(
        f"{f'from step {first + 1} ' if first else ''}{tokens:,} tokens = {mesh.dp_size} {groups} "
        f"x {micro_batches} accumulated x {train.micro_batch_size} x {seq_len:,}"
        for (_, first, tokens), (_, micro_batches) in zip(
            config.batches(), loader.batch_ramp, strict=True
        )
    )
    epochs = config.tokens / max(1, sequences * seq_len)
    return (
        f"train: {train.steps} steps x {batches}; {config.tokens:,} tokens of {sequences:,} "
        f"sequences, {epochs:.2f} epochs; ZeRO {train.zero_stage}, {train.precision}, "
        f"attention {kernel}" + (f"; resumed at step {first_step}" if first_step else "")
    )
