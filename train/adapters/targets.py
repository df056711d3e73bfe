"""Which linear layers get an adapter. Names are those of the Hugging Face model's modules."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import ATTENTION, LINEAR
from ropewalk.train.optim.param_groups import suggest_names


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Every linear layer but the head.

    The chunked loss multiplies by the head's weight itself and would ignore an adapter there.
    """
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    ]


def attention_layers(model: PreTrainedModel) -> list[str]:
    """The linear layers inside attention modules, which are known by their class name."""
    modules = model.named_modules()
    prefixes = tuple(f"{name}." for name, m in modules if "Attention" in type(m).__name__)
    return [name for name in linear_layers(model) if name.startswith(prefixes)]


def select_targets(model: PreTrainedModel, targets: Sequence[str]) -> list[str]:
    """The linear layers that `targets` match, in the model's order.

    A target is `attention`, `all-linear`, or the end of a name such as `q_proj` or
    `layers.0.self_attn.q_proj`.

    Raises: ConfigError with a line for each target that matches no layer, which lists candidates.
    """
    layers = linear_layers(model)
    groups = {LINEAR: layers, ATTENTION: attention_layers(model)}
    matches = {t: groups.get(t) or [n for n in layers if _has_suffix(n, t)] for t in targets}
    unmatched = [target for target, names in matches.items() if not names]
    if unmatched:
        suffixes = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in layers))
        raise ConfigError(
            "\n".join(
                f"train.lora.targets is {target}; it must match a linear layer of the model that "
                f"is not its head; {suggest_names(target, suffixes)}; or {ATTENTION}, {LINEAR}"
                for target in unmatched
            )
        )
    selected = {name for names in matches.values() for name in names}
    return [name for name in layers if name in selected]


def shortest_suffixes(names: Sequence[str], model: PreTrainedModel) -> list[str]:
    """The fewest suffixes that match `names` and no other module, as peft matches them.

    `q_proj` stands for the layer of that name in every block.
    """
    modules = [name for name, _ in model.named_modules()]
    for parts in (1, 2):
        suffixes = sorted({".".join(name.split(".")[-parts:]) for name in names})
        if {n for n in modules if any(_has_suffix(n, s) for s in suffixes)} == set(names):
            return suffixes
    return sorted(names)


def _has_suffix(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")
