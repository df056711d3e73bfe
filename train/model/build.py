"""Where a base lies, and models built from it with a rope plan applied first. Eval reads models through here."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.attention.backend import KernelWrapper
from ropewalk.train.base import Base, base_config
from ropewalk.train.model.init import random_init
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero import params


def build(
    base: Base,
    plan: RopePlan,
    *,
    dtype: torch.dtype,
    seed: int = 0,
    attention_kernel: str = "auto",
    when: str = "after construction",
    wrap: KernelWrapper | None = None,
    computes: torch.dtype | None = None,
    s2_group: int | None = None,
    loading: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """The base with `plan` applied to its config before construction, proved live; `wrap` goes around its attention kernel.

    `computes`: what an engine will cast it to, for which the kernel is chosen; unset: `dtype`. `loading`: more words for
    `from_pretrained`, of weights of fewer bits. `settings`: DeepSpeed's, under whose stage 3 parameters are made in pieces; such a model
    runs in its engine only, where the rest of the proof is. Raises: ConfigError, ProofError.
    """
    config = rope_plan.apply(plan, base_config(base))
    if base.scratch is not None:
        if loading:
            raise ConfigError(
                "model.scratch is set; weights of fewer bits are those of a trained base; set model.path"
            )
        model = random_init(config, dtype, seed, settings)
    else:
        with params.zero3_init(settings):
            model = AutoModelForCausalLM.from_pretrained(
                str(base.path),
                revision=base.revision,
                trust_remote_code=base.trust_remote_code,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                **(loading or {}),
            )
    return _ready(model, plan, attention_kernel, when, wrap, computes, s2_group)


def load_trained(
    folder: Path, plan: RopePlan, *, dtype: torch.dtype | str, attention_kernel: str = "auto"
) -> PreTrainedModel:
    """A model that the train stage exported, proved against the plan as it stands in its own files. `dtype` auto: its own."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
    return _ready(model, plan, attention_kernel, "after reload")


def _ready(
    model: PreTrainedModel,
    plan: RopePlan,
    kernel: str,
    when: str,
    wrap: KernelWrapper | None = None,
    computes: torch.dtype | None = None,
    s2_group: int | None = None,
) -> PreTrainedModel:
    """Proved, and with its attention kernel: the one asked for, or in fp32 outside training, which only sdpa takes, `auto`'s."""
    proof.restore(model, plan) if model.dtype != torch.float32 else None
    print(proof.prove(model, plan, when, layers=not params.is_partitioned(model)))
    attention.refuse_unsupported(model.config, model.config.model_type, s2_group)
    refuse_unknown_heads(model)
    if not params.is_partitioned(model):
        attention.prove_documents_isolated(model)
    kernel = kernel if computes else attention.kernel_for_dtype(kernel, model.dtype)
    needs = attention.requirements_of(model, computes or model.dtype)
    model.set_attn_implementation(attention.register(kernel, wrap, needs, s2_group))
    return model


def rescale(model: PreTrainedModel, plan: RopePlan) -> None:
    """Put another plan into a live model, in place: its rotary modules are made anew from its config, and proved.

    Not for decoupled heads (DeepSeek), whose softmax scale is set when the model is built. Raises: ProofError.
    """
    config = rope_plan.apply(plan, model.config)
    for name, module in proof.rotary_modules(model).items():
        kind: Any = type(module)
        model.set_submodule(name, kind(config=config).to(model.device))
    proof.prove(model, plan, "after another plan was put in")


def refuse_unknown_heads(model: PreTrainedModel) -> None:
    """The chunked loss computes logits as hidden x head; what a model does beyond that is refused by name."""
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise ConfigError(
                f"model.path has {key} {getattr(model.config, key)}; its logits are not handled yet; choose another model"
            )
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError(
            "model.path has a bias on its output embedding; not handled yet; choose another model"
        )


def check_vocabulary(model: PreTrainedModel, vocab_size: int) -> None:
    """Raises: ConfigError when the tokenizer has more words than the model has embeddings."""
    weight: Any = model.get_input_embeddings().weight
    rows = params.full_shape(weight)[0]
    if vocab_size > rows:
        raise ConfigError(
            f"model.path has {rows} embeddings and a tokenizer of {vocab_size} words; they must fit; mend the model folder"
        )
