"""Models with a rope plan applied before construction, proved live.

Eval loads models through here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log
from ropewalk.train import attention, ties
from ropewalk.train.attention.backend import KernelWrapper
from ropewalk.train.base import Base, base_config
from ropewalk.train.cost.flops import ModelCost as ForwardCost
from ropewalk.train.cost.flops import model_cost
from ropewalk.train.model import random_weights
from ropewalk.train.model.dropout import remove_dropouts
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights import one_reader
from ropewalk.train.weights.loading import load_pretrained
from ropewalk.train.zero import params


def build(
    base: Base,
    plan: RopePlan,
    *,
    dtype: torch.dtype,
    seed: int = 0,
    attention_kernel: str = "auto",
    when: str = "after construction",
    kernel_wrapper: KernelWrapper | None = None,
    compute_dtype: torch.dtype | None = None,
    s2_group: int | None = None,
    load_kwargs: dict[str, Any] | None = None,
    deepspeed_config: dict[str, Any] | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """The base with `plan` applied to its config before construction, proved live. Collective.

    Below ZeRO 3 the first rank reads the base's files, and each rank receives the weights on
    `device` (the CPU without one). `dtype`: of the weights; files are read in it, and random ones
    are drawn in fp32 before.
    `kernel_wrapper`: put around the attention kernel. `compute_dtype`: the dtype that the engine
    will cast to; the kernel is chosen for it. `load_kwargs`: extra arguments of `from_pretrained`
    (4-bit loading). `deepspeed_config`: at stage 3 the parameters are partitioned; such a model
    computes only in its engine, and is proved in full there.

    Raises: ConfigError, ProofError.
    """
    config = remove_dropouts(rope_plan.apply(plan, base_config(base)))
    if base.scratch is not None and load_kwargs:
        raise ConfigError(
            "model.scratch is set; only a trained base has weights to quantise; set model.path"
        )
    zero3 = params.is_zero3(deepspeed_config)
    if base.scratch is not None or base.drawn is not None:
        read = partial(random_weights.draw, config, dtype, seed, deepspeed_config)
    else:
        if line := one_reader.on_reader(partial(ties.untie_contradicted, config, base)):
            config.tie_word_embeddings = False
            log.info(line)
        read = partial(_read, base, config, dtype, deepspeed_config, load_kwargs or {})
    if zero3 or load_kwargs:  # each rank loads its part, or packs what it reads
        model = read()
    else:
        target = device or torch.device("cpu")
        model = one_reader.load(read, config, target, base.trust_remote_code)
    return _prove_and_set_kernel(
        model, plan, attention_kernel, when, kernel_wrapper, compute_dtype, s2_group
    )


def _read(
    base: Base,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    deepspeed_config: dict[str, Any] | None,
    load_kwargs: dict[str, Any],
) -> PreTrainedModel:
    with params.zero3_init(deepspeed_config):
        return load_pretrained(
            str(base.path),
            f"model.path is {base.name}",
            revision=base.revision,
            trust_remote_code=base.trust_remote_code,
            config=config,
            dtype=dtype,
            **load_kwargs,
        )


def load_trained(
    folder: Path,
    plan: RopePlan,
    *,
    dtype: torch.dtype | str,
    attention_kernel: str = "auto",
    trust_remote_code: bool = False,
    deepspeed_config: dict[str, Any] | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """A model that the train stage exported, proved against the plan in its own files. Collective.

    `dtype` "auto": the files' own. `trust_remote_code`: run the code that came with the base.
    `deepspeed_config` and `device`: as for `build`.
    """
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)

    def read() -> PreTrainedModel:
        with params.zero3_init(deepspeed_config):
            return load_pretrained(
                str(folder),
                f"the model in {folder.parent.name}",
                dtype=dtype,
                trust_remote_code=trust_remote_code,
            )

    if params.is_zero3(deepspeed_config):
        model = read()
    else:
        model = one_reader.load(read, config, device or torch.device("cpu"), trust_remote_code)
    return _prove_and_set_kernel(model, plan, attention_kernel, "after reload")


def _prove_and_set_kernel(
    model: PreTrainedModel,
    plan: RopePlan,
    kernel: str,
    when: str,
    wrapper: KernelWrapper | None = None,
    compute_dtype: torch.dtype | None = None,
    s2_group: int | None = None,
) -> PreTrainedModel:
    """Outside training (no `compute_dtype`) fp32 takes the kernel of `auto`, because only sdpa
    computes in it.
    """
    if model.dtype != torch.float32:
        proof.restore(model, plan)
    log.info(proof.prove(model, plan, when, layers=not params.is_partitioned(model)))
    attention.refuse_unsupported(model.config, model.config.model_type, s2_group)
    refuse_unknown_heads(model)
    if not params.is_partitioned(model):
        attention.prove_documents_isolated(model)
    kernel = kernel if compute_dtype else attention.kernel_for_dtype(kernel, model.dtype)
    needs = attention.requirements_of(model, compute_dtype or model.dtype)
    model.set_attn_implementation(attention.register(kernel, wrapper, needs, s2_group))
    return model


def prove_in_engine(model: PreTrainedModel, plan: RopePlan, when: str) -> None:
    """What waits until the parameters of a partitioned model can compute. Collective.

    Raises: ProofError, ConfigError.
    """
    proof.restore(model, plan)
    log.info(proof.prove(model, plan, when))
    attention.prove_documents_isolated(model)


def parameter_count(base: Base) -> int:
    """Parameters of the base, tied ones once. Raises: ConfigError."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            base_config(base), trust_remote_code=base.trust_remote_code
        )
    return sum(parameter.numel() for parameter in model.parameters())


