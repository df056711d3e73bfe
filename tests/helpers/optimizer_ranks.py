"""How long the tensors are that an engine's optimizer steps, as a rank of test_optimizer.py."""

from typing import Any

import memory_runs

from ropewalk.train.optim import optimizer
from ropewalk.train.optim.param_groups import parameter_groups, set_requires_grad
from ropewalk.train.zero.buffer_sizes import longest_stepped_tensor
from ropewalk.train.zero.engine import build_engine


def longest_tensors(case: dict[str, Any]) -> tuple[int, int]:
    """The longest tensor that the engine's optimizer steps on three ranks, and the arithmetic's."""
    config = memory_runs.make_config(**case)
    model = memory_runs.make_model(vocab_size=101)  # so that parts are padded
    set_requires_grad(model, config.train)
    groups = parameter_groups(model, config.train)
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    largest = max(p.numel() for p in model.parameters())
    engine = build_engine(model, config, 1)
    tensors = [p for group in engine.optimizer.param_groups for p in group["params"]]
    longest = longest_stepped_tensor(config.train.zero_stage, sizes, largest, 3)
    return max(t.numel() for t in tensors), longest


def build_with_bound(bound: int) -> None:
    """An engine with 8-bit moments whose kernels could count no further than `bound`."""
    optimizer.EIGHT_BIT_MAX_ELEMENTS = bound
    config = memory_runs.make_config(optimizer__name="adamw_8bit")
    build_engine(memory_runs.make_model(), config, 1)
