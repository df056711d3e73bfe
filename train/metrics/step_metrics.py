"""Per-step metrics: added up on every rank, reduced in one all-reduce, returned as a line's fields.

Time is measured by events between the parts of a step. On a GPU an event is recorded in the stream:
nothing waits for it, and a part is the device's time between two events, so time in which the host
ran ahead costs nothing. On a CPU an event is the host's clock. Collectives inside forward and
backward count as part of those: they overlap with the computation, and only a profiler
(train.profiler) can separate them.
"""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import IGNORE, BatchLoader, Row, SequenceRef
from ropewalk.train.attention import s2_attn
from ropewalk.train.cost import flops
from ropewalk.train.cost.hardware import peak_flops
from ropewalk.train.metrics.sums import (
    BucketSums,
    Reduction,
    all_reduce,
    bucket_starts,
    local_squared_norms,
    norms_by_group,
    position_bucket,
    position_rows,
    source_rows,
)
from ropewalk.train.optim.param_groups import GROUPS
from ropewalk.train.transfer import copy_to_device
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.mesh import Mesh, device

PHASES = ("data", "forward", "backward", "optimizer", "wait")


class StepTimer:
    """Seconds of a step by phase.

    `wait` is the time from this rank's end to that of the slowest rank.
    """

    def __init__(self) -> None:
        self.on_gpu = torch.cuda.is_available()
        self.started = time.perf_counter()
        self.events: list[tuple[str, Any]] = [("", self._record())]

    def __call__(self, phase: str) -> None:
        """Count the time since the last event as `phase`."""
        self.events.append((phase, self._record()))

    def _record(self) -> torch.cuda.Event | float:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_by_phase(self, *phases: str) -> dict[str, float]:
        """Seconds of each phase so far, or of `phases` alone.

        Nothing waits for the device: call it once something else has waited for these phases, such
        as a number of the step that was read.
        """
        seconds: dict[str, float] = defaultdict(float)
        for (_, begin), (phase, end) in zip(self.events, self.events[1:], strict=False):
            if not phases or phase in phases:
                seconds[phase] += begin.elapsed_time(end) / 1000 if self.on_gpu else end - begin
        return dict(seconds)

    def elapsed(self) -> float:
        """Seconds since the step began, by the host's clock."""
        return time.perf_counter() - self.started


class StepSums:
    """What one rank has added up since the step began."""

    def __init__(
        self, step: int, num_sources: int, micro_batches: Iterator[list[SequenceRef]]
    ) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device())

        self.step = step
        self.micro_batches = micro_batches
        self.loss = zeros()
        self.z_loss = zeros()
        self.router_loss = zeros()
        self.by_position = BucketSums(len(bucket_starts()), device())
        self.by_source = BucketSums(max(num_sources, 1), device())
        self.squared_norms = zeros(len(GROUPS))
        self.flops = 0.0
        """Model FLOPs of this rank, without the head."""
        self.recomputed_flops = 0.0


