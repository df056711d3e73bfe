"""The traced step: the model, its loss, its optimizer, as a rank runs them.

S tokens of a row
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, PreTrainedModel

from ropewalk.conf.train import TrainConfig
from ropewalk.data.dataset import Row
from ropewalk.train import loss as losses
from ropewalk.train.attention import ulysses
from ropewalk.train.attention.kernels import GPU_KERNELS
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.memory import offloaded_activations
from ropewalk.train.memory.kept_attention import KeptAttention, keepable, noted
from ropewalk.train.router_loss import router_loss_of
from ropewalk.train.trace import result
from ropewalk.train.trace.accelerator import QueuedCopies, register
from ropewalk.train.trace.events import Event
from ropewalk.train.trace.layers import ATTENTION, Subject, mark_layers
from ropewalk.train.trace.live_bytes import LiveBytes
from ropewalk.train.trace.plan import StepPlan, StepTrace
from ropewalk.train.trace.tracer import Reads, Tracer
from ropewalk.train.trace.unroll import UnequalLayersError, unroll
from ropewalk.train.trace.whole_adamw import WholeAdamW
from ropewalk.train.zero.engine import apply_memory_settings
from ropewalk.train.zero.fake_group import join_fake_group
from ropewalk.train.zero.mesh import Mesh

REQUIRED: dict[str, Any] = {"steps": 1, "optimizer": {"lr": 1e-5}}
"""Settings without a default, which change nothing that is traced."""


def trace_step(plan: StepPlan) -> StepTrace:
    """Trace two steps and return the second, which finds what the first left.

    For a process of its own: it registers an accelerator with torch. Raises: HostWaitError,
    MixedDevicesError; ConfigError for settings that the engine refuses.
    """
    started, device = time.perf_counter(), register()
    subject = Subject(plan, train_config(plan))
    layers = subject.depth.layers if subject.repeats else subject.layers
    traced, tracer = _events(subject, device, layers)
    if layers < subject.layers:
        try:
            traced = unroll(traced, subject.depth, subject.layers)
        except UnequalLayersError:
            layers = subject.layers
            traced, tracer = _events(subject, device, layers)
    seconds = time.perf_counter() - started
    return result.of(subject, traced, tracer, layers, seconds)


def _events(subject: Subject, device: torch.device, layers: int) -> tuple[list[Event], Tracer]:
    """The events of two steps of a model of `layers` layers."""
    plan = subject.plan
    tracer = Tracer(device, plan.documents)
    _register_attention(subject, tracer.live)
    offloaded_activations.copy_stream = QueuedCopies
    losses.add_product = _summed_in_place(tracer.live, losses.add_product)
    try:
        model = subject.model(layers)
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        # autograd's own thread for a device registered from Python may abort the process
        with torch.autograd.set_multithreading_enabled(False), fake, tracer, Reads(tracer):
            step = _Step(subject, model, tracer)
            step.run()
            tracer.waits.clear()
            step.run()
            return list(tracer.live.events), tracer
    finally:
        losses.add_product = losses.add_product.__wrapped__  # type: ignore[attr-defined]


class _Step:
    """The model on the traced device, and its steps."""

    def __init__(self, subject: Subject, model: PreTrainedModel, tracer: Tracer) -> None:
        self.plan, self.train, self.tracer, self.live = (
            subject.plan,
            subject.train,
            tracer,
            tracer.live,
        )
        tracer.tokens = subject.layout.rank_tokens
        tracer.vocabulary = subject.sizes.vocabulary
        sizes = {size for parameter in model.parameters() for size in parameter.shape}
        # heads that ranks share are a part of a weight's size
        tracer.widths = sizes | {size // self.train.sp_size for size in sizes}
        self.live.component = "parameters"
        with self.live.uncounted() if self.train.zero_stage else nullcontext():
            model.to_empty(device=tracer.device)
            model.tie_weights()
        kept_ops = subject.kept_ops
        kept = KeptAttention(kept_ops, is_required=False) if kept_ops else None
        apply_memory_settings(model, self.train, kept)
        self.module = LossModel(
            model,
            self.train.loss.z_loss,
            router_loss_of(model, self.train.loss.router_aux_loss_coef),
        ).train()
        self.whole: WholeAdamW | None = None
        if self.train.zero_stage:
            self._leave_out_states(subject, model)
        else:
            trained = [p for p in model.parameters() if p.requires_grad]
            self.whole = WholeAdamW(trained, self.live)
        mark_layers(self.module, self.live)
        self.row = _row(self.plan.documents, self.train.sp_size)

    def _leave_out_states(self, subject: Subject, model: PreTrainedModel) -> None:
        """Weights and states are the engine's, and a gradient too once it is complete."""
        for name, parameter in model.named_parameters():
            self.live.ignore(parameter)
            key = subject.key(name)
            if self.train.zero_stage == 3:
                self.tracer.weights[parameter.untyped_storage()._cdata] = key
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_taken_by_engine(self.live, key))

    def run(self) -> None:
        self.live.mark("step")
        for _ in range(self.plan.micro_batches):
            self._micro_batch()
        self.live.component, self.tracer.waits_allowed = "optimizer", True
        self.live.mark("optimizer")
        norm = torch.zeros((), device=self.tracer.device)
        if self.whole is not None:
            norm = self.whole.gradient_norm()
        torch.stack([self.module.cross_entropy.double(), norm.double()]).tolist()
        if self.whole is not None:
            self.whole.step()
        self.live.mark("end")

    def _micro_batch(self) -> None:
        self.tracer.waits_allowed, self.live.component = False, "inputs"
        self.live.mark("batch")
        batch = to_device(self.row, self.tracer.device)
        self.live.component, self.live.is_forward = "activations", True
        loss = self.module(**batch, total_labels=len(self.row.labels))
        self.live.component, self.live.is_forward = "layer", False
        loss.backward()


