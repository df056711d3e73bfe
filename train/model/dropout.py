"""Dropout and noise that a base's config asks for in training: left out, and told.

A loss that depends on drawn numbers is another one at each number of ranks, and says less of the
window. The keys are set to 0 in the config before a model is built, so the exported config says
what was trained; a forward pass of the trained model then proves that nothing is drawn.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.isolation import forward_two_documents
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.model.attention_swap import swapped_attention
from ropewalk.train.model.left_out import is_above_zero

KEY = re.compile(r"dropout|pdrop|layerdrop|drop_path|jitter_(noise|eps)")
OTHER_HEADS = re.compile(r"^(classifier|summary|token_classification|audio|vision)")
"""Dropout of heads that a causal language model does not have."""
SAMPLED_ROUTING = {"phimoe": "its router chooses experts by chance (SparseMixer)"}
"""Architectures whose training draws numbers that no key turns off."""
NAME = "ropewalk_draws"


def dropouts(config: PreTrainedConfig) -> dict[str, float]:
    """The keys of a config that drop or perturb values in training, with their values above 0.

    A key of a section (DBRX's `ffn_config`) has the section's name before it.
    """
    return {f"{prefix}{key}": value for _, prefix, key, value in _active(config)}


def _active(
    config: PreTrainedConfig, prefix: str = ""
) -> Iterator[tuple[PreTrainedConfig, str, str, float]]:
    """The owner, its prefix, the key and the value of each."""
    if config.model_type in SAMPLED_ROUTING:  # its noise is a part of its routing
        return
    for key, value in vars(config).items():
        section = f"{prefix}{key}."
        if isinstance(value, PreTrainedConfig):
            yield from _active(value, section)
        elif KEY.search(key) and not OTHER_HEADS.match(key) and is_above_zero(value):
            yield config, prefix, key, float(value)


def remove_dropouts(config: PreTrainedConfig) -> PreTrainedConfig:
    """Set them to 0, in place, **before** a model is built: a model reads its config once."""
    for owner, _, key, _ in list(_active(config)):
        setattr(owner, key, 0.0)
    return config


def notes(config: PreTrainedConfig) -> list[str]:
    """A line for the user, if the config asks for any."""
    active = dropouts(config)
    if not active:
        return []
    values = ", ".join(f"{key} {value:g}" for key, value in active.items())
    return [
        f"the base's config has {values}; trained without, and 0 in the exported config: a loss "
        "that depends on drawn numbers is another one at each number of ranks"
    ]


def config_problems(config: PreTrainedConfig, name: str) -> list[str]:
    """A line for an architecture whose training draws numbers in any case."""
    if reason := SAMPLED_ROUTING.get(str(config.model_type)):
        return [
            f"model.path is {name}; its architecture {config.model_type} cannot be trained "
            f"reproducibly: {reason}; choose another model"
        ]
    return []


def prove_nothing_drawn(model: PreTrainedModel) -> None:
    """Run the model in training mode and look at the generators of random numbers.

    Collective at stage 3. Raises: ConfigError that names the module that draws a number.
    """
    drawing: list[str] = []
    with swapped_attention(model, NAME, sdpa), torch.random.fork_rng():
        model.train()
        with _watched(model, drawing):
            forward_two_documents(model.base_model, model, 0)
    if drawing:
        raise ConfigError(
            f"model.path is a {model.config.model_type}; in training its {drawing[0]} draws random "
            "numbers, so each number of ranks would train another model; turn that off in its "
            "config.json, or choose another model"
        )


@contextmanager
def _watched(model: nn.Module, drawing: list[str]) -> Iterator[None]:
    """While open, the modules whose forward pass moves a generator are added, inner ones first."""
    states: list[list[torch.Tensor]] = []

    def enter(module: nn.Module, args: object) -> None:
        states.append(_generator_states())

    def leave(name: str, module: nn.Module, args: object, output: object) -> None:
        before = states.pop()
        if any(not torch.equal(a, b) for a, b in zip(before, _generator_states(), strict=True)):
            drawing.append(name)

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(partial(leave, name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _generator_states() -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states
