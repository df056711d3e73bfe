"""Which parameters are trained, which of them decay, and at what learning rate: by their names.

Names are those of the Hugging Face model (`model.layers.0.mlp.up_proj.weight`); LoRA's tensors
have a part `lora_...`.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.train import TrainConfig
from ropewalk.train.zero.params import full_shape

GROUPS = ("embeddings", "attention", "mlp", "norms", "head", "other")
HEAD = ("lm_head", "embed_out", "output_layer")
EMBEDDINGS = ("embed", "wte", "wpe")
NORMS = ("norm", "ln_", "layernorm")
ATTENTION, MLP = ("attn", "attention"), ("mlp", "feed_forward", "ffn", "moe", "expert", "router")
_LAYER = re.compile(r"\.(\d+)\.")


def group_of(name: str) -> str:
    """One of GROUPS. LoRA's tensors belong to the group of the layer they adapt."""
    parts = name.split(".lora_")[0].split(".")
    parts = [part for part in parts if part not in ("weight", "bias", "base_layer")]
    module = parts[-1]
    if module.startswith(HEAD):
        return "head"
    if module.startswith(NORMS) or module.endswith(NORMS):
        return "norms"
    for group, keywords in (("attention", ATTENTION), ("mlp", MLP), ("embeddings", EMBEDDINGS)):
        if any(keyword in part for part in parts for keyword in keywords):
            return group
    return "other"


def layer_of(name: str) -> int | None:
    """A parameter's layer, from 0; None outside the layers."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def is_adapter(name: str) -> bool:
    """Whether the parameter `name` is LoRA's own."""
    return any(part.startswith("lora_") for part in name.split("."))


def is_trainable(name: str, train: TrainConfig) -> bool:
    """Whether a parameter is trained; `freeze` overrules `trainable` and LoRA."""
    if any(re.search(pattern, name) for pattern in train.optimizer.freeze):
        return False
    if is_adapter(name) or any(re.search(pattern, name) for pattern in train.optimizer.trainable):
        return True
    if not train.lora.rank:
        return not train.optimizer.trainable
    trained = {"embeddings": train.lora.embeddings, "norms": train.lora.norms}
    return trained.get(group_of(name), False)


def decays(name: str, dimensions: int, train: TrainConfig) -> bool:
    """Matrices decay; norms, biases and other vectors do not. Embeddings: `decay_embeddings`."""
    if dimensions < 2 or name.endswith("bias") or group_of(name) == "norms":
        return False
    return train.optimizer.decay_embeddings or group_of(name) != "embeddings"


def lr_scale(name: str, layers: int, train: TrainConfig) -> float:
    """The factor on the step's learning rate: the scale of `lr_groups` x `layer_lr_decay` ** depth.

    Depth is counted from the top as in BEiT's code (arXiv 2106.08254): 0 for the head and the last
    norm, 1 for the last of `layers` layers, `layers` + 1 for the embeddings.
    """
    group = next((g.lr_scale for g in train.optimizer.lr_groups if re.search(g.pattern, name)), 1.0)
    layer = -1 if group_of(name) == "embeddings" else layer_of(name)
    depth = 0 if layer is None else layers - layer
    return float(group * train.optimizer.layer_lr_decay**depth)


def refuse_unmatched_patterns(names: Iterable[str], train: TrainConfig) -> None:
    """Raises: ConfigError for each pattern without a parameter, and when nothing is trained."""
    names = list(names)
    problems = [
        f"{key} is {pattern}; it must match the name of a parameter; "
        f"{suggest_names(pattern, names)}"
        for key, pattern in train.optimizer.patterns().items()
        if not any(re.search(pattern, name) for name in names)
    ]
    if not problems and train.steps and not any(is_trainable(name, train) for name in names):
        problems = [
            f"train.optimizer.freeze is {train.optimizer.freeze}; something must be left to train; "
            "remove a pattern"
        ]
    if problems:
        raise ConfigError("\n".join(problems))


def suggest_names(pattern: str, names: Iterable[str]) -> str:
    """A way out for a pattern without a match: the parts of names that look like it, or all."""
    parts = [p for p in dict.fromkeys(".".join(names).split(".")) if p and not p.isdigit()]
    tokens = re.findall(r"\w+", pattern)
    close = [part for token in tokens for part in difflib.get_close_matches(token, parts, 3)]
    if close:
        return f"did you mean {' or '.join(dict.fromkeys(close))}?"
    return f"names are made of {', '.join(parts)}"


def set_requires_grad(model: nn.Module, train: TrainConfig) -> None:
    """Trained parameters require a gradient, others do not. Raises: ConfigError."""
    parameters = dict(model.named_parameters())
    refuse_unmatched_patterns(parameters, train)
    for name, parameter in parameters.items():
        parameter.requires_grad_(is_trainable(name, train))


def parameter_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Torch's parameter groups, by decay and `scale`, which multiplies the step's rate."""
    parameters = dict(model.named_parameters())
    layers = 1 + max((n for n in map(layer_of, parameters) if n is not None), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        has_decay = decays(name, len(full_shape(parameter)), train)
        decay = train.optimizer.weight_decay if has_decay else 0.0
        groups.setdefault((lr_scale(name, layers, train), decay), []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "scale": scale}
        for (scale, decay), params in groups.items()
    ]


def describe_trainable(model: nn.Module) -> str:
    """How many parameters are trained, in one line."""
    total = sum(full_shape(p).numel() for p in model.parameters())
    trained = sum(full_shape(p).numel() for p in model.parameters() if p.requires_grad)
    return f"{trained:,} of {total:,} parameters are trained ({100 * trained / max(1, total):.2f}%)"
