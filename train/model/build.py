"""Models with a rope plan applied before construction, proved live.

Eval loads models through here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log
from ropewalk.train import attention, ties
from ropewalk.train.attention.backend import KernelWrapper
from ropewalk.train.base import Base, base_config
from ropewalk.train.model.dropout import remove_dropouts
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan
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
) -> PreTrainedModel:
    """The base with `plan` applied to its config before construction, proved live.

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
    if base.scratch is not None:
        model = _random_init(config, dtype, seed, deepspeed_config)
    else:
        if line := ties.untie_contradicted(config, base):
            log.info(line)
        with params.zero3_init(deepspeed_config):
            model = load_pretrained(
                str(base.path),
                f"model.path is {base.name}",
                revision=base.revision,
                trust_remote_code=base.trust_remote_code,
                config=config,
                dtype=dtype,
                **(load_kwargs or {}),
            )
    return _prove_and_set_kernel(
        model, plan, attention_kernel, when, kernel_wrapper, compute_dtype, s2_group
    )


def _random_init(
    config: PreTrainedConfig, dtype: torch.dtype, seed: int, deepspeed_config: dict[str, Any] | None
) -> PreTrainedModel:
    """Weights drawn from `seed`: the same for every stage and number of ranks.

    Under stage 3 they are partitioned: rank 0 draws them and sends them to the others.
    """
    torch.manual_seed(seed)
    with params.zero3_init(deepspeed_config):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if not params.is_partitioned(model):
        return model
    torch.manual_seed(seed)
    state_dict = None
    if dist.get_rank() == 0:
        state_dict = AutoModelForCausalLM.from_config(config, dtype=dtype).state_dict()
    for name, parameter in model.named_parameters():
        with params.gathered(parameter, modifier_rank=0):
            if state_dict is not None:
                parameter.data.copy_(state_dict[name])
    return model


def load_trained(
    folder: Path,
    plan: RopePlan,
    *,
    dtype: torch.dtype | str,
    attention_kernel: str = "auto",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A model that the train stage exported, proved against the plan in its own files.

    `dtype` "auto": the files' own. `trust_remote_code`: run the code that came with the base.
    """
    model = load_pretrained(
        str(folder),
        f"the model in {folder.parent.name}",
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
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
