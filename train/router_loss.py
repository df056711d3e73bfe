"""The load-balancing loss of a mixture of experts, over the whole global batch.

It is transformers' `load_balancing_loss_func` (Switch Transformer, arXiv 2101.03961, equations 4 to
6): E times the sum over the experts of f x P, where f is how often an expert was chosen and P is
its mean probability, over the tokens of all layers. A product of means is no sum over micro-batches
or ranks, but f has no gradient: with f of the global batch, the rest is a sum over tokens.

    S tokens of this rank's row   E experts   k experts of a token   N tokens x layers of the batch
"""

import inspect
import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.isolation import forward_two_documents
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.model.attention_swap import swapped_attention

FUNCTION = "load_balancing_loss_func"
PARAMETERS = ["gate_logits", "num_experts", "top_k", "attention_mask"]
COEFFICIENTS = (
    "router_aux_loss_coef",
    "aux_loss_coef",
)  # the model's attribute; JetMoe has its own
NAME = "ropewalk_router_loss"
SETTING = "train.loss.router_aux_loss_coef"


@dataclass(frozen=True)
class Routing:
    """How the tokens of a batch were routed."""

    counts: torch.Tensor
    """(E,) fp32: how often each expert was chosen, over tokens and layers."""
    tokens: torch.Tensor
    """() fp32: N."""

    def __add__(self, other: "Routing") -> "Routing":
        return Routing(self.counts + other.counts, self.tokens + other.tokens)

    def over_all_ranks(self) -> "Routing":
        """Collective."""
        if not dist.is_initialized():
            return self
        total = torch.cat([self.counts, self.tokens[None]])
        dist.all_reduce(total)
        return Routing(total[:-1], total[-1])


@dataclass(frozen=True)
class RouterLoss:
    """The loss with its coefficient, for a model of `num_experts`, `top_k` of them a token."""

    coefficient: float
    num_experts: int
    top_k: int

    def route(
        self, router_logits: tuple[torch.Tensor, ...], is_text: torch.Tensor
    ) -> tuple[Routing, torch.Tensor]:
        """The routing of a row, and the sum of its experts' probabilities (E,) fp32.

        router_logits (S, E) of each layer, is_text (S,) bool: False on padding.
        """
        device = router_logits[0].device
        weights = is_text.float()
        counts, probabilities = torch.zeros(2, self.num_experts, device=device).unbind()
        for logits in router_logits:
            routing_weights = torch.softmax(logits, dim=-1)
            chosen = torch.topk(routing_weights.detach(), self.top_k, dim=-1).indices
            counts = counts.index_add(0, chosen.flatten(), weights.repeat_interleave(self.top_k))
            probabilities = probabilities + weights @ routing_weights.float()
        return Routing(counts, weights.sum() * len(router_logits)), probabilities

    def objective(self, probabilities: torch.Tensor, batch: Routing) -> torch.Tensor:
        """A row's part of the loss times its coefficient: a sum over rows and ranks.

        probabilities (E,) of the row, `batch` the routing of the global batch -> ().
        """
        tokens = batch.tokens.clamp(min=1)
        product = torch.dot(batch.counts / tokens, probabilities / tokens)
        return self.coefficient * self.num_experts * product


def router_loss_of(model: PreTrainedModel, setting: float | None) -> RouterLoss | None:
    """What is asked for: by the setting, or where it is unset by the config; None: no loss.

    Raises: ConfigError when the model has no such loss.
    """
    if not is_asked_for(model.config, setting):
        return None
    for problem in problems(model.config, type(model), setting):
        raise ConfigError(problem)
    coefficient = _coefficient(model) if setting is None else setting
    if not coefficient:
        return None
    sizes: Any = model
    return RouterLoss(coefficient, int(sizes.num_experts), int(sizes.num_experts_per_tok))


def is_asked_for(config: PreTrainedConfig, setting: float | None) -> bool:
    if setting is not None:
        return setting > 0
    return bool(getattr(config, "output_router_logits", False))


def _coefficient(model: PreTrainedModel) -> float:
    names = [name for name in COEFFICIENTS if hasattr(model, name)]
    return float(getattr(model, names[0]) or 0) if names else 0.0


def config_problems(config: PreTrainedConfig, setting: float | None) -> list[str]:
    """A line where the loss is asked for and cannot be computed, from the config alone.

    Empty for code that comes with the model: its class is known once it is loaded.
    """
    mapping: Any = AutoModelForCausalLM._model_mapping
    if type(config) not in mapping or not is_asked_for(config, setting):
        return []
    return problems(config, mapping[type(config)], setting)


def problems(config: PreTrainedConfig, model_class: type, setting: float | None) -> list[str]:
    """A line where the class has no load-balancing loss, or one of another form."""
    function = getattr(sys.modules[model_class.__module__], FUNCTION, None)
    asked = "model.path has output_router_logits true"
    if setting is not None:
        asked = f"{SETTING} is {setting:g}"
    if function is None:
        # transformers hands the router's logits out and computes nothing of them
        if setting is None:
            return []
        return [
            f"{asked}; transformers computes no load-balancing loss for {config.model_type}; unset "
            "it"
        ]
    if list(inspect.signature(function).parameters) != PARAMETERS:
        return [
            f"{asked}; the load-balancing loss of {config.model_type} has a form of its own, which "
            f"is not added; set {SETTING}=0 to train without it"
        ]
    return []


def can_record(model: PreTrainedModel) -> bool:
    """Whether the body takes `output_router_logits`, and gives the router's logits."""
    return "router_logits" in (getattr(model.base_model, "_can_record_outputs", None) or {})


def prove(model: PreTrainedModel, loss: RouterLoss) -> None:
    """Hold the loss against the model's own `aux_loss`, on nine tokens. Collective at stage 3.

    Raises: ConfigError when they differ.
    """
    with swapped_attention(model, NAME, sdpa):
        output = forward_two_documents(model, model, 0, output_router_logits=True)
    expected = float(output.aux_loss)
    every = torch.ones(output.router_logits[0].shape[0], device=output.router_logits[0].device)
    routing, probabilities = loss.route(output.router_logits, every)
    actual = float(loss.objective(probabilities, routing)) / loss.coefficient
    if not abs(actual - expected) <= 1e-4 * abs(expected):
        raise ConfigError(
            f"model.path is a {model.config.model_type}; its own load-balancing loss is "
            f"{expected:.6g} where the trainer's is {actual:.6g}; set {SETTING}=0 to train without "
            "it"
        )