class StepMetrics:
    """Measures one step after the other.

    In a step: `start_step`, `add_micro_batch` for each micro-batch, `add_gradients`, `finish_step`.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        mesh: Mesh,
        loader: BatchLoader | None = None,
        source_names: Sequence[str] = (),
    ) -> None:
        """`source_names`: of the loader's stores, in order; without them no loss by source."""
        self.engine, self.mesh = engine, mesh
        self.loader = loader if source_names else None
        self.source_names = source_names
        self.group_norms_every = config.train.metrics.group_norms_every
        self.recomputes_layers = config.train.memory.activation_checkpointing
        self.has_z_loss = config.train.loss.z_loss > 0
        self.has_router_loss = engine.module.router_loss is not None
        self.s2_group = config.train.attention.s2_group
        if torch.cuda.is_available():  # building the model belongs to no step
            torch.cuda.reset_peak_memory_stats()
        model = engine.module.model
        self.cost = flops.model_cost(model)
        self.tiled_elements = (
            flops.mlp_elements(model) if config.train.memory.tile_mlp_tokens else 0
        )
        self.peak_flops = peak_flops(config.train.metrics.peak_tflops)
        self.timer = StepTimer()
        self.sums = StepSums(0, len(source_names), iter(()))

    @property
    def loss(self) -> torch.Tensor:
        """This rank's part of the step's cross-entropy, a float64 scalar."""
        return self.sums.loss

    def start_step(self, step: int) -> StepTimer:
        """Begin step `step` (from 0).

        Calls of the returned timer divide the step's time into phases.
        """
        self.timer = StepTimer()
        micro_batches = (
            iter(self.loader.local_micro_batches(step)) if self.loader is not None else iter(())
        )
        self.sums = StepSums(step, len(self.source_names), micro_batches)
        return self.timer

    def add_micro_batch(self, row: Row, batch: dict[str, Any], loss: torch.Tensor) -> None:
        """Call after the forward pass on `batch` (`row` on the device), which returned `loss`."""
        module, sums = self.engine.module, self.sums
        sums.loss += module.cross_entropy
        sums.z_loss += loss.detach() - module.cross_entropy - module.router_part
        sums.router_loss += module.router_part
        bucket = position_bucket(batch["position_ids"][0])
        counts = batch["labels"][0] != IGNORE
        sums.by_position.add(bucket, module.nll, counts)
        if self.loader is not None:
            sources = self.loader.token_sources(next(sums.micro_batches))
            sums.by_source.add(copy_to_device(sources, device()), module.nll, counts)
        self._add_flops(row, passes_again=batch.get("batch_routing") is not None)
        self.timer("other")

    def _add_flops(self, row: Row, passes_again: bool) -> None:
        """This rank's share of a row's FLOPs.

        The head is counted at the end of the step, by labels. `passes_again`: a forward pass
        without gradients counted how the row is routed.
        """
        by_half, sp_size = self._attention_lengths(row.cu_seqlens), self.mesh.sp_size
        training = sum(self.cost.training_flops(lengths, 0) for lengths in by_half)
        self.sums.flops += training / len(by_half) / sp_size
        passes = self.recomputes_layers + passes_again
        layers = passes * sum(self.cost.body_flops(n) for n in by_half)
        kept = self.engine.module.kept_attention
        if kept is not None and kept.has_effect:
            layers -= sum(self.cost.attention_flops(n) for n in by_half)
        self.sums.recomputed_flops += layers / len(by_half) / sp_size
        self.sums.recomputed_flops += 2 * self.tiled_elements * len(row.input_ids)

    def _attention_lengths(self, cu_seqlens: np.ndarray) -> list[list[int]]:
        """Lengths of the documents; with S2-Attn of the groups of each half of the heads."""
        if not self.s2_group:
            return [np.diff(cu_seqlens).tolist()]
        ends = tuple(cu_seqlens.tolist())
        return [
            np.diff(s2_attn.group_borders(ends, self.s2_group, shift)).tolist()
            for shift in (0, self.s2_group // 2)
        ]

    def add_gradients(self) -> None:
        """Call after a step's last backward pass: the gradient is averaged, and not yet clipped."""
        every = self.group_norms_every
        if every and self.sums.step % every == 0:
            self.sums.squared_norms = local_squared_norms(self.engine, self.mesh.rank, device())
        self.timer("other")

    def finish_step(self, tokens: int, labels: int) -> dict[str, Any]:
        """Reduce over all ranks; returns the step's fields of metrics.jsonl. Collective.

        `tokens`, `labels`: counts of the global batch.
        """
        reduction = self._reduce()
        self.timer("wait")
        reduced = reduction.read()
        seconds = self.timer.elapsed()
        forward_s, rank_flops, memory = reduced["ranks"].T.tolist()
        fields = {
            "loss": float(reduced["loss"]),
            **({"z_loss": float(reduced["z_loss"])} if self.has_z_loss else {}),
            **({"router_loss": float(reduced["router_loss"])} if self.has_router_loss else {}),
            "tokens_per_s": tokens / seconds,
            "tokens_per_s_per_rank": tokens / seconds / self.mesh.world_size,
            "step_time_s": seconds,
            "time": with_other(self.timer.seconds_by_phase(), seconds),
            "idle": straggler_share(forward_s),
            "imbalance": straggler_share(rank_flops),
            **self._utilisation(sum(rank_flops), labels, seconds),
            "peak_memory_bytes": round(max(memory)),
            "loss_by_position": position_rows(reduced["by_position"]),
        }
        if self.source_names:
            fields["loss_by_source"] = source_rows(reduced["by_source"], self.source_names)
        if norms := norms_by_group(reduced["squared_norms"]):
            fields["grad_norm_by_group"] = norms
        return fields

    def _reduce(self) -> Reduction:
        sums = self.sums
        # the forward passes are over: the step's loss was read after them
        forward_s = self.timer.seconds_by_phase("forward").get("forward", 0.0)
        tensors = {
            "loss": sums.loss,
            "z_loss": sums.z_loss,
            "router_loss": sums.router_loss,
            "by_position": sums.by_position.sums,
            "by_source": sums.by_source.sums,
            "squared_norms": sums.squared_norms,
        }
        rank_values = [forward_s, sums.flops, float(peak_memory_bytes())]
        return all_reduce(tensors, rank_values, self.mesh.rank, self.mesh.world_size)

    def _utilisation(self, body_flops: float, labels: int, seconds: float) -> dict[str, Any]:
        """Model FLOPs and their share of the devices' peak: MFU, and with recomputation HFU."""
        model_flops = round(body_flops) + self.cost.training_flops([], labels)
        recomputed = self.sums.recomputed_flops / max(self.sums.flops, 1) * body_flops
        ranks, peak = self.mesh.world_size, self.peak_flops
        return {
            "model_flops": model_flops,
            "mfu": flops.utilisation(model_flops, seconds, ranks, peak),
            "hfu": flops.utilisation(model_flops + recomputed, seconds, ranks, peak),
        }


def with_other(seconds_by_phase: dict[str, float], step_s: float) -> dict[str, float]:
    """Seconds of every phase, and as `other` the rest of the step's `step_s` seconds."""
    named = {phase: seconds_by_phase.get(phase, 0.0) for phase in PHASES}
    return {**named, "other": step_s - sum(named.values())}


def straggler_share(seconds: list[float]) -> float:
    """Share of all ranks' time that is spent waiting for the slowest rank: 1 - mean / max."""
    return 1 - sum(seconds) / len(seconds) / max(seconds) if max(seconds) > 0 else 0.0


def peak_memory_bytes() -> int:
    """Peak memory of this rank: device memory on a GPU, resident memory on a CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
