"""The traced step: the model, its loss, its optimizer, as a rank runs them.

S tokens of a row
"""

import time
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from ropewalk.conf.train import TrainConfig
from ropewalk.data.dataset import Row
from ropewalk.train.attention import ulysses
from ropewalk.train.attention.kernels import GPU_KERNELS
from ropewalk.train.cost import traffic
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.memory.kept_attention import KeptAttention, keepable, noted
from ropewalk.train.optim import param_groups
from ropewalk.train.router_loss import router_loss_of
from ropewalk.train.trace.accelerator import register
from ropewalk.train.trace.plan import StepPlan, StepTrace
from ropewalk.train.trace.sharded_adamw import ShardedAdamW
from ropewalk.train.trace.tracer import Reads, Tracer
from ropewalk.train.zero.engine import apply_memory_settings
from ropewalk.train.zero.fake_group import join_fake_group
from ropewalk.train.zero.mesh import Mesh

ATTENTION = "ropewalk_traced"
REQUIRED: dict[str, Any] = {"steps": 1, "optimizer": {"lr": 1e-5}}
"""Settings without a default, which change nothing that is traced."""


def trace_step(plan: StepPlan) -> StepTrace:
    """Trace two steps and return the second, which finds the optimizer's states.

    For a process of its own: it registers an accelerator with torch. Raises: HostWaitError,
    MixedDevicesError.
    """
    started, device = time.perf_counter(), register()
    train = _train_config(plan)
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    config = AutoConfig.for_model(**plan.model)
    _register_attention(config, plan.world_size, train.sp_size)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=ATTENTION)
    tracer = Tracer(device, plan.documents)
    with FakeTensorMode(allow_non_fake_inputs=True), tracer, Reads(tracer):
        step = _Step(plan, train, model, tracer)
        step.run()
        step.start_over()
        step.run()
        return step.result(time.perf_counter() - started)


class _Step:
    """The model on the traced device, and its steps."""

    def __init__(
        self, plan: StepPlan, train: TrainConfig, model: PreTrainedModel, tracer: Tracer
    ) -> None:
        self.plan, self.train, self.tracer, self.live = plan, train, tracer, tracer.live
        self.live.component = "parameters"
        model.to_empty(device=tracer.device)
        model.tie_weights()
        kept = KeptAttention() if train.memory.keep_attention else None
        apply_memory_settings(model, train, kept)
        param_groups.set_requires_grad(model, train)
        self.module = LossModel(
            model, train.loss.z_loss, router_loss_of(model, train.loss.router_aux_loss_coef)
        ).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = ShardedAdamW(trained, train.zero_stage, plan.world_size, self.live)
        self.row = _row(plan.documents, train.sp_size)

    def run(self) -> None:
        for _ in range(self.plan.micro_batches):
            self._micro_batch()
        self.live.component, self.tracer.waits_allowed = "optimizer", True
        norm = self.optimizer.gradient_norm()
        torch.stack([self.module.cross_entropy.double(), norm.double()]).tolist()
        self.optimizer.step()

    def _micro_batch(self) -> None:
        self.tracer.waits_allowed, self.live.component = False, "inputs"
        batch = to_device(self.row, self.tracer.device)
        self.live.component = "activations"
        loss = self.module(**batch, total_labels=len(self.row.labels))
        self.live.component = "backward"
        loss.backward()

    def start_over(self) -> None:
        """Forget what the first step did; what it left on the device stays."""
        tracer, live = self.tracer, self.live
        tracer.waits.clear()
        tracer.collectives.clear()
        tracer.operations = tracer.host_bytes = live.allocations = 0
        tracer.flops.products = tracer.flops.attention = 0
        live.peak = 0

    def result(self, seconds: float) -> StepTrace:
        tracer, live = self.tracer, self.live
        return StepTrace(
            parameters=sum(p.numel() for p in self.module.parameters()),
            operations=tracer.operations,
            allocations=live.allocations,
            peak_bytes=live.peak,
            peak_phase=live.peak_component,
            bytes_at_peak=live.at_peak,
            bytes_at_rest={name: size for name, size in live.now.items() if size},
            product_flops=tracer.flops.products,
            attention_flops=tracer.flops.attention,
            waits=dict(tracer.waits),
            collectives=self._collectives(),
            exchanges=[
                {"operation": operation, "bytes": size, "times": times}
                for (operation, size), times in tracer.collectives.items()
            ],
            host_bytes=tracer.host_bytes,
            seconds=seconds,
        )

    def _collectives(self) -> list[dict[str, Any]]:
        layout = traffic.ParallelLayout(
            dp_size=self.plan.world_size // self.train.sp_size,
            sp_size=self.train.sp_size,
            zero_stage=self.train.zero_stage,
            accumulation_steps=self.plan.micro_batches,
            tokens=sum(self.plan.documents),
            document_ends=(0, *accumulate(self.plan.documents)),
            element_bytes=2 if self.train.precision == "bf16" else 4,
            checkpointing=self.train.memory.activation_checkpointing,
        )
        sizes = traffic.model_sizes(self.module.model)
        return [vars(collective) for collective in traffic.collectives(sizes, layout)]


def _train_config(plan: StepPlan) -> TrainConfig:
    typed = OmegaConf.merge(OmegaConf.structured(TrainConfig), REQUIRED, plan.train)
    train: Any = OmegaConf.to_object(typed)
    return train  # type: ignore[no-any-return]


def _register_attention(config: PreTrainedConfig, world_size: int, sp_size: int) -> None:
    """torch's varlen kernel, as `attention.backend.register` would register it on a GPU."""
    kernel = noted(GPU_KERNELS["varlen"].function)
    if sp_size > 1:
        join_fake_group(world_size)
        wrapper = ulysses.kernel_wrapper(config, Mesh(0, world_size, sp_size))
        assert wrapper is not None
        kernel = wrapper(kernel)
    AttentionInterface.register(ATTENTION, keepable(kernel))


def _row(documents: tuple[int, ...], sp_size: int = 1) -> Row:
    """The first rank's slice of a row of these documents whose every label counts."""
    ends = np.array([0, *accumulate(documents)], dtype=np.int32)
    positions = np.concatenate([np.arange(n) for n in documents])[: ends[-1] // sp_size]
    zeros = np.zeros(len(positions), dtype=np.int64)
    return Row(zeros, zeros, positions, ends)
