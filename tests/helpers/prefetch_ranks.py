"""What ZeRO 3 gathers ahead in a step, as a rank of test_prefetch.py."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import memory_runs
import torch
from deepspeed.runtime.zero.partitioned_param_profiler import PartitionedParameterProfiler

from ropewalk.train.loss_model import LossModel, TokenLoss
from ropewalk.train.zero import engine as zero_engine
from ropewalk.train.zero.buffer_sizes import PartSizes, part_sizes

SHAPE: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "tie_word_embeddings": False,
}
"""A head of 64,000 elements, larger than a layer."""


@contextmanager
def counted_gathers() -> Iterator[Counter[str]]:
    """Gathers by the name that DeepSpeed's own profiler gives them: `forward_prefetch_submit`."""
    counts: Counter[str] = Counter()
    original = PartitionedParameterProfiler.start_event

    def start_event(self: Any, name: str) -> None:
        counts[name] += 1
        original(self, name)

    PartitionedParameterProfiler.start_event = start_event
    yield counts
    PartitionedParameterProfiler.start_event = original


def gathers(
    settings: dict[str, Any] | None = None, head_outside: bool = False
) -> tuple[dict[str, int], PartSizes]:
    """Gathers of a step after DeepSpeed has recorded the order of the modules.

    `head_outside`: `LossModel` reads the head's weight itself, the fault that stops prefetching.
    """
    config = memory_runs.make_config(precision="bf16", zero_stage=3, **(settings or {}))
    model = memory_runs.make_model(**SHAPE)
    sizes = part_sizes(model)
    if head_outside:
        read_head_outside()
    engine = zero_engine.build_engine(model, config, 1)
    for step in range(3):
        memory_runs.run_step(engine, step)
    with counted_gathers() as counts:
        memory_runs.run_step(engine, 3)
    return dict(counts), sizes


def read_head_outside() -> None:
    """As if there were no `TokenLoss`: the head becomes a parameter of the outermost module."""
    forward = LossModel.forward

    def forward_with_head(self: LossModel, *args: Any, **kwargs: Any) -> torch.Tensor:
        weight = self.head_weight()
        self.token_loss.head_weight = lambda: weight
        return forward(self, *args, **kwargs)

    zero_engine.gather_head_around_loss = lambda _: None
    LossModel.forward = forward_with_head  # type: ignore[method-assign]
    TokenLoss.__call__ = TokenLoss.forward
