"""What a step is seen to be: every rank gathers, one all-reduce joins, and the line of metrics.jsonl says it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ropewalk.conf.schema import Config
from ropewalk.data.dataset import IGNORE, BatchLoader, Row
from ropewalk.train.attention import s2_attn
from ropewalk.train.cost import flops
from ropewalk.train.cost.hardware import peak_of
from ropewalk.train.metrics import buckets, grad_norms
from ropewalk.train.metrics.timer import StepTimer, straggler_share, with_other
from ropewalk.train.metrics.writers import peak_memory_bytes
from ropewalk.train.zero.device import device
from ropewalk.train.zero.mesh import Mesh

FACTS = ("forward", "flops", "memory")  # of each rank


class StepMetrics:
    """Of a whole training; `begin` starts a step."""

    def __init__(
        self,
        engine: Any,
        config: Config,
        mesh: Mesh,
        feed: BatchLoader | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """`names`: of the sources of `feed`, in the order of their stores; without them there is no loss by source."""
        self.engine, self.mesh, self.at, self.feed, self.names = engine, mesh, device(), feed, names
        self.every, self.again = (
            config.train.seeing.group_norms_every,
            config.train.activation_checkpointing,
        )
        self.z_loss = config.train.z_loss > 0
        if torch.cuda.is_available():  # what building the model took is no step's
            torch.cuda.reset_peak_memory_stats()
        self.work, self.s2_group = flops.work(engine.module.model), config.train.s2_group
        self.tiled = flops.mlps(engine.module.model) if config.train.tile_mlp else 0
        self.peak = peak_flops(config.train.seeing.peak_tflops)

    def begin(self, step: int) -> StepTimer:
        """Step from 0. What the marks of the clock that it returns divide is the step's time."""
        self.clock, self.step = StepTimer(), step
        self.positions = buckets.BucketSums(len(buckets.edges()), self.at)
        self.sources = buckets.BucketSums(max(len(self.names), 1), self.at)
        self.mine = iter(self.feed.mine(step)) if self.feed and self.names else None
        self.loss, self.beyond = torch.zeros(
            2, dtype=torch.float64, device=self.at
        )  # cross-entropy, z-loss
        self.squares = torch.zeros(len(grad_norms.GROUPS), dtype=torch.float64, device=self.at)
        self.needed = self.recomputed = 0.0
        return self.clock

    def row(self, row: Row, batch: dict[str, Any], share: torch.Tensor) -> None:
        """After a forward pass on `batch`, which is `row` on the device: `share` is its part of the step's loss."""
        self.loss += self.engine.module.plain
        self.beyond += share.detach() - self.engine.module.plain
        positions, labels = batch["position_ids"][0], batch["labels"][0]
        nll, counts = self.engine.module.nll, labels != IGNORE
        self.positions.add(buckets.by_position(positions), nll, counts)
        if self.feed and self.mine is not None:
            of = torch.from_numpy(self.feed.sources_of(next(self.mine))).to(
                self.at, non_blocking=True
            )
            self.sources.add(of, nll, counts)
        sp, attended = self.mesh.sp_size, self._attended(row.cu_seqlens)
        self.needed += (
            sum(self.work.training(lengths, 0) for lengths in attended) / len(attended) / sp
        )
        self.recomputed += (
            self.again * sum(self.work.body(lengths) for lengths in attended) / len(attended) / sp
        )
        self.recomputed += 2 * self.tiled * len(row.input_ids)
        self.clock("other")

    def _attended(self, cu_seqlens: np.ndarray) -> list[list[int]]:
        """Tokens that attend to one another: documents, or for either half of the heads their groups (S2-Attn)."""
        if not self.s2_group:
            return [np.diff(cu_seqlens).tolist()]
        ends = tuple(cu_seqlens.tolist())
        return [
            np.diff(s2_attn.group_borders(ends, self.s2_group, shift)).tolist()
            for shift in (0, self.s2_group // 2)
        ]

    def gradients(self) -> None:
        """After a backward pass; at the last of a step the averaged gradient is looked at, before it is clipped."""
        if (
            self.every
            and self.step % self.every == 0
            and self.engine.is_gradient_accumulation_boundary()
        ):
            self.squares = grad_norms.local_squares(self.engine.module, self.mesh.rank, self.at)
        self.clock("other")

    def end(self, tokens: int, labels: int) -> dict[str, Any]:
        """The step's part of the line. `tokens`, `labels`: of the global batch."""
        before = self.clock.seconds()
        facts = [before.get("forward", 0.0), self.needed, float(peak_memory_bytes())]
        parts = {
            "loss": self.loss,
            "beyond": self.beyond,
            "positions": self.positions.found,
            "squares": self.squares,
        }
        parts["sources"] = self.sources.found
        found = buckets.all_reduce(parts, facts, self.mesh.rank, self.mesh.world_size)
        self.clock("wait")
        seconds, by_rank = (
            self.clock.elapsed(),
            dict(zip(FACTS, found["ranks"].T.tolist(), strict=True)),
        )
        head = self.work.training([], labels)
        needed, world = round(sum(by_rank["flops"])) + head, self.mesh.world_size
        recomputed = self.recomputed / max(self.needed, 1) * sum(by_rank["flops"])
        line = {
            "loss": float(found["loss"]),
            **({"z_loss": float(found["beyond"])} if self.z_loss else {}),
            "tokens_per_s": tokens / seconds,
            "tokens_per_s_per_rank": tokens / seconds / world,
            "step_time_s": seconds,
            "time": with_other(self.clock.seconds(), seconds),
            "idle": straggler_share(by_rank["forward"]),
            "imbalance": straggler_share(by_rank["flops"]),
            "model_flops": needed,
            "mfu": utilisation(needed, seconds, world, self.peak),
            "hfu": utilisation(needed + recomputed, seconds, world, self.peak),
            "peak_memory_bytes": round(max(by_rank["memory"])),
            "loss_by_position": buckets.position_rows(found["positions"]),
        }
        if self.names:
            line["loss_by_source"] = buckets.source_rows(found["sources"], self.names)
        groups = grad_norms.norms(found["squares"])
        return line | ({"grad_norm_by_group": groups} if groups else {})


def peak_flops(given: float | None) -> float | None:
    """FLOP/s of this device's ceiling: as set (TFLOP/s), or published for a GPU in the table; None where neither is known."""
    if given is not None:
        return given * 1e12
    known = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return None if known is None else known.bf16_tflops * 1e12


def utilisation(flops_done: float, seconds: float, ranks: int, peak: float | None) -> float | None:
    """Share of what the ranks' devices could have done at their ceiling; None where that is not known."""
    return None if peak is None else flops_done / (seconds * ranks * peak)
