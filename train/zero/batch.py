"""How a global batch is cut into micro-batches, and how DeepSpeed's engine sums their gradients."""

from collections.abc import Iterator
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.zero.mesh import Mesh


def accumulation_steps(config: Config, dp_size: int) -> int:
    """Micro-batches of each rank in the first optimizer step. Raises: as `batch_ramp`."""
    return batch_ramp(config, dp_size)[0][1]


def batch_ramp(config: Config, dp_size: int) -> list[tuple[int, int]]:
    """(first step from 0, micro-batches of each rank from that step on) for each batch size.

    Raises: ConfigError when a batch size is no multiple of what the ranks read at once.
    """
    ramp, tokens_at_once = [], config.micro_batch_tokens * dp_size
    for key, first_step, tokens in config.batches():
        if tokens % tokens_at_once:
            nearest = max(1, round(tokens / tokens_at_once)) * tokens_at_once
            raise ConfigError(
                f"{key} is {tokens}; it must be a multiple of {config.micro_batch_tokens} tokens x "
                f"{dp_size} ranks = {tokens_at_once}; try {nearest}"
            )
        ramp.append((first_step, tokens // tokens_at_once))
    return ramp


def accumulate(engine: Any, num_micro_batches: int) -> Iterator[int]:
    """Number the micro-batches of one optimizer step, telling the engine which is the last.

    `OptimizerStep` ends the step after the last one.
    """
    # set_train_batch_size would need the data-parallel size, which is None with sp_size > 1
    engine._config.gradient_accumulation_steps = num_micro_batches
    if hasattr(engine.optimizer, "gradient_accumulation_steps"):
        engine.optimizer.gradient_accumulation_steps = num_micro_batches
    for micro_batch in range(num_micro_batches):
        is_last = micro_batch + 1 == num_micro_batches
        engine.set_gradient_accumulation_boundary(is_last)
        yield micro_batch
        if not is_last:
            engine.step()  # only counts the micro-batch


def gradient_scale(mesh: Mesh, num_micro_batches: int, zero_stage: int) -> int:
    """The factor that undoes the engine's averages, so that gradients are those of the summed loss.

    Stages 0 to 2 divide by dp_size and micro-batches, stage 3 by world_size and micro-batches; the
    tests pin this against one process.
    """
    return mesh.dp_size * num_micro_batches * (mesh.sp_size if zero_stage == 3 else 1)
