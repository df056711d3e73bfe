"""Which linear layers an adapter goes to. Names are those of the Hugging Face model's modules."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import ATTENTION, LINEAR
from ropewalk.train.optim.param_groups import suggest_names


def linear(model: Any) -> list[str]:
    """Every linear layer but the head: the chunked loss multiplies by the head's weight itself and would not see an adapter there."""
    head = model.get_output_embeddings()
    return [
        n for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head
    ]


def attention(model: Any) -> list[str]:
    """The linear layers inside attention, known by its class's name."""
    inside = tuple(
        f"{name}." for name, m in model.named_modules() if "Attention" in type(m).__name__
    )
    return [name for name in linear(model) if name.startswith(inside)]


def choose(model: Any, words: Sequence[str], at: str = "train.lora.targets") -> list[str]:
    """The linear layers that `words` name: attention, all-linear, or ends of names (q_proj, layers.0.self_attn.q_proj).

    Raises: ConfigError with a line for each word that matches none, which lists what could.
    """
    there = linear(model)
    meant = {LINEAR: there, ATTENTION: attention(model)}
    found = {word: meant.get(word) or [n for n in there if _ends(n, word)] for word in words}
    empty = [word for word, names in found.items() if not names]
    if empty:
        ends = dict.fromkeys(name.rsplit(".", 1)[-1] for name in there)
        raise ConfigError(
            "\n".join(
                f"{at} is {word}; it must match a linear layer of the model that is not its head; {suggest_names(word, ends)}; or {ATTENTION}, {LINEAR}"
                for word in empty
            )
        )
    chosen = {name for names in found.values() for name in names}
    return [name for name in there if name in chosen]


def short(names: Sequence[str], model: Any) -> list[str]:
    """The fewest ends of names that mean `names` and no other module, as peft matches them: q_proj for every layer's."""
    every = [name for name, _ in model.named_modules()]
    for parts in (1, 2):
        ends = sorted({".".join(name.split(".")[-parts:]) for name in names})
        if {n for n in every if any(_ends(n, end) for end in ends)} == set(names):
            return ends
    return sorted(names)


def _ends(name: str, word: str) -> bool:
    return name == word or name.endswith(f".{word}")
