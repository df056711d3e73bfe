"""The user's model, made small: the same architecture, heads, head size and layer types.

Width, vocabulary, layers and experts shrink. Heads and their size stay, so the rope plan and the
exchange of heads are those of the training; where a config ties them to the width, fewer heads in
the same ratio.

    H, K query and key/value heads
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.model.geometry import head_counts, head_dim
from ropewalk.train.weights.architecture import build_without_storage

LAYERS, WIDTH, MLP_WIDTH, RANK, EXPERTS, WINDOW = 2, 64, 96, 32, 4, 24
VOCABULARY = 260
"""The least that a byte-level tokenizer has: no base made from scratch has fewer."""
SPREAD = 6.0
"""Times the weights of a new model, so that attention depends on positions and each token's loss on
its context."""
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
WIDTHS = {
    "intermediate_size": MLP_WIDTH,
    "moe_intermediate_size": MLP_WIDTH,
    "shared_expert_intermediate_size": MLP_WIDTH,
    "q_lora_rank": RANK,
    "kv_lora_rank": RANK,
}
HEAD_SIZES = ("head_dim", "head_size")
"""Where attention modules say the size that they compute with."""
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class NoSmallModelError(RopewalkError):
    """The architecture's own code accepts none of the small configs."""


def small_config(config: PreTrainedConfig, sp_size: int, trusted: bool = False) -> PreTrainedConfig:
    """A small config of the same architecture.

    Of several ways to make it small, the first that the architecture's own code accepts with the
    heads that were meant. Raises: NoSmallModelError where it accepts none.
    """
    reasons = []
    for shrink in (_narrow, _fewer_heads, _shallow):
        small = copy.deepcopy(config)
        text = small.get_text_config(decoder=True)
        _shrink_rest(text)
        shrink(text, config, sp_size)
        try:
            small.validate()
            model = build_without_storage(small, trusted)
            _refuse_other_heads(model, small)
        except Exception as error:  # whatever an architecture's own code raises
            reasons.append(f"{type(error).__name__}: {error}")
            continue
        return small
    raise NoSmallModelError(
        f"model.path is a {config.model_type}; no small model of it could be made "
        f"({reasons[0][:200]}); the checks of its numbers are left out"
    )


def _shrink_rest(text: Any) -> None:
    """What no head depends on: layers of each type, experts, vocabulary, windows."""
    _fewer_layers(text)
    text.vocab_size = min(text.vocab_size, VOCABULARY)
    for name in SPECIAL_TOKENS:
        if getattr(text, name, None) is not None:
            setattr(text, name, 0)
    if getattr(text, "sliding_window", None):
        text.sliding_window = min(text.sliding_window, WINDOW)
    if not getattr(text, "n_group", None):  # groups of experts divide their number
        for name in EXPERT_COUNTS:
            if count := getattr(text, name, None):
                setattr(text, name, min(count, max(EXPERTS, text.num_experts_per_tok or 0)))


def _fewer_layers(text: Any) -> None:
    """Two layers, or one of each type where there are more types."""
    layers = min(text.num_hidden_layers, LAYERS)
    if types := getattr(text, "layer_types", None):
        kinds = list(dict.fromkeys(types))
        layers = min(len(types), max(layers, len(kinds)))
        text.layer_types = [*kinds, *types][:layers]
    text.num_hidden_layers = layers
    if getattr(text, "max_window_layers", None):
        text.max_window_layers = min(text.max_window_layers, layers)


def few_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """The model at its full width and vocabulary, with two layers."""
    few = copy.deepcopy(config)
    _fewer_layers(few.get_text_config(decoder=True))
    return few


def _narrow(text: Any, config: PreTrainedConfig, sp_size: int) -> None:
    """The heads as they are, beside a narrow residual stream."""
    if not getattr(text, "qk_rope_head_dim", None):
        text.head_dim = head_dim(config.get_text_config(decoder=True))
    heads = text.num_attention_heads  # which configs want to divide the width
    text.hidden_size = min(text.hidden_size, heads * max(1, WIDTH // heads))
    _narrow_mlp(text)


def _narrow_mlp(text: Any) -> None:
    for name, most in WIDTHS.items():
        if isinstance(size := getattr(text, name, None), int):
            setattr(text, name, min(size, most))


def _fewer_heads(text: Any, config: PreTrainedConfig, sp_size: int) -> None:
    """For a head size that is the width over the heads: the fewest heads in the same ratio that
    the ranks divide as they divide the model's own."""
    size = head_dim(config.get_text_config(decoder=True))
    heads, kv_heads = head_counts(config)
    for count in range(1, heads + 1):
        kept = count * kv_heads / heads
        alike = (count % sp_size == 0) == (heads % sp_size == 0)
        if kept.is_integer() and kept >= 1 and alike and heads % count == 0:
            break
    text.num_attention_heads = count
    if getattr(text, "num_key_value_heads", None):
        text.num_key_value_heads = int(kept)
    text.hidden_size = count * size
    _narrow_mlp(text)


def _shallow(text: Any, config: PreTrainedConfig, sp_size: int) -> None:
    """Full width: what else the config says may depend on it."""


def _refuse_other_heads(model: PreTrainedModel, small: PreTrainedConfig) -> None:
    """Raises: RopewalkError where a projection to keys has another width than the config says."""
    text, (_, kv_heads) = small.get_text_config(decoder=True), head_counts(small)
    if getattr(text, "qk_rope_head_dim", None):
        return
    size = head_dim(text)
    for name, module in model.named_modules():
        width = getattr(module, "out_features", None)
        if name.endswith("k_proj") and width not in (None, kv_heads * size):
            raise RopewalkError(f"{name} has {width} outputs, not {kv_heads * size}")
        own = {getattr(module, attribute, None) for attribute in HEAD_SIZES} - {None, size}
        if "attention" in type(module).__name__.lower() and own:
            raise RopewalkError(f"{name} has heads of {own}, not {size}")


def write_small_model(config: PreTrainedConfig, seed: int, folder: Path, trusted: bool) -> int:
    """Random weights in Hugging Face form, in fp32; returns their number."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trusted)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(SPREAD)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