def forward_cost(base: Base) -> ForwardCost:
    """What a forward pass of the base costs, by its config alone. Raises: ConfigError."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            base_config(base), trust_remote_code=base.trust_remote_code
        )
    return model_cost(model)


def rescale(model: PreTrainedModel, plan: RopePlan) -> None:
    """Put another plan into a live model: build its rotary modules from it, and prove them.

    Not for decoupled heads (DeepSeek), whose softmax scale is set at construction.
    Raises: ProofError.
    """
    config = rope_plan.apply(plan, model.config)
    for name, module in proof.rotary_modules(model).items():
        rotary_class: Any = type(module)
        model.set_submodule(name, rotary_class(config=config).to(model.device))
    proof.prove(model, plan, "after another plan was put in")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout while open; the model's mode is restored at the end."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


HEAD_BIAS = "model.path has a bias on its output embedding; not handled yet; choose another model"
BIASED_HEADS = ("phi",)
"""Architectures whose output embedding has a bias."""


def head_problems(config: PreTrainedConfig) -> list[str]:
    """The chunked loss assumes that logits are hidden states x head: a line for each key."""
    lines = [
        f"model.path has {key} {value}; its logits are not handled yet; choose another model"
        for key in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        if (value := getattr(config, key, None)) not in (None, 1)
    ]
    return [*lines, HEAD_BIAS] if config.model_type in BIASED_HEADS else lines


def refuse_unknown_heads(model: PreTrainedModel) -> None:
    """Raises: ConfigError when logits are not hidden states x head."""
    for problem in head_problems(model.config):
        raise ConfigError(problem)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError(HEAD_BIAS)


def check_vocabulary(model: PreTrainedModel, vocab_size: int) -> None:
    """Raises: ConfigError when the tokenizer has more words than the model has embeddings."""
    rows = params.full_shape(model.get_input_embeddings().weight)[0]  # type: ignore[arg-type]
    if vocab_size > rows:
        raise ConfigError(
            f"model.path has {rows} embeddings and a tokenizer of {vocab_size} words; they must "
            "fit; correct the model folder"
        )
