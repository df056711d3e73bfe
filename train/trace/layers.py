"""The model that is traced: all of it without storage, for its sizes, and few layers that run."""

from collections import defaultdict
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ropewalk.conf.train import TrainConfig
from ropewalk.train.adapters import attach
from ropewalk.train.cost import traffic
from ropewalk.train.loss import chunk_tokens
from ropewalk.train.loss_model import LossModel
from ropewalk.train.memory import attention_budget
from ropewalk.train.memory.kept_attention import ATTENTION_OPS, EXCHANGE_OPS
from ropewalk.train.model.geometry import of_depth
from ropewalk.train.optim import param_groups
from ropewalk.train.trace.events import Parameter
from ropewalk.train.trace.live_bytes import LiveBytes
from ropewalk.train.trace.plan import StepPlan
from ropewalk.train.trace.unroll import OFFLOADING, USUAL, Depth

ATTENTION = "ropewalk_traced"


class Subject:
    """A plan's model and settings."""

    def __init__(self, plan: StepPlan, train: TrainConfig) -> None:
        self.plan, self.train = plan, train
        self.config = AutoConfig.for_model(**plan.model)
        self.layers: int = self.config.num_hidden_layers
        self.dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
        # a name that a model may have; the step registers the kernel under it
        AttentionInterface.register(ATTENTION, _no_attention)

    def model(self, layers: int) -> PreTrainedModel:
        """The model of `layers` layers on the meta device, with its adapter."""
        config = AutoConfig.for_model(**of_depth(self.plan.model, layers))
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=self.dtype, attn_implementation=ATTENTION
            )
            # DoRA and the other initialisations read values; shapes do not change
            lora = replace(self.train.lora, dora=False, init="default")
            attach.attach(model, lora, seed=0)
        param_groups.set_requires_grad(model, self.train)
        return model

    @cached_property
    def full(self) -> PreTrainedModel:
        return self.model(self.layers)

    @cached_property
    def parameters(self) -> dict[Parameter, torch.nn.Parameter]:
        """Of all layers, without storage."""
        return {self.key(name): p for name, p in self.full.named_parameters()}

    @staticmethod
    def key(name: str) -> Parameter:
        layer = param_groups.layer_of(name)
        return layer, name if layer is None else name.replace(f".{layer}.", ".", 1)

    @property
    def depth(self) -> Depth:
        """The layers to trace."""
        return OFFLOADING if self.train.memory.offload_activations else USUAL

    @cached_property
    def repeats(self) -> bool:
        """Whether a few layers stand for all: those are of one kind, and states are arithmetic."""
        if self.plan.every_layer or not self.train.zero_stage:
            return False
        if self.layers <= self.depth.layers:
            return False
        shapes: dict[int, set[tuple[str, torch.Size]]] = defaultdict(set)
        for (layer, name), parameter in self.parameters.items():
            if layer is not None:
                shapes[layer].add((name, parameter.shape))
        kinds = getattr(self.config, "layer_types", None) or [""]
        alike = all(shape == shapes[0] for shape in shapes.values())
        return alike and len(shapes) == self.layers and len(set(kinds)) == 1

    @cached_property
    def sizes(self) -> traffic.ModelSizes:
        return traffic.model_sizes(self.full)

    @cached_property
    def layout(self) -> traffic.ParallelLayout:
        train, plan = self.train, self.plan
        return traffic.ParallelLayout(
            dp_size=plan.world_size // train.sp_size,
            sp_size=train.sp_size,
            zero_stage=train.zero_stage,
            accumulation_steps=plan.micro_batches,
            tokens=sum(plan.documents),
            document_ends=(0, *accumulate(plan.documents)),
            element_bytes=self.dtype.itemsize,
            checkpointing=train.memory.activation_checkpointing,
            loss_chunk=chunk_tokens(self.sizes.vocabulary, "cuda"),
        )

    @cached_property
    def kept_ops(self) -> frozenset[str]:
        """What checkpointed layers keep of their attention."""
        wanted, plan = self.train.memory.keep_attention, self.plan
        if wanted is False or not self.train.memory.activation_checkpointing:
            return frozenset()
        if not plan.device_bytes:
            return ATTENTION_OPS if wanted else frozenset()
        micro_step = replace(self.layout, accumulation_steps=1)
        memory = plan.device_bytes, plan.host_bytes
        return attention_budget.decide(self.train, self.sizes, micro_step, *memory).kept_ops

    @property
    def keeps_exchange(self) -> bool:
        return self.kept_ops >= EXCHANGE_OPS


def _no_attention(*_: Any, **__: Any) -> None:
    raise NotImplementedError("a model without storage does not attend")


def mark_layers(module: LossModel, live: LiveBytes) -> None:
    """Let `live` know where each decoder layer begins, forward and backward, and the loss."""
    decoders = [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    for number, layer in enumerate(decoders):
        layer.register_forward_pre_hook(_entered(live, number))
        layer.register_forward_hook(_left(live, number))
    module.token_loss.register_forward_pre_hook(_loss_entered(live))
    module.token_loss.register_forward_hook(_loss_left(live))


def _entered(live: LiveBytes, number: int) -> Any:
    def hook(*_: Any) -> None:
        if live.is_forward:
            live.mark("forward", number)

    return hook


def _left(live: LiveBytes, number: int) -> Any:
    """The gradient of a layer's output is there: its backward pass begins."""

    def hook(_: Any, __: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if live.is_forward and tensor.requires_grad:
            tensor.register_hook(lambda _: live.mark("backward", number))

    return hook


def _loss_entered(live: LiveBytes) -> Any:
    def hook(_: Any, args: Any) -> None:
        live.mark("loss")
        live.component = "loss"
        if args[0].requires_grad:
            args[0].register_hook(lambda _: setattr(live, "component", "layer"))

    return hook


def _loss_left(live: LiveBytes) -> Any:
    def hook(_: Any, __: Any, output: torch.Tensor) -> None:
        live.component = "activations"
        if output.requires_grad:
            output.register_hook(lambda _: setattr(live, "component", "loss"))

    return hook
