"""Which parameters are trained, which of them decay, and at what learning rate: by their names. Pure but for `choose`.

A name is as in the Hugging Face model (`model.layers.0.mlp.up_proj.weight`); LoRA's own tensors have a part `lora_...`.
"""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.train import TrainConfig
from ropewalk.train.adapters.names import is_adapter
from ropewalk.train.zero.params import full_shape

GROUPS = ("embeddings", "attention", "mlp", "norms", "head", "other")
HEAD = ("lm_head", "embed_out", "output_layer")
EMBEDDINGS = ("embed", "wte", "wpe")
NORMS = ("norm", "ln_", "layernorm")
ATTENTION, MLP = ("attn", "attention"), ("mlp", "feed_forward", "ffn", "moe", "expert", "router")
_LAYER = re.compile(r"\.(\d+)\.")


def group_of(name: str) -> str:
    """Which of GROUPS; LoRA's tensors belong to what they change, a head that is tied to the embeddings to them."""
    parts = [
        p for p in name.split(".lora_")[0].split(".") if p not in ("weight", "bias", "base_layer")
    ]
    module = parts[-1]
    if module.startswith(HEAD):
        return "head"
    if module.startswith(NORMS) or module.endswith(NORMS):
        return "norms"
    for group, words in (("attention", ATTENTION), ("mlp", MLP), ("embeddings", EMBEDDINGS)):
        if any(word in part for part in parts for word in words):
            return group
    return "other"


def layer_of(name: str) -> int | None:
    """The number of the layer that a parameter belongs to, from 0; None outside the layers."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def trains(name: str, train: TrainConfig) -> bool:
    """Whether a parameter is trained: LoRA's own, of the others all or what is named; `freeze` has the last word."""
    if any(re.search(pattern, name) for pattern in train.optimizer.freeze):
        return False
    named = any(re.search(pattern, name) for pattern in train.optimizer.trainable)
    if is_adapter(name) or named or not train.lora.rank:
        return is_adapter(name) or named or not train.optimizer.trainable
    group = group_of(name)
    return (train.lora.embeddings and group == "embeddings") or (
        train.lora.norms and group == "norms"
    )


def decays(name: str, dimensions: int, train: TrainConfig) -> bool:
    """Matrices decay; norms, biases and other vectors do not, nor embeddings if so set."""
    if dimensions < 2 or name.endswith("bias") or group_of(name) == "norms":
        return False
    return train.optimizer.decay_embeddings or group_of(name) != "embeddings"


def lr_scale(name: str, layers: int, train: TrainConfig) -> float:
    """A parameter's learning rate over that of the step: its group's scale x `layer_lr_decay` once for each layer from the top to it.

    As BEiT's code (arXiv 2106.08254): not at all for the head and the last norm, once for the last of `layers` layers, `layers` + 1
    times for the embeddings.
    """
    group = next((g.lr_scale for g in train.optimizer.lr_groups if re.search(g.pattern, name)), 1.0)
    layer = -1 if group_of(name) == "embeddings" else layer_of(name)
    above = 0 if layer is None else layers - layer
    return float(group * train.optimizer.layer_lr_decay**above)


def check(names: Iterable[str], train: TrainConfig) -> None:
    """Raises: ConfigError for each pattern that matches no parameter, and when nothing is left to train."""
    names = list(names)
    problems = [
        f"{at} is {pattern}; it must match the name of a parameter; {suggest_names(pattern, names)}"
        for at, pattern in train.optimizer.patterns().items()
        if not any(re.search(pattern, name) for name in names)
    ]
    if not problems and train.steps and not any(trains(name, train) for name in names):
        problems = [
            f"train.optimizer.freeze is {train.optimizer.freeze}; something must be left to train; remove a pattern"
        ]
    if problems:
        raise ConfigError("\n".join(problems))


def suggest_names(word: str, names: Iterable[str]) -> str:
    """A way out for a word that matches no name: the parts of names that look like it, or all of them."""
    parts = list(
        dict.fromkeys(part for name in names for part in name.split(".") if not part.isdigit())
    )
    close = [
        part
        for piece in re.findall(r"\w+", word)
        for part in difflib.get_close_matches(piece, parts, 3)
    ]
    return (
        f"did you mean {' or '.join(dict.fromkeys(close))}?"
        if close
        else f"names are made of {', '.join(parts)}"
    )


def set_requires_grad(model: nn.Module, train: TrainConfig) -> None:
    """Let what is trained require a gradient, and nothing else. Raises: ConfigError."""
    named = dict(model.named_parameters())
    check(named, train)
    for name, parameter in named.items():
        parameter.requires_grad_(trains(name, train))


def parameter_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Groups for the optimizer by what decays and by learning rate: `scale` is what a step's rate is multiplied by."""
    named = dict(model.named_parameters())
    layers = 1 + max((layer for layer in map(layer_of, named) if layer is not None), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if not parameter.requires_grad:
            continue
        decay = (
            train.optimizer.weight_decay if decays(name, len(full_shape(parameter)), train) else 0.0
        )
        groups.setdefault((lr_scale(name, layers, train), decay), []).append(parameter)
    return [
        {"params": each, "weight_decay": decay, "scale": scale}
        for (scale, decay), each in groups.items()
    ]


def describe_trainable(model: nn.Module) -> str:
    """How many parameters are trained, in one line."""
    counts = [(math.prod(full_shape(p)), p.requires_grad) for p in model.parameters()]
    whole, trained = sum(n for n, _ in counts), sum(n for n, on in counts if on)
    return f"{trained:,} of {whole:,} parameters are trained ({100 * trained / max(1, whole):.2f}%)"