def _taken_by_engine(live: LiveBytes, key: Any) -> Callable[[torch.Tensor], None]:
    def take(parameter: torch.Tensor) -> None:
        live.gradient(key)
        parameter.grad = None

    return take


def train_config(plan: StepPlan) -> TrainConfig:
    typed = OmegaConf.merge(OmegaConf.structured(TrainConfig), REQUIRED, plan.train)
    train: Any = OmegaConf.to_object(typed)
    return train  # type: ignore[no-any-return]


def _register_attention(subject: Subject, live: LiveBytes) -> None:
    """torch's varlen kernel, as `attention.backend.register` would register it on a GPU."""
    kernel = _labelled(live, "attention", noted(_without_sinks(GPU_KERNELS["varlen"].function)))
    world_size, sp_size = subject.plan.world_size, subject.train.sp_size
    if sp_size > 1:
        join_fake_group(world_size)
        wrapper = ulysses.kernel_wrapper(subject.config, Mesh(0, world_size, sp_size))
        assert wrapper is not None
        kernel = _labelled(live, "exchange of heads", wrapper(kernel))
    AttentionInterface.register(ATTENTION, keepable(kernel))


def _without_sinks(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for a model with attention sinks, which this kernel has no gradient for: those
    that have one (flash4) allocate a number a head more."""

    @wraps(function)
    def call(*args: Any, s_aux: Any = None, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _labelled(live: LiveBytes, component: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose tensors count as `component`."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outer, live.component = live.component, component
        try:
            return function(*args, **kwargs)
        finally:
            live.component = outer

    return call


def _summed_in_place(live: LiveBytes, add: Callable[..., None]) -> Callable[..., None]:
    """`loss.add_product` as a GPU runs it: a product of bf16 is summed into fp32 at once."""

    @wraps(add)
    def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        with live.uncounted():
            add(total, a, b)

    return add_product


def _row(documents: tuple[int, ...], sp_size: int = 1) -> Row:
    """The first rank's slice of a row of these documents whose every label counts."""
    ends = np.array([0, *accumulate(documents)], dtype=np.int32)
    positions = np.concatenate([np.arange(n) for n in documents])[: ends[-1] // sp_size]
    zeros = np.zeros(len(positions), dtype=np.int64)
    return Row(zeros, zeros, positions, ends)
