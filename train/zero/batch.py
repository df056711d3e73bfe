""""""

from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config


def accumulation_steps(config: Config, dp_size: int) -> int:
    """Micro-steps of one optimizer step, of the first where a ramp follows. Raises: ConfigError when a batch does not divide."""
    return batch_ramp(config, dp_size)[0][1]


def batch_ramp(config: Config, dp_size: int) -> list[tuple[int, int]]:
    """(first step from 0, micro-steps of an optimizer step from there on) of each size of the batch. Raises: ConfigError."""
    found, ranks = [], config.micro_batch_tokens * dp_size
    for key, first, tokens in config.batches():
        if tokens % ranks:
            near = max(1, round(tokens / ranks)) * ranks
            raise ConfigError(
                f"{key} is {tokens}; it must be a multiple of {config.micro_batch_tokens} tokens x {dp_size} ranks = {ranks}; try {near}"
            )
        found.append((first, tokens // ranks))
    return found


def set_accumulation_steps(engine: Any, steps: int) -> None:
    """How many micro-steps the next optimizer step sums: told to the engine, which counts modulo a fixed number by itself."""
    # set_train_batch_size does the same by way of a data-parallel size, which is None where a sequence is shared
    engine._config.gradient_accumulation_steps = steps
    if hasattr(engine.optimizer, "gradient_accumulation_steps"):
        engine.optimizer.gradient_accumulation_steps = steps
